"""What the page asks for over HTTP beside the snapshot."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import NoneType
from typing import Any

import httpx
import pytest

from lab.harness.hub import Hub
from lab.kit.fleet import Fleet, running
from lab.kit.viewer import Viewer
from tests.flow.conftest import AS_DESCRIBED, Join, Submit
from tests.flow.contract import TASK, assert_shape

WAITING = {"reason", "message", "missing", "ahead", "until", "hold"}


@pytest.fixture
async def viewer(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody without a token."""
    async with httpx.AsyncClient(base_url=hub.url, timeout=20, event_hooks=AS_DESCRIBED) as client:
        yield client


async def get(client: httpx.AsyncClient, path: str, **query: Any) -> Any:
    answer = await client.get(f"/api/dashboard/{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


# One task


async def test_a_task_is_shown_with_its_history_and_why_it_waits(
    viewer: httpx.AsyncClient, api: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    task_id = await submit("nobody-has-this")
    task = await get(viewer, f"tasks/{task_id}")
    assert_shape(task, TASK)
    assert task == (await api.get(f"/api/tasks/{task_id}")).json()
    assert [entry["event"] for entry in task["history"]] == ["task_submitted"]
    assert task["waiting"].keys() == WAITING
    assert task["waiting"]["reason"] == "nobody_capable"
    assert task["waiting"]["missing"] == ["nobody-has-this"]

    held = await submit(agent.skill)
    await agent.assigned()
    assert (await get(viewer, f"tasks/{held}"))["waiting"] is None
    behind = [await submit(agent.skill), await submit(agent.skill)]
    told = [(await get(viewer, f"tasks/{task_id}"))["waiting"] for task_id in behind]
    assert [(w["reason"], w["ahead"]) for w in told] == [("all_busy", 0), ("in_line", 1)]


@pytest.mark.parametrize("task_id", ["task-0000000000000000", "nonsense"])
async def test_a_task_that_is_not_there(viewer: httpx.AsyncClient, task_id: str):
    answer = await viewer.get(f"/api/dashboard/tasks/{task_id}")
    assert answer.status_code == 404
    assert answer.json() == {"error": "task_not_found", "task_id": task_id}


# The state


async def test_of_the_agents_a_window_can_be_asked_for(viewer: httpx.AsyncClient, join: Join):
    agent, other = await join(name="Zoe"), await join(name="Yan")
    window = json.dumps({"sort": "-name", "filter": agent.agent_id[:4], "count": 1})
    state = await get(viewer, "state", agents=window)
    assert (state["agents"], state["offline_agents"]) == ([], [])
    shown = state["agents_window"]
    assert (shown["sort"], shown["from"], shown["count"]) == ("-name", 0, 1)
    assert shown["matching"] <= shown["total"] == sum(state["agents_by_state"].values())
    [row] = shown["rows"]
    assert shown["ids"] == [row["agent_id"]]
    whole = await get(viewer, "state")
    assert "agents_window" not in whole
    assert {agent.agent_id, other.agent_id} <= {row["agent_id"] for row in whole["agents"]}


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ("nonsense", "agents: must be a JSON object"),
        ('{"count": 0}', "agents: count: must be a whole number from 1 to 200"),
        ('{"sort": "age"}', "agents: sort: must be one of"),
        ('{"form": 1}', "agents: form: is not known; did you mean from?"),
    ],
)
async def test_a_window_that_cannot_be_is_refused(
    viewer: httpx.AsyncClient, window: str, said: str
):
    answer = await viewer.get("/api/dashboard/state", params={"agents": window})
    assert answer.status_code == 400
    assert answer.json()["field"] == "agents"
    assert said in answer.json()["error"]


async def test_it_includes_every_change_that_was_acked_before(
    viewer: httpx.AsyncClient, submit: Submit
):
    seq = (await get(viewer, "state"))["seq"]
    for _ in range(30):
        await submit("nobody")
        state = await get(viewer, "state")
        assert state["seq"] > seq
        seq = state["seq"]


# The queue


async def test_the_queue_is_shown_in_the_order_of_dispatch(
    viewer: httpx.AsyncClient, api: httpx.AsyncClient, submit: Submit
):
    lanes = (3, 0, 2, 0, 3, 1, 2)
    for lane in lanes:
        await submit("nobody", "z" * 600, priority=lane)
    rows: list[Any] = []
    page: Any = {"next_cursor": ""}
    while page["next_cursor"] is not None:
        page = await get(viewer, "queue", limit=3, cursor=page["next_cursor"])
        assert page["count"] == len(page["tasks"]) <= 3
        rows += page["tasks"]
    assert len({row["id"] for row in rows}) == len(rows) >= len(lanes)
    assert [row["priority"] for row in rows] == sorted(row["priority"] for row in rows)
    for lane in range(4):
        times = [row["created_at"] for row in rows if row["priority"] == lane]
        assert times == sorted(times)
    last = rows[-1]
    assert last.keys() == {
        *("id", "description", "priority", "needed_capabilities"),
        *("created_at", "generation", "waiting"),
    }
    assert last["waiting"].keys() == WAITING
    assert len(last["description"]) == 501
    assert (last["needed_capabilities"], last["generation"]) == (["nobody"], 0)


# The dead letter


async def test_the_dead_letter_is_shown_by_cause(
    viewer: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    ids = []
    for number in range(2):
        ids.append(await submit(agent.skill, max_retries=1))
        task = await agent.assigned()
        await agent.say("task_failed", task, error=f"{task['task_id']} broke after {number} s")
    groups = (await get(viewer, "dead-letters"))["groups"]
    [group] = [group for group in groups if group["agents"] == [agent.agent_id]]
    assert group["error"] == "task-… broke after … s"
    assert (group["count"], group["agents"], group["agent_count"]) == (2, [agent.agent_id], 1)
    assert group["first_at"] <= group["last_at"]
    first = await get(viewer, "dead-letters", group=group["group"], limit=1)
    cursor = first["next_cursor"]
    second = await get(viewer, "dead-letters", group=group["group"], limit=1, cursor=cursor)
    assert [page["tasks"][0]["id"] for page in (first, second)] == ids[::-1]
    assert second["next_cursor"] is None
    assert first["tasks"][0]["agent_id"] == agent.agent_id


# The history


@pytest.mark.empty_hub
async def test_the_history_survives_a_restart(tmp_path: Path):
    with Hub(tmp_path) as hub:
        token = hub.token("worker")

        async with (
            httpx.AsyncClient(base_url=hub.url, timeout=20) as client,
            await Viewer.open(hub.port) as viewer,
        ):
            await viewer.snapshot()  # else the tasks may be in it, and are not told
            headers = {"Authorization": f"Bearer {token}"}
            await client.post("/api/tasks", json=[{"description": "x"}] * 3, headers=headers)
            async with running(Fleet(hub.ws_url, {"worker": token})):
                await viewer.until(lambda viewer: completions(viewer) == 3)
            history = await get(client, "history")
            assert done(history) == 3
            assert (history["minutes"], history["step_s"], len(history["points"])) == (60, 60, 60)
            for point in history["points"]:
                assert_shape(point, POINT)
            hub.kill()
            hub.start()
            assert done(await get(client, "history")) == 3
            assert done(await get(client, "history", minutes=1440)) == 3
            throughput = (await get(client, "state"))["throughput"]
            assert throughput["completed_last_hour"] == 3
            assert 0 <= throughput["p50_ms"] <= throughput["p95_ms"]


POINT = {"at": int, "completed": int, "failed": int, "depth": (int, NoneType), "p95_ms": int}


def completions(viewer: Viewer) -> int:
    return [event.get("event") for event in viewer.events].count("task_complete")


def done(history: Any) -> int:
    return sum(point["completed"] for point in history["points"])


# What it refuses


BAD = [
    ("history", "minutes", "0"),
    ("history", "minutes", "1441"),
    ("history", "minutes", "1.5"),
    ("history", "minute", "5"),
    ("queue", "limit", "0"),
    ("queue", "limit", "501"),
    ("queue", "limit", "many"),
    ("queue", "cursor", "nonsense"),
    ("queue", "curser", "x"),
    ("dead-letters", "group", "nonsense"),
    ("dead-letters", "limit", "0"),
    ("dead-letters", "cursor", "nonsense"),
]


@pytest.mark.parametrize(("path", "name", "value"), BAD)
async def test_a_bad_parameter_is_named(
    viewer: httpx.AsyncClient, path: str, name: str, value: str
):
    answer = await viewer.get(f"/api/dashboard/{path}", params={name: value})
    assert answer.status_code == 400
    assert answer.json()["field"] == name
