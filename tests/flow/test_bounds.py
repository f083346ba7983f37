"""What a bad task, or a bad agent, can burn, over real sockets."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from agentcom_client import HubError
from tests.flow.conftest import Join, Submit, View, eventually

SETTINGS = {
    "AGENTCOM_RETRY_BACKOFF_S": "0.4",
    "AGENTCOM_REJECT_PAUSE_S": "2",
    "AGENTCOM_ACCEPT_TIMEOUT_S": "0.5",
    "AGENTCOM_RECLAIM_GRACE_S": "0.3",
    "AGENTCOM_WORKER_TICK_S": "0.1",
}


async def look_up(api: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = (await api.get(f"/api/tasks/{task_id}")).json()
    return task


async def until_status(api: httpx.AsyncClient, task_id: str, status: str) -> dict[str, Any]:
    async def has_it() -> bool:
        return bool((await look_up(api, task_id))["status"] == status)

    await eventually(has_it)
    return await look_up(api, task_id)


async def state_of(api: httpx.AsyncClient, agent_id: str) -> str:
    return str((await api.get(f"/api/agents/{agent_id}/state")).json()["fsm_state"])


def events(task: dict[str, Any]) -> list[str]:
    return [entry["event"] for entry in task["history"]]


# --- Agents that it takes with it


async def test_a_task_that_kills_its_agents_is_a_dead_letter_that_names_them(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    first = await join()
    task_id = await submit(first.skill, max_reclaims=3)
    agents = [first]
    for _ in range(3):
        await agents[-1].accepted()
        agents[-1].connection.cut()
        agents.append(await join(capabilities=[first.skill]))
    task = await until_status(api, task_id, "dead_letter")
    assert (task["reclaim_count"], task["max_reclaims"], task["retry_count"]) == (3, 3, 0)
    for agent in agents[:3]:
        assert agent.agent_id in task["last_error"]
    assert events(task).count("task_assigned") == 3
    assert (await api.post(f"/api/tasks/{task_id}/retry")).status_code == 200
    assert (await look_up(api, task_id))["reclaim_count"] == 0
    assert (await agents[3].assigned())["task_id"] == task_id


async def test_who_signs_off_does_not_count(api: httpx.AsyncClient, join: Join, submit: Submit):
    first = await join()
    task_id = await submit(first.skill, max_reclaims=1)
    await first.accepted()
    await first.leave()
    task = await look_up(api, task_id)
    assert (task["status"], task["reclaim_count"]) == ("queued", 0)


async def test_who_lets_two_tasks_lie_gets_no_more_until_it_speaks(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    ids = [await submit(agent.skill) for _ in range(3)]
    for _ in range(2):
        assert (await agent.assigned())["task_id"] == ids[0]

    async def is_unresponsive() -> bool:
        return await state_of(api, agent.agent_id) == "unresponsive"

    await eventually(is_unresponsive)
    assert (await agent.connection.request("ping"))["type"] == "pong"
    assert await state_of(api, agent.agent_id) == "unresponsive", "a hung agent may still ping"
    await asyncio.sleep(1.2)
    assert len([frame for frame in agent.seen if frame["type"] == "task_assign"]) == 2
    await agent.connection.request("status", status="here again")
    assert (await agent.accepted())["task_id"] == ids[0]


# --- Rejections


async def test_who_rejects_a_task_gets_the_one_behind_it_and_only_later_the_same(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    task_id, behind = await submit(agent.skill), await submit(agent.skill)
    await agent.say("task_rejected", await agent.assigned(), reason="no licence")
    rejected_at = time.monotonic()
    next_one = await agent.assigned()
    assert next_one["task_id"] == behind
    await agent.say("task_complete", next_one, result={})
    waiting = (await look_up(api, task_id))["waiting"]
    assert waiting["reason"] == "rejected"
    assert waiting["until"] > round(time.time() * 1000)
    assert (await agent.assigned())["task_id"] == task_id
    assert time.monotonic() - rejected_at >= 1.99


async def test_another_agent_gets_what_one_rejected(join: Join, submit: Submit):
    agent = await join()
    task_id = await submit(agent.skill)
    await agent.say("task_rejected", await agent.assigned(), reason="no")
    other = await join(capabilities=[agent.skill])
    assert (await other.assigned())["task_id"] == task_id


async def test_a_task_that_is_rejected_too_often_is_a_dead_letter(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    other = await join(capabilities=[agent.skill])
    task_id = await submit(agent.skill, max_rejections=2)
    acks = []
    for each in (agent, other):
        acks.append(await each.say("task_rejected", await each.assigned(), reason="no licence"))
    assert [ack["status"] for ack in acks] == ["requeued", "dead_letter"]
    task = await look_up(api, task_id)
    assert (task["status"], task["rejection_count"]) == ("dead_letter", 2)
    assert "no licence" in task["last_error"]


# --- Attempts


async def test_a_retry_waits_and_longer_each_time(
    api: httpx.AsyncClient, join: Join, submit: Submit, view: View
):
    viewer = await view()
    agent = await join()
    task_id = await submit(agent.skill, max_retries=3)
    waits: list[float] = []
    for _ in range(2):
        await agent.say("task_failed", await agent.accepted(), error="429")
        failed_at = time.monotonic()
        task = await look_up(api, task_id)
        assert (task["status"], task["waiting"]["reason"]) == ("scheduled", "backoff")
        assert task["waiting"]["until"] == task["not_before"]
        await viewer.until(lambda v: v.events_of(task_id).count("task_due") > len(waits))
        waits.append(time.monotonic() - failed_at)
        assert round(time.time() * 1000) - task["not_before"] < 500
    assert 0.2 <= waits[0] < 0.7
    assert 0.4 <= waits[1] < 1.2
    await agent.say("task_complete", await agent.assigned(), result={})


async def test_a_task_may_have_a_backoff_of_its_own(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    task_id = await submit(agent.skill, retry_backoff_s=0)
    await agent.say("task_failed", await agent.assigned(), error="no")
    again = await agent.assigned()
    assert again["task_id"] == task_id
    assert "task_due" not in events(await look_up(api, task_id))
    await agent.say("task_complete", again, result={})


async def test_an_agent_says_that_a_retry_is_of_no_use_or_when_to(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    hopeless, later = await submit(agent.skill), await submit(agent.skill)
    held = await agent.assigned()
    ack = await agent.say("task_failed", held, error="no such file", retryable=False)
    assert ack["status"] == "dead_letter"
    assert (await look_up(api, hopeless))["retry_count"] == 1
    ack = await agent.say("task_failed", await agent.assigned(), error="429", retry_after_s=50)
    assert ack["status"] == "retried"
    task = await look_up(api, later)
    assert 45_000 < task["not_before"] - round(time.time() * 1000) <= 50_000
    await api.post(f"/api/tasks/{later}/cancel")


async def test_a_flaw_in_it_does_not_keep_the_task_assigned(join: Join, submit: Submit):
    agent = await join()
    await submit(agent.skill, max_retries=1)
    ack = await agent.say("task_failed", await agent.assigned(), error="x", retry_after_s="soon")
    assert ack["status"] == "dead_letter"
    assert "retry_after_s" in ack["detail"]


# --- When and who


async def test_nothing_starts_before_its_time_and_then_in_its_place(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    start = round(time.time() * 1000) + 700
    task_id = await submit(agent.skill, not_before=start)
    later = await submit(agent.skill, not_before=start)
    task = await look_up(api, task_id)
    assert (task["status"], task["waiting"]["reason"]) == ("scheduled", "not_before")
    assert task["waiting"]["until"] == start
    first = await agent.assigned()
    assert first["task_id"] == task_id
    assert start <= first["assigned_at"] <= start + 400
    await agent.say("task_complete", first, result={})
    assert (await agent.assigned())["task_id"] == later


async def test_only_the_named_agent_gets_it(api: httpx.AsyncClient, join: Join, submit: Submit):
    named = await join()
    await named.leave()
    other = await join(capabilities=[named.skill])
    task_id = await submit(named.skill, assign_to=named.agent_id)
    behind = await submit(named.skill)
    assert (await other.assigned())["task_id"] == behind
    waiting = (await look_up(api, task_id))["waiting"]
    assert waiting["reason"] == "only_agent"
    assert named.agent_id in waiting["message"]
    back = await join(again=named)
    assert (await back.assigned())["task_id"] == task_id


async def test_a_task_may_have_limits_of_its_own(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    silent = await submit(agent.skill, idle_timeout_s=1, max_reclaims=1)
    held = await agent.accepted()
    task = await until_status(api, silent, "dead_letter")
    assert "no sign of life or progress for 1 s" in task["last_error"]

    endless = await submit(agent.skill, run_timeout_s=1, max_reclaims=2)
    held = await agent.accepted()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        await agent.connection.send("task_progress", task_id=endless)
        await asyncio.sleep(0.1)
    task = await look_up(api, endless)
    assert "task_reclaimed" in events(task)
    given = [frame for frame in agent.seen if frame["type"] == "task_assign"]
    assert len(given) == 2, "it still reports progress, so it gets nothing else"
    with pytest.raises(HubError, match="stale_generation"):
        await agent.say("task_failed", held, error="stopped")


async def test_an_agent_that_listens_is_told_that_it_ran_too_long(join: Join, submit: Submit):
    agent = await join(accepts=["cancel"])
    task_id = await submit(agent.skill, run_timeout_s=1, max_reclaims=1)
    held = await agent.accepted()
    told = await agent.pushed("task_cancel")
    assert (told["task_id"], told["generation"]) == (task_id, held["generation"])
    assert told["reason"] == "it ran for over 1 s"
    with pytest.raises(HubError, match="stale_generation"):
        await agent.say("task_cancelled", held)
    behind = await submit(agent.skill)
    assert (await agent.assigned())["task_id"] == behind


async def test_what_waits_past_its_deadline_expires(api: httpx.AsyncClient, submit: Submit):
    soon = round(time.time() * 1000) + 500
    late = await submit("nobody", complete_by=soon)
    runs = await submit("nobody", complete_by=soon, on_overdue="run")
    task = await until_status(api, late, "dead_letter")
    assert task["last_error"].startswith("expired")
    assert (await look_up(api, runs))["status"] == "queued"
    assert (await api.post(f"/api/tasks/{late}/retry")).status_code == 200
    await asyncio.sleep(0.5)
    assert (await look_up(api, late))["status"] == "queued", "who retries it knows that it is late"


# --- Priority


async def test_a_task_takes_its_place_in_another_lane(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    first = await submit(agent.skill)
    held = await agent.assigned()
    early, urgent, urgent_too = [
        await submit(agent.skill, priority=lane) for lane in ("low", "urgent", "urgent")
    ]
    answer = await api.patch(f"/api/tasks/{early}", json={"priority": "urgent"})
    assert answer.json() == {"status": "queued", "task_id": early, "priority": 0}
    running = await api.patch(f"/api/tasks/{first}", json={"priority": 1})
    assert (running.status_code, running.json()["error"]) == (409, "too_late")
    for wrong in ({}, {"priority": "soon"}, {"prioritty": 1}):
        assert (await api.patch(f"/api/tasks/{early}", json=wrong)).status_code == 400
    order = []
    for _ in range(3):
        await agent.say("task_complete", held, result={})
        held = await agent.assigned()
        order.append(held["task_id"])
    assert order == [early, urgent, urgent_too]
    await agent.say("task_complete", held, result={})
