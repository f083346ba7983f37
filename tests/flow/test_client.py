"""How an agent of `agentcom_client` stops at the hub's request, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest

from agentcom_client import Agent, NoRetry, RetryAfter, Task
from agentcom_client.connection import Message
from lab.harness.hub import Hub
from lab.kit.fleet import running
from lab.kit.member import Member
from tests.flow.conftest import Join, Submit, eventually
from tests.flow.test_cancel import cancel, look_up, until_status

SETTINGS = {"AGENTCOM_RECLAIM_GRACE_S": "20", "AGENTCOM_WORKER_TICK_S": "0.1"}
LONG_S = 60

End = Callable[[Task], Awaitable[dict[str, Any]]]


async def returns_half(task: Task) -> dict[str, Any]:
    assert task.cancel is not None
    return {"half": task.cancel.reason, "tokens_used": 7}


class Worker:
    """An agent whose work lasts until it is told how to go on, or is cancelled: then it takes
    its time to clean up, and ends as `end` says."""

    def __init__(self, hub: Hub, agent_id: str, token: str, skill: str, end: End) -> None:
        self.skill = skill
        self.end = end
        self.seen: list[Message] = []
        self.on: dict[str, Callable[[], None]] = {}  # by the type of a frame that arrives
        self.at_work: list[str] = []  # never more than one
        self.has_begun = asyncio.Event()
        self.may_finish = asyncio.Event()
        self.is_cleaning = asyncio.Event()
        self.may_end = asyncio.Event()
        self.agent = Agent(
            hub.ws_url,
            token,
            self.work,
            capabilities=[skill],
            first_delay_s=0,
            observe=self.observe,
        )

    def observe(self, frame: Message) -> None:
        self.seen.append(frame)
        if react := self.on.get(frame["type"]):
            react()

    async def work(self, task: Task) -> dict[str, Any]:
        assert not self.at_work, "never two at once"
        self.at_work.append(task.id)
        self.has_begun.set()
        try:
            await self.may_finish.wait()
            return {"whole": True}
        except asyncio.CancelledError:
            self.is_cleaning.set()
            await self.may_end.wait()
            return await self.end(task)
        finally:
            self.at_work.remove(task.id)

    def answers(self, task_id: str) -> list[str]:
        """What the hub answered about a task, without the acceptance."""
        about = [frame for frame in self.seen if frame.get("task_id") == task_id]
        said = [frame.get("status") or frame.get("error") for frame in about]
        return [str(word) for word in said if word not in (None, "accepted")]


Work = Callable[..., AbstractAsyncContextManager[Worker]]


@pytest.fixture
def at_work(hub: Hub, identities: Any, skills: Any) -> Work:
    @asynccontextmanager
    async def at_work(
        end: End = returns_half, again: Member | None = None
    ) -> AsyncIterator[Worker]:
        agent_id, token = (again.agent_id, again.token) if again else next(identities)
        worker = Worker(hub, agent_id, token, again.skill if again else next(skills), end)
        async with running(worker.agent):
            try:
                yield worker
            finally:  # also if the test failed: an agent ends with its work
                worker.may_end.set()

    return at_work


async def until_state(api: httpx.AsyncClient, agent: Agent, wanted: str) -> None:
    async def has_it() -> bool:
        state = (await api.get(f"/api/agents/{agent.agent_id}/state")).json()
        return bool(state["fsm_state"] == wanted)

    await eventually(has_it)


async def test_it_cleans_up_and_gives_what_it_has_before_it_takes_the_next_task(
    api: httpx.AsyncClient, submit: Submit, at_work: Work
):
    async with at_work() as worker:
        task_id, behind = await submit(worker.skill), await submit(worker.skill)
        await worker.has_begun.wait()
        status, _ = await cancel(api, task_id, reason="too dear", timeout_s=LONG_S)
        assert status == 202
        await worker.is_cleaning.wait()
        assert (await look_up(api, behind))["status"] == "queued"
        worker.may_end.set()
        task = await until_status(api, task_id, "cancelled")
        assert (task["result"]["half"], task["tokens_used"]) == ("too dear", 7)
        assert task["retry_count"] == 0
        worker.may_finish.set()
        await until_status(api, behind, "completed")
        assert worker.answers(task_id) == ["cancelled"]


async def raises(task: Task) -> dict[str, Any]:
    raise RuntimeError("the cleanup failed")


async def passes_on(task: Task) -> dict[str, Any]:
    raise asyncio.CancelledError


async def gives_what_is_no_result(task: Task) -> dict[str, Any]:
    return {"half": float("nan")}


@pytest.mark.parametrize("end", [raises, passes_on, gives_what_is_no_result])
async def test_without_a_result_it_is_cancelled_too(
    api: httpx.AsyncClient, submit: Submit, at_work: Work, end: End
):
    async with at_work(end) as worker:
        task_id = await submit(worker.skill)
        await worker.has_begun.wait()
        worker.may_end.set()
        await cancel(api, task_id, timeout_s=LONG_S)
        task = await until_status(api, task_id, "cancelled")
        assert task["result"] is None
        assert worker.answers(task_id) == ["cancelled"]
        assert task["last_error"] is None


async def test_a_cleanup_that_takes_too_long_is_fenced_off_and_the_next_task_waits_for_it(
    api: httpx.AsyncClient, submit: Submit, at_work: Work
):
    async with at_work() as worker:
        task_id, behind = await submit(worker.skill), await submit(worker.skill)
        await worker.has_begun.wait()
        await cancel(api, task_id, timeout_s=0.2)
        await worker.is_cleaning.wait()
        await until_status(api, task_id, "cancelled")
        assert worker.at_work == [task_id]
        worker.may_finish.set()
        worker.may_end.set()
        await until_status(api, behind, "completed")
        refusals = worker.answers(task_id)
        assert refusals[0] == "task_cancel_failed: stale_generation"
        late = (await look_up(api, task_id))["history"][-1]
        assert (late["event"], late["details"]["tokens_used"]) == ("task_late", 7)


async def test_the_next_task_waits_even_if_the_cleanup_reports_progress_too_late(
    api: httpx.AsyncClient, submit: Submit, at_work: Work
):
    async with at_work() as worker:
        task_id, behind = await submit(worker.skill), await submit(worker.skill)
        await worker.has_begun.wait()
        await cancel(api, task_id, timeout_s=0.2)
        await until_status(api, task_id, "cancelled")
        refused = asyncio.Event()
        worker.on["error"] = refused.set
        current = worker.agent.slots[0]._task
        assert current is not None
        await current.progress(90, "cleaning up")
        await refused.wait()
        assert worker.answers(task_id) == ["task_progress_failed: stale_generation"]
        assert (await look_up(api, behind))["status"] == "queued"
        worker.may_finish.set()
        worker.may_end.set()
        await until_status(api, behind, "completed")


async def test_a_work_that_finishes_as_the_cancel_arrives_is_completed(
    api: httpx.AsyncClient, submit: Submit, at_work: Work
):
    async with at_work() as worker:
        task_id = await submit(worker.skill)
        await worker.has_begun.wait()
        worker.on["task_cancel"] = worker.may_finish.set
        assert (await cancel(api, task_id, timeout_s=LONG_S))[0] == 202
        task = await until_status(api, task_id, "completed")
        assert task["result"] == {"whole": True}
        assert worker.answers(task_id) == ["complete"]
        await until_status(api, await submit(worker.skill), "completed")


async def test_a_work_that_finishes_as_the_hub_ends_its_task_is_refused(
    api: httpx.AsyncClient, submit: Submit, at_work: Work
):
    async with at_work() as worker:
        task_id, behind = await submit(worker.skill), await submit(worker.skill)
        await worker.has_begun.wait()
        worker.on["task_cancel"] = worker.may_finish.set
        assert (await cancel(api, task_id, timeout_s=0))[0] == 200
        await until_status(api, behind, "completed")
        assert worker.answers(task_id)[0] == "task_complete_failed: stale_generation"
        assert (await look_up(api, task_id))["result"] is None


async def test_a_cancel_reaches_it_after_it_has_reconnected(
    api: httpx.AsyncClient, submit: Submit, at_work: Work, monkeypatch: pytest.MonkeyPatch
):
    may_return = asyncio.Event()

    async def pause(*_: object) -> None:
        await may_return.wait()

    async with at_work() as worker:
        worker.may_end.set()
        task_id = await submit(worker.skill)
        await worker.has_begun.wait()
        monkeypatch.setattr(worker.agent.slots[0], "_wait_before_attempt", pause)
        worker.agent.cut()
        await until_state(api, worker.agent, "offline")
        assert (await cancel(api, task_id, timeout_s=LONG_S))[0] == 202
        assert not worker.is_cleaning.is_set()
        may_return.set()
        task = await until_status(api, task_id, "cancelled")
        assert task["tokens_used"] == 7
        assert worker.answers(task_id) == ["cancelled"]


async def test_a_cancel_of_a_task_that_has_not_reached_it_is_answered(
    api: httpx.AsyncClient, submit: Submit, join: Join, at_work: Work
):
    """Its assignment was lost with a socket. Without an answer the agent would get no more work."""
    member = await join()
    task_id, behind = await submit(member.skill), await submit(member.skill)
    await member.assigned()
    member.connection.cut()
    assert (await cancel(api, task_id, timeout_s=LONG_S))[0] == 202
    async with at_work(again=member) as worker:
        worker.may_finish.set()
        await until_status(api, task_id, "cancelled")
        await until_status(api, behind, "completed")


async def test_when_it_stops_meanwhile_the_task_is_cancelled(
    api: httpx.AsyncClient, submit: Submit, at_work: Work
):
    async with at_work() as worker:
        task_id = await submit(worker.skill)
        await worker.has_begun.wait()
        await cancel(api, task_id, timeout_s=LONG_S)
        await worker.is_cleaning.wait()
        stopping = asyncio.create_task(worker.agent.stop())
        worker.may_end.set()
        await until_status(api, task_id, "cancelled")
        await stopping
        assert worker.seen[-1]["type"] == "signed_off"


async def test_its_own_stop_hands_the_task_back_once_the_work_has_ended(
    api: httpx.AsyncClient, submit: Submit, at_work: Work, join: Join
):
    async with at_work() as worker:
        task_id = await submit(worker.skill)
        await worker.has_begun.wait()
        other = await join(capabilities=[worker.skill])
        stopping = asyncio.create_task(worker.agent.stop())
        await worker.is_cleaning.wait()
        assert (await look_up(api, task_id))["assigned_to"] == worker.agent.agent_id
        worker.may_end.set()
        await stopping
        assert (await other.assigned())["task_id"] == task_id
        task = await look_up(api, task_id)
        assert (task["rejection_count"], task["reclaim_count"], task["retry_count"]) == (0, 0, 0)


@pytest.mark.parametrize("is_cut", [False, True])
async def test_when_it_drains_it_finishes_its_task_and_begins_no_other(
    api: httpx.AsyncClient, submit: Submit, at_work: Work, is_cut: bool
):
    async with at_work() as worker:
        task_id, behind = await submit(worker.skill), await submit(worker.skill)
        await worker.has_begun.wait()
        draining = asyncio.create_task(worker.agent.drain())
        if is_cut:
            worker.agent.cut()
        worker.may_finish.set()
        await draining
        task = await until_status(api, task_id, "completed")
        assert task["result"] == {"whole": True}
        await until_status(api, behind, "queued")
        assert worker.answers(behind) == []
        assert worker.seen[-1]["type"] == "signed_off"


async def test_it_signs_off_although_its_task_is_no_longer_its_own(
    api: httpx.AsyncClient, submit: Submit, at_work: Work
):
    async with at_work() as worker:
        task_id = await submit(worker.skill)
        await worker.has_begun.wait()
        await cancel(api, task_id, timeout_s=0)
        worker.may_end.set()
        await worker.agent.stop()
        assert worker.seen[-1]["type"] == "signed_off"


@pytest.mark.parametrize(
    ("error", "status"), [(NoRetry("no"), "dead_letter"), (RetryAfter("later", 60), "scheduled")]
)
async def test_a_failure_says_whether_and_when_to_retry(
    api: httpx.AsyncClient, submit: Submit, at_work: Work, error: Exception, status: str
):
    async def fails(task: Task) -> dict[str, Any]:
        raise error

    async with at_work() as worker:
        worker.agent.slots[0].work = fails
        task_id = await submit(worker.skill)
        task = await until_status(api, task_id, status)
        assert (task["retry_count"], task["last_error"]) == (1, str(error))
