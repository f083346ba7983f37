"""Holds over real sockets: nothing is handed out that is held, and what runs is finished."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from lab.kit.member import Member
from tests.flow.conftest import Join, Submit, View, eventually

SETTINGS = {
    "AGENTCOM_WORKER_TICK_S": "0.1",
    "AGENTCOM_HOLD_WARN_S": "1",
    "AGENTCOM_HEALTH_CLEAR_S": "0",
}


async def hold(api: httpx.AsyncClient, scope: str, subject: Any = None, **fields: Any) -> str:
    about = {"scope": scope, "subject": subject, "reason": "deploy", **fields}
    answer = await api.post("/api/holds", json=about)
    assert answer.status_code == 201, answer.text
    hold_id: str = answer.json()["id"]
    return hold_id


async def lift(api: httpx.AsyncClient, hold_id: str) -> None:
    answer = await api.delete(f"/api/holds/{hold_id}")
    assert answer.json() == {"status": "lifted", "hold_id": hold_id}


async def why(api: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    waiting: dict[str, Any] = (await api.get(f"/api/tasks/{task_id}")).json()["waiting"]
    return waiting


async def gets_nothing(agent: Member) -> None:
    """For longer than a process takes to notice what it has not been told of."""
    count = len([frame for frame in agent.seen if frame["type"] == "task_assign"])
    await asyncio.sleep(1.3)
    assert len([frame for frame in agent.seen if frame["type"] == "task_assign"]) == count


@pytest.mark.parametrize("scope", ["hub", "lane", "capability", "agent"])
async def test_what_is_held_is_not_handed_out_until_the_hold_is_lifted(
    api: httpx.AsyncClient, join: Join, submit: Submit, scope: str
):
    agent = await join()
    subject = {"hub": None, "lane": "low", "capability": agent.skill, "agent": agent.agent_id}
    running = await submit(agent.skill, priority="low")
    held = await agent.accepted()
    hold_id = await hold(api, scope, subject[scope])
    task_id = await submit(agent.skill, priority="low")
    assert (await agent.say("task_complete", held, result={}))["status"] == "complete"
    assert (await api.get(f"/api/tasks/{running}")).json()["status"] == "completed"

    waiting = await why(api, task_id)
    assert waiting["reason"] == "held"
    assert waiting["hold"]["id"] == hold_id
    assert waiting["hold"]["placed_by"].startswith("token:")
    assert "deploy" in waiting["message"]
    await gets_nothing(agent)
    await lift(api, hold_id)
    assert (await agent.assigned())["task_id"] == task_id


async def test_others_are_not_held(api: httpx.AsyncClient, join: Join, submit: Submit):
    agent, other = await join(), await join()
    await hold(api, "capability", agent.skill)
    await hold(api, "agent", agent.agent_id)
    await hold(api, "lane", "urgent")
    task_id = await submit(other.skill)
    assert (await other.assigned())["task_id"] == task_id
    for each in (await api.get("/api/holds")).json()["holds"]:
        await lift(api, each["id"])


async def test_it_ends_by_itself(api: httpx.AsyncClient, join: Join, submit: Submit, view: View):
    viewer = await view()
    assert (await viewer.snapshot())["holds"] == []
    agent = await join()
    until = round(time.time() * 1000) + 800
    hold_id = await hold(api, "capability", agent.skill, until=until)
    task_id = await submit(agent.skill)
    assert (await why(api, task_id))["until"] == until
    assert (await agent.assigned())["assigned_at"] >= until
    await viewer.until(lambda v: any(e["type"] == "hold_lifted" for e in v.events))
    placed = next(event for event in viewer.events if event["type"] == "hold_placed")
    assert placed["hold"]["id"] == hold_id
    assert (await api.delete(f"/api/holds/{hold_id}")).status_code == 404


async def test_holds_are_listed_and_one_that_is_old_is_a_condition(
    api: httpx.AsyncClient, view: View
):
    hold_id = await hold(api, "lane", 3, reason="the model is down")
    [listed] = (await api.get("/api/holds")).json()["holds"]
    assert (listed["id"], listed["scope"], listed["subject"]) == (hold_id, "lane", "low")
    assert (listed["reason"], listed["until"]) == ("the model is down", None)

    viewer = await view()

    async def light() -> dict[str, str]:
        health = (await api.get("/api/dashboard/state")).json()["health"]
        return {condition["code"]: condition["message"] for condition in health["details"]}

    async def is_old() -> bool:
        return "lane low" in (await light()).get("hold_old", "")

    await eventually(is_old)
    viewer.send("lift_hold", hold_id=hold_id)
    assert (await viewer.frame("hold_result"))["status"] == "lifted"
    assert (await api.get("/api/holds")).json() == {"holds": []}


async def test_a_viewer_places_a_hold(api: httpx.AsyncClient, view: View):
    viewer = await view()
    viewer.send("place_hold", scope="agent", subject="somebody", reason="drain")
    told = await viewer.frame("hold_result")
    assert told["status"] == "held"
    assert told["hold"]["placed_by"] == "anyone"
    viewer.send("place_hold", scope="agent", reason="drain")
    told = await viewer.frame("hold_result")
    assert (told["status"], told["detail"]) == ("invalid", "subject: is required")
    await lift(api, (await api.get("/api/holds")).json()["holds"][0]["id"])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"scope": "fleet", "reason": "r"}, "scope"),
        ({"scope": "hub"}, "reason"),
        ({"scope": "hub", "reason": " "}, "reason"),
        ({"scope": "hub", "reason": "r", "subject": "x"}, "subject"),
        ({"scope": "lane", "reason": "r"}, "subject"),
        ({"scope": "lane", "subject": "slow", "reason": "r"}, "subject"),
        ({"scope": "hub", "reason": "r", "until": "yesterday"}, "until"),
        ({"scope": "hub", "reason": "r", "until": 1}, "until"),
        ({"scope": "hub", "reason": "r", "untill": 1}, "untill"),
    ],
)
async def test_bad_input_holds_nothing(api: httpx.AsyncClient, fields: Any, field: str):
    answer = await api.post("/api/holds", json=fields)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert (await api.get("/api/holds")).json() == {"holds": []}


async def test_a_hold_that_there_is_not(api: httpx.AsyncClient):
    answer = await api.delete("/api/holds/hold-0123456789abcdef")
    assert (answer.status_code, answer.json()["error"]) == (404, "hold_not_found")
