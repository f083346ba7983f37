"""Cancelling over real sockets: what waits ends at once, what runs is asked first."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from agentcom_client import HubError
from lab.kit.member import Member
from tests.flow.conftest import Join, Submit, View, eventually

SETTINGS = {
    "AGENTCOM_CANCEL_TIMEOUT_S": "1",
    "AGENTCOM_RECLAIM_GRACE_S": "0.5",
    "AGENTCOM_WORKER_TICK_S": "0.1",
}
LISTENS = {"accepts": ["cancel"]}
NOWHERE = "task-0123456789abcdef"


async def cancel(api: httpx.AsyncClient, task_id: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    answer = await api.post(f"/api/tasks/{task_id}/cancel", json=fields)
    return answer.status_code, answer.json()


async def look_up(api: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = (await api.get(f"/api/tasks/{task_id}")).json()
    return task


async def state_of(api: httpx.AsyncClient, agent: Member) -> str:
    state = (await api.get(f"/api/agents/{agent.agent_id}/state")).json()
    return str(state["fsm_state"])


async def until_status(api: httpx.AsyncClient, task_id: str, status: str) -> dict[str, Any]:
    async def has_it() -> bool:
        return bool((await look_up(api, task_id))["status"] == status)

    await eventually(has_it)
    return await look_up(api, task_id)


async def refused(agent: Member, type: str, task: dict[str, Any], **fields: Any) -> str:
    with pytest.raises(HubError) as refusal:
        await agent.say(type, task, **fields)
    return refusal.value.code


async def test_a_queued_task_is_cancelled_at_once_and_can_be_retried(
    api: httpx.AsyncClient, submit: Submit, join: Join, view: View
):
    viewer = await view()
    agent = await join()
    busy = await submit(agent.skill)
    held = await agent.accepted()
    task_id = await submit(agent.skill)
    answer = (200, {"status": "cancelled", "task_id": task_id})
    assert await cancel(api, task_id, reason="wrong customer") == answer
    assert await cancel(api, task_id) == answer, "a repeated request changes nothing"
    task = await look_up(api, task_id)
    assert (task["status"], task["cancel_reason"]) == ("cancelled", "wrong customer")
    assert [entry["event"] for entry in task["history"]] == ["task_submitted", "task_cancelled"]
    assert task["history"][1]["actor"].startswith("token:")
    await viewer.until_event(task_id, "task_cancelled")

    await agent.say("task_complete", held, result={})
    assert (await look_up(api, busy))["status"] == "completed"
    assert (await agent.connection.request("ping"))["type"] == "pong"
    assert not [push for push in agent.seen if push.get("task_id") == task_id]
    assert (await api.post(f"/api/tasks/{task_id}/retry")).status_code == 200
    assert (await agent.assigned())["task_id"] == task_id


async def test_a_scheduled_task_is_cancelled_at_once(api: httpx.AsyncClient, submit: Submit):
    task_id = await submit("nobody", not_before="2099-01-01T00:00:00Z")
    assert (await cancel(api, task_id))[0] == 200
    assert (await look_up(api, task_id))["status"] == "cancelled"


async def test_a_dead_letter_is_cancelled_at_once_and_is_one_no_more(
    api: httpx.AsyncClient, submit: Submit, join: Join
):
    agent = await join()
    task_id = await submit(agent.skill, max_retries=1)
    await agent.say("task_failed", await agent.assigned(), error="no")
    assert (await cancel(api, task_id))[0] == 200
    dead = (await api.get("/api/tasks/dead-letter")).json()["tasks"]
    assert task_id not in [task["id"] for task in dead]
    assert (await look_up(api, task_id))["retry_count"] == 1


async def test_a_completed_task_is_too_late_and_an_unknown_one_is_not_found(
    api: httpx.AsyncClient, submit: Submit, join: Join
):
    agent = await join()
    task_id = await submit(agent.skill)
    await agent.say("task_complete", await agent.assigned(), result={"a": 1})
    assert await cancel(api, task_id) == (409, {"error": "too_late", "task_id": task_id})
    assert (await look_up(api, task_id))["result"] == {"a": 1}
    assert (await cancel(api, NOWHERE))[0] == 404


@pytest.mark.parametrize("fields", [{"timeout_s": -1}, {"reason": 7}, {"raeson": "x"}])
async def test_bad_input_changes_nothing(api: httpx.AsyncClient, submit: Submit, fields: Any):
    task_id = await submit("nobody")
    status, answer = await cancel(api, task_id, **fields)
    assert (status, answer["field"]) == (400, next(iter(fields)))
    assert (await look_up(api, task_id))["status"] == "queued"


async def test_an_agent_that_listens_is_asked_confirms_and_is_free(
    api: httpx.AsyncClient, submit: Submit, join: Join, view: View
):
    viewer = await view()
    agent = await join(**LISTENS)
    task_id, behind = await submit(agent.skill), await submit(agent.skill)
    held = await agent.accepted()
    status, answer = await cancel(api, task_id, reason="too dear", timeout_s=60)
    assert (status, answer["status"]) == (202, "cancelling")
    asked = await agent.pushed("task_cancel")
    assert asked == {
        "type": "task_cancel",
        "task_id": task_id,
        "generation": held["generation"],
        "reason": "too dear",
        "deadline": answer["deadline"],
    }
    await viewer.until_event(task_id, "task_cancel_requested")
    ack = await agent.say("task_cancelled", held, result={"half": True}, tokens_used=7)
    assert (ack["type"], ack["status"]) == ("task_ack", "cancelled")
    again = await agent.say("task_cancelled", held)
    assert again["status"] == "cancelled", "a lost ack can be asked for again"
    task = await look_up(api, task_id)
    assert (task["status"], task["result"], task["tokens_used"]) == ("cancelled", {"half": True}, 7)
    assert task["retry_count"] == 0
    assert (await agent.assigned())["task_id"] == behind


async def test_an_agent_that_reconnects_is_asked_again(
    api: httpx.AsyncClient, submit: Submit, join: Join
):
    agent = await join(**LISTENS)
    task_id = await submit(agent.skill)
    held = await agent.accepted()
    await cancel(api, task_id, timeout_s=60)
    await agent.pushed("task_cancel")
    agent.connection.cut()
    back = await join(again=agent, **LISTENS)
    assert (await back.pushed("task_cancel"))["generation"] == held["generation"]
    assert (await back.say("task_cancelled", held))["status"] == "cancelled"


async def test_an_agent_that_does_not_listen_is_sent_nothing_it_does_not_know(
    api: httpx.AsyncClient, submit: Submit, join: Join
):
    agent = await join()
    task_id = await submit(agent.skill)
    held = await agent.accepted()
    assert (await cancel(api, task_id, timeout_s=60))[0] == 202
    assert (await agent.connection.request("ping"))["type"] == "pong"
    assert all(frame["type"] != "task_cancel" for frame in agent.seen)
    assert (await agent.say("task_complete", held, result={}))["status"] == "complete"
    assert (await look_up(api, task_id))["status"] == "completed", "what comes first wins"


async def test_without_an_answer_it_is_fenced_off_and_the_agent_gets_nothing_until_it_speaks(
    api: httpx.AsyncClient, submit: Submit, join: Join
):
    agent = await join(**LISTENS)
    task_id, behind = await submit(agent.skill), await submit(agent.skill)
    held = await agent.accepted()
    began = time.monotonic()
    assert (await cancel(api, task_id))[0] == 202
    task = await until_status(api, task_id, "cancelled")
    assert 0.9 < time.monotonic() - began < 3
    assert task["generation"] == held["generation"] + 1
    assert await state_of(api, agent) == "stopping"
    assert (await look_up(api, behind))["waiting"]["reason"] == "all_busy"

    late = await refused(agent, "task_complete", held, result={"late": "text"}, tokens_used=99)
    assert late == "task_complete_failed: stale_generation"
    assert (await agent.assigned())["task_id"] == behind
    evidence = (await look_up(api, task_id))["history"][-1]
    assert evidence["event"] == "task_late"
    assert evidence["details"]["tokens_used"] == 99
    assert '"late":"text"' in evidence["details"]["message"]


async def test_an_agent_that_is_cut_off_at_once_is_told(
    api: httpx.AsyncClient, submit: Submit, join: Join
):
    agent = await join(**LISTENS)
    task_id = await submit(agent.skill)
    held = await agent.accepted()
    assert (await cancel(api, task_id, reason="now", timeout_s=0))[0] == 200
    told = await agent.pushed("task_cancel")
    assert (told["task_id"], told["generation"]) == (task_id, held["generation"])
    assert await refused(agent, "task_cancelled", held) == "task_cancel_failed: stale_generation"
    assert await state_of(api, agent) == "idle"


async def test_a_stopping_agent_is_free_when_it_reconnects(
    api: httpx.AsyncClient, submit: Submit, join: Join
):
    agent = await join()
    task_id, behind = await submit(agent.skill), await submit(agent.skill)
    await agent.accepted()
    assert await cancel(api, task_id, timeout_s=0) == (
        200,
        {"status": "cancelled", "task_id": task_id},
    )
    assert await state_of(api, agent) == "stopping"
    agent.connection.cut()
    back = await join(again=agent)
    assert (await back.assigned())["task_id"] == behind


async def test_a_stopping_agent_is_free_when_it_asks_for_the_task_and_is_told_to_drop_it(
    api: httpx.AsyncClient, submit: Submit, join: Join
):
    """As when its task was ended between its return and its question."""
    agent = await join()
    task_id, behind = await submit(agent.skill), await submit(agent.skill)
    await agent.accepted()
    await cancel(api, task_id, timeout_s=0)
    answer = await agent.connection.request("task_recovering", task_id=behind)
    assert answer == {"type": "task_reassign", "task_id": behind}
    assert await state_of(api, agent) == "stopping"
    answer = await agent.connection.request("task_recovering", task_id=task_id)
    assert answer == {"type": "task_reassign", "task_id": task_id}
    assert (await agent.assigned())["task_id"] == behind


async def test_a_second_request_can_only_shorten_the_time(
    api: httpx.AsyncClient, submit: Submit, join: Join
):
    agent = await join(**LISTENS)
    task_id = await submit(agent.skill)
    await agent.accepted()
    _, first = await cancel(api, task_id, timeout_s=30)
    _, later = await cancel(api, task_id, timeout_s=60)
    assert later["deadline"] == first["deadline"]
    assert (await cancel(api, task_id, timeout_s=0))[0] == 200
    assert (await look_up(api, task_id))["status"] == "cancelled"


@pytest.mark.parametrize(
    ("type", "fields"),
    [("task_failed", {"error": "killed"}), ("task_rejected", {"reason": "no"})],
)
async def test_an_agent_that_gives_up_meanwhile_ends_it_too(
    api: httpx.AsyncClient, submit: Submit, join: Join, type: str, fields: dict[str, Any]
):
    agent = await join(**LISTENS)
    task_id = await submit(agent.skill)
    held = await agent.accepted()
    await cancel(api, task_id, timeout_s=60)
    assert (await agent.say(type, held, **fields))["status"] == "cancelled"
    task = await look_up(api, task_id)
    assert (task["status"], task["retry_count"], task["rejection_count"]) == ("cancelled", 0, 0)
    assert await state_of(api, agent) == "idle"


async def test_a_task_that_its_agent_leaves_behind_meanwhile_ends_too(
    api: httpx.AsyncClient, submit: Submit, join: Join
):
    agent = await join(**LISTENS)
    task_id = await submit(agent.skill)
    await agent.accepted()
    await cancel(api, task_id, timeout_s=60)
    agent.connection.cut()
    task = await until_status(api, task_id, "cancelled")
    assert task["reclaim_count"] == 0


async def test_who_was_not_asked_cannot_cancel(api: httpx.AsyncClient, submit: Submit, join: Join):
    agent = await join()
    await submit(agent.skill)
    held = await agent.accepted()
    assert await refused(agent, "task_cancelled", held) == "task_cancel_failed: invalid_state"
    assert (await agent.say("task_complete", held, result={}))["status"] == "complete"


async def test_a_viewer_cancels(submit: Submit, join: Join, view: View):
    viewer = await view()

    async def ask(task_id: str, **fields: Any) -> dict[str, Any]:
        viewer.send("cancel_task", task_id=task_id, **fields)
        answer = await viewer.frame("cancel_result")
        assert answer["task_id"] == task_id
        return answer

    agent = await join(**LISTENS)
    running, waiting = await submit(agent.skill), await submit(agent.skill)
    held = await agent.accepted()
    assert (await ask(waiting))["status"] == "cancelled"
    told = await ask(running, timeout_s=60)
    assert (told["status"], type(told["deadline"])) == ("cancelling", int)
    await agent.say("task_complete", held, result={})
    assert (await ask(running))["status"] == "too_late"
    assert (await ask(NOWHERE))["status"] == "not_found"
    told = await ask(running, timeout=1)
    assert told["status"] == "invalid"
    assert "timeout_s" in told["detail"]
