"""What becomes of a task whose agent is gone, silent or slow."""

from __future__ import annotations

import itertools
import time

import httpx
import pytest

from agentcom_client import HubError
from agentcom_client.connection import Message
from lab.kit.member import Member
from tests.flow.conftest import Join, Submit, View

SETTINGS = {
    "AGENTCOM_ACCEPT_TIMEOUT_S": "1",
    "AGENTCOM_RECLAIM_GRACE_S": "0.6",
    "AGENTCOM_RECLAIM_AFTER_S": "2",
    "AGENTCOM_WORKER_TICK_S": "0.1",
}


async def refused(member: Member, task: Message) -> str:
    with pytest.raises(HubError) as refusal:
        await member.say("task_complete", task, result={})
    return refusal.value.code


async def test_the_task_of_a_lost_agent_goes_to_another(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    lost = await join()
    task_id = await submit(lost.skill, max_retries=1)
    first = await lost.accepted()
    other = await join(capabilities=[lost.skill])
    lost.connection.cut()

    second = await other.assigned()
    assert second["task_id"] == task_id
    assert second["generation"] == first["generation"] + 2
    back = await join(again=lost)
    answer = await back.connection.request("task_recovering", task_id=task_id)
    assert answer == {"type": "task_reassign", "task_id": task_id}
    assert await refused(back, first) == "task_complete_failed: stale_generation"
    assert (await other.say("task_complete", second, result={}))["status"] == "complete"

    task = (await api.get(f"/api/tasks/{task_id}")).json()
    assert task["retry_count"] == 0  # no attempt was spent
    assert task["assigned_to"] == other.agent_id
    events = [entry["event"] for entry in task["history"]]
    assert events.count("task_reclaimed") == 1
    assert "task_failed" not in events


async def test_an_agent_that_is_back_in_time_goes_on(join: Join, submit: Submit, view: View):
    viewer = await view()
    await viewer.snapshot()
    quick, lost = await join(), await join()
    kept, taken = await submit(quick.skill), await submit(lost.skill)
    assign = await quick.accepted()
    await lost.accepted()
    quick.connection.cut()
    back = await join(again=quick)
    answer = await back.connection.request("task_recovering", task_id=kept)
    assert answer["type"] == "task_continue"

    lost.connection.cut()
    await viewer.until_event(taken, "task_reclaimed")  # so the grace of the first is over, too
    assert (await back.say("task_complete", assign, result={}))["status"] == "complete"
    assert "task_reclaimed" not in viewer.events_of(kept)


async def test_a_reclaimed_task_keeps_its_place(join: Join, submit: Submit, view: View):
    viewer = await view()
    await viewer.snapshot()
    lost = await join()
    first = await submit(lost.skill)
    await lost.accepted()
    later = await submit(lost.skill)
    lost.connection.cut()
    await viewer.until_event(first, "task_reclaimed")
    other = await join(capabilities=[lost.skill])
    order = []
    for _ in range(2):
        assign = await other.assigned()
        order.append(assign["task_id"])
        await other.say("task_complete", assign, result={})
    assert order == [first, later]


async def test_what_is_not_accepted_in_time_is_taken_back(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    dreamer = await join()
    task_id = await submit(dreamer.skill, max_retries=1)
    first = await dreamer.assigned()
    second = await dreamer.assigned()  # nobody else can do it
    assert second["task_id"] == task_id
    assert second["generation"] == first["generation"] + 2
    with pytest.raises(HubError, match="stale_generation"):
        await dreamer.say("task_accepted", first)
    assert (await dreamer.say("task_complete", second, result={}))["status"] == "complete"
    assert (await api.get(f"/api/tasks/{task_id}")).json()["retry_count"] == 0


async def test_who_returns_and_does_not_ask_loses_the_task(join: Join, submit: Submit):
    agent = await join()
    task_id = await submit(agent.skill)
    first = await agent.accepted()
    agent.connection.cut()
    back = await join(again=agent)
    returned_at = time.monotonic()
    second = await back.assigned()
    assert time.monotonic() - returned_at > 0.9
    assert second["task_id"] == task_id
    assert second["generation"] == first["generation"] + 2
    assert (await back.say("task_complete", second, result={}))["status"] == "complete"


async def test_silence_costs_the_task_and_progress_keeps_it(join: Join, submit: Submit, view: View):
    viewer = await view()
    await viewer.snapshot()
    silent, busy, waiting = await join(), await join(), await join()
    silents, busys = await submit(silent.skill), await submit(busy.skill)
    await submit(waiting.skill)
    await silent.accepted()
    kept, blocked = await busy.accepted(), await waiting.accepted()
    await waiting.say("task_blocked", blocked, reason="Which of the two?")
    progress = {"task_id": busys, "generation": kept["generation"]}
    steps = itertools.count(1)
    while "task_reclaimed" not in viewer.events_of(silents):
        await busy.connection.send("task_progress", **progress, message=f"step {next(steps)}")
        await viewer.frame("events")
    assert (await busy.say("task_complete", kept, result={}))["status"] == "complete"
    assert (await waiting.say("task_complete", blocked, result={}))["status"] == "complete"


async def test_a_passed_deadline_costs_the_task(join: Join, submit: Submit):
    agent = await join()
    deadline = int(time.time() * 1000) + 1500
    await submit(agent.skill, complete_by=deadline, on_overdue="run")
    first = await agent.accepted()
    other = await join(capabilities=[agent.skill])
    second = await other.assigned()
    assert second["task_id"] == first["task_id"]
    assert await refused(agent, first) == "task_complete_failed: stale_generation"
    assert (await other.say("task_complete", second, result={}))["status"] == "complete"
