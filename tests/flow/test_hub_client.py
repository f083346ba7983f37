"""`Hub` and `AsyncHub` against a real hub: submitting, waiting, looking, steering."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentcom_client import (
    Agent,
    AsyncHub,
    Conflict,
    Invalid,
    NotCompleted,
    NotFound,
    Task,
    ThreadTask,
    Unauthorized,
    Unavailable,
)
from agentcom_client import (
    Hub as SyncHub,
)
from lab.harness.hub import Hub
from lab.harness.proxy import Proxy
from lab.kit.fleet import running
from tests.flow.conftest import Join, eventually

MANY = 1_000


async def upper(task: Task) -> dict[str, Any]:
    if task.metadata.get("fails"):
        raise RuntimeError("as wanted")
    return {"text": task.description.upper()}


@asynccontextmanager
async def at_work(hub: Hub, identities: Iterator[tuple[str, str]], skill: str, **about: Any):
    _, token = next(identities)
    agent = Agent(hub.url, token, about.pop("work", upper), capabilities=[skill], **about)
    async with running(agent):
        yield agent


async def test_it_submits_waits_and_gives_the_result(
    hub: Hub, client: AsyncHub, identities: Iterator[tuple[str, str]], skill: str
):
    async with at_work(hub, identities, skill):
        task_id = await client.submit("hello", needed_capabilities=[skill], priority="high")
        task = await client.wait(task_id, timeout_s=20)
        assert (task.id, task.status, task.outcome()) == (task_id, "completed", {"text": "HELLO"})
        assert (task.priority, task.is_ended) == (1, True)
        again = await client.wait(task_id)  # a task that has ended already
        assert again == task
        assert await client.run("x", needed_capabilities=[skill]) == {"text": "X"}
        with pytest.raises(NotCompleted, match="as wanted") as failed:
            await client.run(
                "x", needed_capabilities=[skill], metadata={"fails": True}, max_retries=1
            )
        assert failed.value.task.status == "dead_letter"


async def test_a_thousand_tasks_are_waited_for_over_one_socket(
    hub: Hub, client: AsyncHub, identities: Iterator[tuple[str, str]], skill: str
):
    async with at_work(hub, identities, skill, concurrency=8):
        began = time.monotonic()
        task_ids = await client.submit_many(
            {"description": f"number {number}", "needed_capabilities": [skill]}
            for number in range(MANY)
        )
        tasks = await client.wait_all(task_ids)
        took_s = time.monotonic() - began
    assert [task.outcome()["text"] for task in tasks] == [f"NUMBER {n}" for n in range(MANY)]
    assert client.calls == 1
    print(f"{MANY} tasks in {took_s:.1f} s, {client.calls} HTTP call")


async def test_the_slots_of_an_agent_are_agents(
    hub: Hub, client: AsyncHub, identities: Iterator[tuple[str, str]], skill: str
):
    all_begun, at_once = asyncio.Event(), 0

    async def together(task: Task) -> dict[str, Any]:
        nonlocal at_once
        at_once += 1
        if at_once == 3:
            all_begun.set()
        await all_begun.wait()
        return {"agent": task.agent.agent_id}

    async with at_work(hub, identities, skill, work=together, concurrency=3, name="Trio") as agent:
        task_ids = await client.submit_many(
            [{"description": "x", "needed_capabilities": [skill]}] * 3
        )
        tasks = await client.wait_all(task_ids, timeout_s=20)
        name = agent.agent_id
        wanted = {name, f"{name}#2", f"{name}#3"}
        assert {task.outcome()["agent"] for task in tasks} == wanted
        assert {task.assigned_to for task in tasks} == wanted
        shown = {a["agent_id"]: a["name"] for a in await client.agents() if a["agent_id"] in wanted}
        assert shown == {name: "Trio", f"{name}#2": "Trio #2", f"{name}#3": "Trio #3"}


async def test_a_plain_function_works_in_a_thread_and_is_told_of_a_cancel(
    hub: Hub, client: AsyncHub, identities: Iterator[tuple[str, str]], skill: str
):
    def blocks(task: ThreadTask) -> dict[str, Any]:
        task.progress(10, "begun")
        if task.description == "at once":
            return {"thread": True}
        while not task.wait(0.05):
            pass
        assert task.is_cancelled
        assert task.cancel is not None
        return {"stopped": task.cancel.reason}

    async with at_work(hub, identities, skill, work=blocks):
        wanted: dict[str, Any] = {"needed_capabilities": [skill]}
        assert await client.run("at once", timeout_s=20, **wanted) == {"thread": True}
        task_id = await client.submit("for long", **wanted)

        async def has_begun() -> bool:
            kinds = [entry["event"] for entry in (await client.show(task_id)).history]
            return "task_progress" in kinds

        await eventually(has_begun)
        assert await client.cancel(task_id, "enough") == "cancelling"
        task = await client.wait(task_id, timeout_s=20)
        assert (task.status, task.result) == ("cancelled", {"stopped": "enough"})
        await client.retry(task_id)
        assert (await client.show(task_id)).status in ("queued", "assigned")
        await client.cancel(task_id, timeout_s=0)


async def test_it_keeps_waiting_when_the_socket_is_lost(
    hub: Hub, identities: Iterator[tuple[str, str]], skill: str
):
    _, token = next(identities)
    with Proxy("127.0.0.1", hub.port) as wire:
        async with AsyncHub(f"http://127.0.0.1:{wire.port}", token) as client:
            first = await client.submit("x", needed_capabilities=[skill])
            waiting = asyncio.ensure_future(client.wait(first))
            await asyncio.sleep(0.3)
            wire.cut()
            async with at_work(hub, identities, skill):
                task = await asyncio.wait_for(waiting, 20)
            assert task.outcome() == {"text": "X"}


async def test_errors_say_what_was_wrong(hub: Hub, client: AsyncHub, agent: Any, skill: str):
    with pytest.raises(Invalid) as invalid:
        await client.submit("x", priority="soon")
    assert (invalid.value.field, invalid.value.status) == ("priority", 400)
    assert "priority: must be" in str(invalid.value)
    good = {"description": "x", "needed_capabilities": [skill]}
    with pytest.raises(Invalid) as invalid:
        await client.submit_many([good] * MANY + [{**good, "max_retries": -1}])
    assert (invalid.value.field, invalid.value.index) == ("max_retries", MANY)
    assert len(invalid.value.submitted) == MANY
    for call in (client.show, client.wait, client.retry, client.cancel):
        with pytest.raises(NotFound) as missing:
            await call("task-0000000000000000")
        assert missing.value.code == "task_not_found"
    with pytest.raises(NotFound):
        await client.show("../stats")
    task_id = await client.submit("x", needed_capabilities=[agent.skill])
    await agent.say("task_complete", await agent.accepted(), result={})
    for steer in (client.cancel(task_id), client.set_priority(task_id, "low")):
        with pytest.raises(Conflict) as late:
            await steer
        assert late.value.code == "too_late"
    async with AsyncHub(hub.url, "wrong") as stranger:
        for attempt in (stranger.submit("x"), stranger.wait(task_id)):
            with pytest.raises(Unauthorized):
                await attempt
    async with AsyncHub(f"http://127.0.0.1:{_closed_port()}", "x", patience_s=0.5) as nobody:
        with pytest.raises(Unavailable, match="does not answer"):
            await nobody.submit("x")
    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        await client.wait(await client.submit("x", needed_capabilities=[skill]), timeout_s=0.1)


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def test_a_repeated_submission_queues_once(client: AsyncHub, skill: str):
    given: dict[str, Any] = {"idempotency_key": f"key of {skill}", "needed_capabilities": [skill]}
    assert await client.submit("x", **given) == await client.submit("x", **given)


async def test_it_lists_counts_and_holds(client: AsyncHub, join: Join, skill: str):
    task_ids = await client.submit_many(
        [{"description": "x", "needed_capabilities": [skill], "priority": 3}] * 120
    )
    listed = [task.id async for task in client.tasks(status="queued", priority="low", limit=110)]
    assert listed == task_ids[::-1][:110]
    everything = [task.id async for task in client.tasks(priority=3)]
    assert set(task_ids) <= set(everything)
    await client.set_priority(task_ids[0], "urgent")
    assert (await client.show(task_ids[0])).priority == 0
    assert (await client.counts())["by_priority"]["0"] >= 1
    hold = await client.hold("capability", "a test", subject=skill)
    assert hold in await client.holds()
    waiting = (await client.show(task_ids[0])).waiting
    assert waiting is not None
    await client.lift(hold["id"])
    assert hold not in await client.holds()
    member = await join()
    assert member.agent_id in {agent["agent_id"] for agent in await client.agents()}
    who = await client.whoami()
    assert who["version"] == "0.2.0"
    assert abs(who["timestamp"] / 1000 - time.time()) < 5


def test_without_an_event_loop_it_is_the_same(
    hub: Hub, identities: Iterator[tuple[str, str]], skill: str
):
    _, token = next(identities)
    with SyncHub(hub.url, token) as client:
        task_ids = client.submit_many([{"description": "x", "needed_capabilities": [skill]}] * 3)
        for task_id in task_ids:
            assert client.cancel(task_id) == "cancelled"
        assert [task.status for task in client.wait_all(task_ids)] == ["cancelled"] * 3
        assert {task.id for task in client.as_ended(task_ids)} == set(task_ids)
        assert [task.id for task in client.tasks(limit=2)] == task_ids[:0:-1]
        with pytest.raises(NotFound):
            client.show("task-0000000000000000")
        assert client.whoami()["name"] == client.show(task_ids[0]).submitted_by
    client.close()  # a second time does nothing
    with pytest.raises(RuntimeError, match="closed"):
        client.show(task_ids[0])
