"""How an agent of `agentcom_client` comes back, and how it stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from agentcom.sockets import reconnect_reason
from agentcom_client import Agent, Cancel, NoRetry, RetryAfter, Task
from agentcom_client.connection import Connection
from agentcom_client.slot import COME_BACK, Work

BOUND_S = 20
AN_HOUR_S = 3600.0


@pytest.mark.parametrize(("sockets", "within_s"), [(1, 1), (499, 1), (500, 2), (2_000, 5)])
def test_the_hint_grows_with_the_herd_and_can_be_read(sockets: int, within_s: int) -> None:
    hint = COME_BACK.search(reconnect_reason("the hub stops here", sockets))
    assert hint is not None
    assert int(hint[1]) == within_s
    assert (
        len(reconnect_reason("this process was taken for dead", 10**6)) <= 123
    )  # a close frame's room


@pytest.mark.parametrize("reason", ["the hub stops here; come back within 1 s", ""])
async def test_after_a_1012_it_is_soon_at_the_next_address(reason: str) -> None:
    """Its own pause would be up to an hour."""
    arrivals: asyncio.Queue[int] = asyncio.Queue()

    async def stops(socket: ServerConnection) -> None:
        """As a hub that says good-bye to whoever identifies."""
        about = json.loads(await socket.recv())
        await socket.send(json.dumps({"type": "identified", "agent_id": about["token"]}))
        assert socket.local_address is not None
        arrivals.put_nowait(socket.local_address[1])
        await socket.close(1012, reason)

    async with asyncio.timeout(BOUND_S), AsyncExitStack() as servers:
        ports = []
        for _ in range(2):
            server = await servers.enter_async_context(serve(stops, "127.0.0.1", 0))
            ports.append(server.sockets[0].getsockname()[1])
        urls = [f"ws://127.0.0.1:{port}" for port in ports]
        agent = Agent(
            urls,
            "token",
            nothing,
            first_delay_s=AN_HOUR_S,
            longest_delay_s=AN_HOUR_S,
        )
        running = asyncio.create_task(agent.run())
        assert [await arrivals.get() for _ in range(3)] == [ports[0], ports[1], ports[0]]
        await agent.stop()
        await running


async def test_it_logs_what_the_hub_changed_of_an_outcome(caplog: pytest.LogCaptureFixture) -> None:
    async def cuts(socket: ServerConnection) -> None:
        told = json.loads(await socket.recv())
        ack = {"type": "task_ack", "task_id": told["task_id"], "status": "retried"}
        await socket.send(json.dumps({**ack, "detail": "error: cut to 16384 characters"}))
        await socket.recv()
        await socket.send(json.dumps(ack))

    async with asyncio.timeout(BOUND_S), serve(cuts, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with await Connection.open(f"ws://127.0.0.1:{port}") as hub:
            await hub.request("task_failed", task_id="task-1", generation=1, error="x")
            await hub.request("task_failed", task_id="task-1", generation=1, error="x")
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ["task_failed of task-1: error: cut to 16384 characters"]


async def nothing(task: Task) -> dict[str, str]:
    return {}


# --- Cancelling: what the client does with each frame. With a real hub: tests/flow/test_client.py


MORE: dict[str, dict[str, Any]] = {
    "task_assign": {"description": "", "metadata": {}, "assigned_at": 1},
    "task_cancel": {"reason": "too dear", "deadline": 1},
}


class Script:
    """A hub that does what the test says: it acks what it has no other answer to."""

    def __init__(self) -> None:
        self.answers: dict[str, list[dict[str, Any]]] = {}  # to the next message of a type
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sockets: list[ServerConnection] = []
        self.url = ""

    async def serve(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        async for text in socket:
            message = json.loads(text)
            for answer in self._answers_to(message):
                await socket.send(json.dumps(answer))
            self.said.put_nowait(message)

    def _answers_to(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        if message["type"] == "identify":
            return [{"type": "identified"}]
        if prepared := self.answers.pop(message["type"], None):
            return prepared
        return [{"type": "task_ack", "task_id": message.get("task_id"), "status": "fine"}]

    async def push(self, type: str, task_id: str, generation: int = 1, **more: Any) -> None:
        frame = {"type": type, "task_id": task_id, "generation": generation}
        await self.sockets[-1].send(json.dumps({**frame, **MORE[type], **more}))

    async def hear(self, type: str) -> dict[str, Any]:
        """The next message, which has to be of this type."""
        message = await self.said.get()
        assert message["type"] == type, message
        return message


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    script = Script()
    async with serve(script.serve, "127.0.0.1", 0) as server:
        script.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield script


@asynccontextmanager
async def at_work(script: Script, work: Work, **about: Any) -> AsyncIterator[asyncio.Task[None]]:
    agent = Agent(script.url, "token", work, first_delay_s=0, **about)
    running = asyncio.create_task(agent.run())
    async with asyncio.timeout(BOUND_S):
        yield running
    if isinstance(work, Recorded):
        work.may_end.set()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


class Recorded:
    """A work that lasts until it is stopped, and cleans up until it may end."""

    task: Task

    def __init__(self) -> None:
        self.log: list[str] = []
        self.cancel: list[Cancel | None] = []
        self.has_begun = asyncio.Event()
        self.cleaning = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self, task: Task) -> dict[str, Any]:
        self.log.append(f"{task.id} begins")
        self.task = task
        self.has_begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancel.append(task.cancel)
            self.cleaning.set()
            await self.may_end.wait()
        self.log.append(f"{task.id} ends")
        return {"half": task.id, "tokens_used": 7}


async def begun(script: Script, task_id: str = "task-1", generation: int = 1) -> None:
    await script.push("task_assign", task_id, generation)
    await script.hear("task_accepted")


@pytest.mark.parametrize(("about", "accepts"), [({}, ["cancel"]), ({"accepts": ()}, [])])
async def test_it_says_that_it_listens_to_cancels(
    script: Script, about: dict[str, Any], accepts: list[str]
) -> None:
    async with at_work(script, nothing, **about):
        assert (await script.hear("identify"))["accepts"] == accepts


async def test_only_a_cancel_of_its_own_task_and_generation_stops_its_work(script: Script) -> None:
    work = Recorded()
    async with at_work(script, work):
        await script.hear("identify")
        await begun(script, generation=2)
        await work.has_begun.wait()
        for other in (("task-1", 1), ("task-1", 3), ("task-2", 2)):
            await script.push("task_cancel", *other)
            said = await script.hear("task_cancelled")
            assert (said["task_id"], said["generation"]) == other, "it does not work on that one"
        assert not work.cleaning.is_set()
        await script.push("task_cancel", "task-1", 2)
        await work.cleaning.wait()
        assert work.cancel == [Cancel("too dear", 1)]


async def test_a_repeated_cancel_does_not_disturb_the_cleanup(script: Script) -> None:
    work = Recorded()
    async with at_work(script, work):
        await script.hear("identify")
        await begun(script)
        await work.has_begun.wait()
        for deadline in (3, 3, 2):
            await script.push("task_cancel", "task-1", deadline=deadline)
            await work.cleaning.wait()
        await script.push("task_cancel", "task-9")
        await script.hear("task_cancelled")  # so the repeated ones have arrived
        assert work.task.cancel == Cancel("too dear", 2), "the time was shortened"
        work.may_end.set()
        said = await script.hear("task_cancelled")
        assert said["result"] == {"half": "task-1", "tokens_used": 7}
        await script.push("task_cancel", "task-1")  # and one that crossed the answer
        await begun(script, "task-2")
    assert work.log[:2] == ["task-1 begins", "task-1 ends"]


async def test_the_next_task_waits_for_the_cleanup(script: Script) -> None:
    """As after the agent reconnected, or reported progress, when the hub had ended the task."""
    work = Recorded()
    async with at_work(script, work):
        await script.hear("identify")
        await begun(script)
        await work.has_begun.wait()
        await script.push("task_cancel", "task-1")
        await work.cleaning.wait()
        await script.push("task_assign", "task-2")
        await script.push("task_assign", "task-3")
        await script.push("task_cancel", "task-3")
        assert (await script.hear("task_cancelled"))["task_id"] == "task-3", "it had not begun"
        await script.push("task_assign", "task-4")
        await script.push("task_cancel", "task-9")
        await script.hear("task_cancelled")
        assert work.log == ["task-1 begins"]
        work.may_end.set()
        accepted = await script.hear("task_accepted")
        assert accepted["task_id"] == "task-4"
        assert work.log[:2] == ["task-1 begins", "task-1 ends"]


async def test_a_task_that_was_taken_away_is_cleaned_up_before_the_next_one(
    script: Script,
) -> None:
    work = Recorded()
    script.answers["task_recovering"] = [{"type": "task_reassign", "task_id": "task-1"}]
    async with at_work(script, work):
        await script.hear("identify")
        await begun(script)
        await work.has_begun.wait()
        await script.sockets[-1].close(1012, "the hub stops here; come back within 0 s")
        await script.hear("identify")
        await script.hear("task_recovering")
        await work.cleaning.wait()
        assert work.cancel == [None], "nobody cancelled the task"
        await script.push("task_assign", "task-2")
        await script.push("task_cancel", "task-9")
        await script.hear("task_cancelled")
        assert work.log == ["task-1 begins"]
        work.may_end.set()
        assert (await script.hear("task_accepted"))["task_id"] == "task-2"


async def test_a_cancel_may_come_before_the_ack_of_the_acceptance(script: Script) -> None:
    work = Recorded()
    about = {"task_id": "task-1", "generation": 1}
    script.answers["task_accepted"] = [
        {"type": "task_cancel", **about, **MORE["task_cancel"]},
        {"type": "task_ack", "task_id": "task-1", "status": "accepted"},
    ]
    work.may_end.set()
    async with at_work(script, work):
        await script.hear("identify")
        await begun(script)
        assert (await script.hear("task_cancelled"))["task_id"] == "task-1"
        await begun(script, "task-2")


@pytest.mark.parametrize("answer", ["task_ack", "error"])
async def test_a_work_that_is_done_when_the_cancel_arrives_is_completed(
    script: Script, answer: str
) -> None:
    """Whatever the hub makes of it, the agent goes on with the next task."""
    finish = asyncio.Event()
    begins = asyncio.Event()

    async def finishes(task: Task) -> dict[str, Any]:
        begins.set()
        await finish.wait()
        return {"whole": True}

    def observe(frame: dict[str, Any]) -> None:
        if frame["type"] == "task_cancel":
            finish.set()

    if answer == "error":
        stale = {"type": "error", "error": "task_complete_failed: stale_generation"}
        script.answers["task_complete"] = [stale]
        script.answers["task_failed"] = [{**stale, "error": "task_fail_failed: stale_generation"}]
    async with at_work(script, finishes, observe=observe):
        await script.hear("identify")
        await begun(script)
        await begins.wait()
        await script.push("task_cancel", "task-1")
        assert (await script.hear("task_complete"))["result"] == {"whole": True}
        if answer == "error":
            await script.hear("task_failed")
        await begun(script, "task-2")


async def test_the_outcome_of_a_cancelled_work_is_sent_again_until_it_is_acked(
    script: Script,
) -> None:
    work = Recorded()
    work.may_end.set()
    script.answers["task_cancelled"] = [{"type": "error", "error": "unavailable"}]
    async with at_work(script, work):
        await script.hear("identify")
        await begun(script)
        await work.has_begun.wait()
        await script.push("task_cancel", "task-1")
        first = await script.hear("task_cancelled")
        await script.hear("identify")
        assert await script.hear("task_cancelled") == first


async def test_its_own_end_is_no_cancelled_task(script: Script) -> None:
    """`run` is cancelled: the work sees that nobody asked, and `run` waits for its cleanup."""
    work = Recorded()
    async with at_work(script, work) as running:
        await script.hear("identify")
        await begun(script)
        await work.has_begun.wait()
        running.cancel()
        await work.cleaning.wait()
        assert work.cancel == [None]
        assert not running.done()
        work.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert work.log == ["task-1 begins", "task-1 ends"]
    assert script.said.empty()


async def test_a_work_that_cancels_itself_hands_its_task_back(script: Script) -> None:
    async def gives_up(task: Task) -> dict[str, Any]:
        raise asyncio.CancelledError

    async with at_work(script, gives_up):
        await script.hear("identify")
        await begun(script)
        await script.hear("task_rejected")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no"), {}),
        (NoRetry("no"), {"retryable": False}),
        (RetryAfter("no", 30), {"retry_after_s": 30}),
    ],
)
async def test_what_it_says_of_a_failure(
    script: Script, error: Exception, said: dict[str, Any]
) -> None:
    async def fails(task: Task) -> dict[str, Any]:
        raise error

    async with at_work(script, fails):
        await script.hear("identify")
        await begun(script)
        failed = await script.hear("task_failed")
        about = {"type": "task_failed", "task_id": "task-1", "generation": 1, "error": "no"}
        assert failed == {**about, **said}
