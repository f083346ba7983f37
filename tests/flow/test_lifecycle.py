"""One task, from its submission to what everybody sees of it."""

from __future__ import annotations

import time
from typing import Any

import httpx

from lab.harness.hub import Hub
from tests.flow.conftest import Join, Submit, View

VISIBLE_WITHIN_MS = 250
LIFE = ["task_submitted", "task_assigned", "task_accepted", "task_complete"]


async def test_a_completed_task_shows_everywhere_at_once_and_once(
    hub: Hub, api: httpx.AsyncClient, join: Join, submit: Submit, view: View
):
    first, second = await view(), await view()
    await first.snapshot()
    await second.snapshot()
    agent = await join(name="Ada")

    task_id = await submit(agent.skill, "Translate the manual", priority="urgent")
    assign = await agent.assigned()
    assert assign["task_id"] == task_id
    assert assign["description"] == "Translate the manual"
    assert assign["generation"] == 1
    assert (await agent.say("task_accepted", assign))["status"] == "accepted"
    result = {"pages": 12, "tokens_used": 345}
    answer = await agent.say("task_complete", assign, result=result)
    acked_at = time.monotonic()
    assert answer == {"type": "task_ack", "task_id": task_id, "status": "complete"}

    for viewer in (first, second):
        await viewer.until_event(task_id, "task_complete")
        assert (time.monotonic() - acked_at) * 1000 < VISIBLE_WITHIN_MS
        assert viewer.events_of(task_id) == LIFE
    state = (await api.get("/api/dashboard/state")).json()
    assert (time.monotonic() - acked_at) * 1000 < VISIBLE_WITHIN_MS

    [completion] = [c for c in state["recent_completions"] if c["task_id"] == task_id]
    assert completion["agent_id"] == agent.agent_id
    assert completion["description"] == "Translate the manual"
    assert completion["tokens_used"] == 345
    assert completion["duration_ms"] >= 0
    assert _agent(state, agent.agent_id)["fsm_state"] == "idle"

    task = (await api.get(f"/api/tasks/{task_id}")).json()
    assert task["status"] == "completed"
    assert task["result"] == result
    assert [entry["event"] for entry in task["history"]] == LIFE


async def test_a_completion_counts_once(api: httpx.AsyncClient, join: Join, submit: Submit):
    agent = await join()
    before = await _state(api)
    await submit(agent.skill)
    assign = await agent.assigned()
    for _ in range(3):
        await agent.say("task_complete", assign, result={"tokens_used": 7})

    after = await _state(api)
    assert _change(before, after, "queue", "by_status", "completed") == 1
    assert _change(before, after, "throughput", "completed_last_hour") == 1
    assert _change(before, after, "throughput", "total_tokens_hour") == 7


async def test_the_agents_state_follows_its_task(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    assert await _fsm_state(api, agent.agent_id) == ("idle", None)
    task_id = await submit(agent.skill)
    assign = await agent.assigned()
    assert await _fsm_state(api, agent.agent_id) == ("assigned", task_id)
    await agent.say("task_accepted", assign)
    assert await _fsm_state(api, agent.agent_id) == ("working", task_id)
    await agent.say("task_blocked", assign, reason="Which of the two?")
    assert await _fsm_state(api, agent.agent_id) == ("blocked", task_id)
    await agent.say("task_unblocked", assign)
    assert await _fsm_state(api, agent.agent_id) == ("working", task_id)
    await agent.say("task_complete", assign, result={})
    assert await _fsm_state(api, agent.agent_id) == ("idle", None)
    await agent.connection.request("sign_off")
    assert agent.agent_id not in [a["agent_id"] for a in (await _state(api))["agents"]]


async def test_urgent_tasks_go_first_and_equals_in_their_order(join: Join, submit: Submit):
    agent = await join()
    await submit(agent.skill, "keeps the agent busy")
    busy = await agent.assigned()
    lanes = ("low", "normal", "urgent", "normal", "high")
    ids = [await submit(agent.skill, priority=lane) for lane in lanes]

    order = []
    for _ in lanes:
        await agent.say("task_complete", busy, result={})
        busy = await agent.assigned()
        order.append(busy["task_id"])
    assert order == [ids[2], ids[4], ids[1], ids[3], ids[0]]


async def test_a_failing_task_ends_in_the_dead_letter_and_can_be_retried(
    api: httpx.AsyncClient, join: Join, submit: Submit, view: View
):
    viewer = await view()
    await viewer.snapshot()
    agent = await join()
    before = await _state(api)
    task_id = await submit(agent.skill, max_retries=2)

    assert (await agent.say("task_failed", await agent.assigned(), error="no"))[
        "status"
    ] == "retried"
    last = await agent.say("task_failed", await agent.assigned(), error="never")
    assert last["status"] == "dead_letter"

    after = await _state(api)
    [row] = [row for row in after["dead_letter_tasks"] if row["id"] == task_id]
    assert row["last_error"] == "never"
    assert row["retry_count"] == 2
    assert _change(before, after, "queue", "dead_letter") == 1
    await viewer.until_event(task_id, "task_dead_letter")
    attempt = ["task_assigned", "task_failed"]
    assert viewer.events_of(task_id) == [
        *("task_submitted", *attempt, "task_retried"),
        *(*attempt, "task_dead_letter"),
    ]

    retried = await api.post(f"/api/tasks/{task_id}/retry")
    assert retried.json() == {"status": "requeued", "task_id": task_id, "priority": 2}
    again = await agent.assigned()
    assert again["task_id"] == task_id
    assert (await agent.say("task_complete", again, result={}))["status"] == "complete"
    assert _change(before, await _state(api), "queue", "dead_letter") == 0


async def _state(api: httpx.AsyncClient) -> Any:
    return (await api.get("/api/dashboard/state")).json()


def _change(before: Any, after: Any, *path: str) -> int:
    for key in path:
        before, after = before[key], after[key]
    change: int = after - before
    return change


def _agent(state: dict[str, Any], agent_id: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [a for a in state["agents"] if a["agent_id"] == agent_id]
    [agent] = found
    return agent


async def _fsm_state(api: httpx.AsyncClient, agent_id: str) -> tuple[str, str | None]:
    agent = _agent(await _state(api), agent_id)
    full = (await api.get(f"/api/agents/{agent_id}/state")).json()
    assert (full["fsm_state"], full["current_task_id"]) == (
        agent["fsm_state"],
        agent["current_task_id"],
    )
    return agent["fsm_state"], agent["current_task_id"]
