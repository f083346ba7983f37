"""The HTTP API, call by call. What may be submitted has a file of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from lab.harness.hub import Hub
from tests.described import http, sockets
from tests.flow.conftest import AS_DESCRIBED, Join, Submit
from tests.flow.contract import AGENT_STATE, TASK, assert_shape, is_json

KIB = 1024
MIB = 1024 * KIB
NOWHERE = "task-0000000000000000"
TASK_ID = re.compile(r"task-[0-9a-f]{16}")
UNAUTHORIZED = {"error": "unauthorized", "hint": "provide Authorization: Bearer <token>"}

PATHS = [
    "/health",
    "/health/live",
    "/health/ready",
    "/api/dashboard/state",
    "/api/tasks",
    "/ws",
    "/nowhere",
]
PATHS += ["/dashboard", "/dashboard/icon.svg", "/dashboard/sw.js", "/static/dashboard/main.js"]
PATHS += ["/admin/login/", "/api/schema", "/api/schema/sockets", "/api/docs"]


@pytest.fixture
async def anonymous(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=hub.url, timeout=20, event_hooks=AS_DESCRIBED) as client:
        yield client


# What is open to all


async def test_health_counts_the_connected_agents(anonymous: httpx.AsyncClient, join: Join):
    before = (await anonymous.get("/health")).json()
    assert before["status"] == "ok"
    assert before["service"] == "agentcom"
    await join()
    after = (await anonymous.get("/health")).json()
    assert after["agents_connected"] == before["agents_connected"] + 1


async def test_the_hub_describes_itself(anonymous: httpx.AsyncClient):
    assert (await anonymous.get("/api/schema")).json() == http()
    assert (await anonymous.get("/api/schema/sockets")).json() == sockets()


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
@pytest.mark.parametrize("host", ["10.42.8.201:4000", "agentcom-0.agentcom.default.svc", "_"])
async def test_probes_are_answered_whatever_they_call_the_hub(
    anonymous: httpx.AsyncClient, path: str, host: str
):
    answer = await anonymous.get(path, headers={"Host": host})
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert (await anonymous.get("/api/tasks", headers={"Host": host})).status_code == 400


async def test_below_health_there_is_json_alone(anonymous: httpx.AsyncClient):
    missing = await anonymous.get("/health/nowhere")
    assert (missing.status_code, missing.json()) == (404, {"error": "not_found"})
    assert (await anonymous.post("/health/live")).status_code == 405
    assert (await anonymous.post("/health/ready")).status_code == 405


@pytest.mark.parametrize("path", ["/ws", "/ws/tasks", "/ws/dashboard"])
async def test_a_handshake_without_its_upgrade_is_told_so(anonymous: httpx.AsyncClient, path: str):
    answer = await anonymous.get(path)
    assert answer.status_code == 426
    assert answer.headers["Upgrade"] == "websocket"
    assert is_json(answer)
    assert answer.json()["error"] == "upgrade_required"


async def test_an_address_without_a_socket_says_so_and_is_no_fault_of_the_hub(hub: Hub):
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"{hub.ws_url}/nothing"):
            pass
    assert refused.value.response.status_code == 403
    assert "Traceback" not in hub.log


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", [None, "elsewhere.example"])
async def test_no_answer_is_taken_for_something_else_than_it_says(
    anonymous: httpx.AsyncClient, path: str, host: str | None
):
    answer = await anonymous.get(path, headers={"Host": host} if host else {})
    assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]


async def test_the_state_is_not_sent_again_while_it_is_the_same(anonymous: httpx.AsyncClient):
    first = await anonymous.get("/api/dashboard/state")
    assert first.status_code == 200
    assert is_json(first)
    again = await anonymous.get(
        "/api/dashboard/state", headers={"If-None-Match": first.headers["ETag"]}
    )
    assert again.status_code == 304
    assert again.content == b""
    other = await anonymous.get("/api/dashboard/state", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


async def test_the_state_changes_its_etag_with_a_task(anonymous: httpx.AsyncClient, submit: Submit):
    before = await anonymous.get("/api/dashboard/state")
    await submit("nobody")
    headers = {"If-None-Match": before.headers["ETag"]}
    after = await anonymous.get("/api/dashboard/state", headers=headers)
    assert after.status_code == 200
    assert after.json()["seq"] > before.json()["seq"]
    queued = [state.json()["queue"]["by_status"]["queued"] for state in (before, after)]
    assert queued[1] == queued[0] + 1


async def test_the_front_page_leads_to_the_dashboard(anonymous: httpx.AsyncClient):
    front = await anonymous.get("/")
    assert front.is_redirect
    assert front.headers["Location"].rstrip("/").endswith("/dashboard")
    page = await anonymous.get("/dashboard")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")


async def test_agents(anonymous: httpx.AsyncClient, join: Join):
    agent = await join(name="Grace")
    answer = (await anonymous.get("/api/agents")).json()
    [shown] = [a for a in answer["agents"] if a["agent_id"] == agent.agent_id]
    expected = ("agent_id", "name", "status", "capabilities", "connected_at", "fsm_state")
    assert shown.keys() >= set(expected)
    assert shown["name"] == "Grace"


# Who may do the rest

NEED_TOKEN = [
    ("POST", "/api/tasks"),
    ("GET", "/api/tasks"),
    ("GET", "/api/tasks/dead-letter"),
    ("GET", "/api/tasks/stats"),
    ("GET", f"/api/tasks/{NOWHERE}"),
    ("POST", f"/api/tasks/{NOWHERE}/retry"),
    ("GET", "/api/agents/states"),
    ("GET", "/api/agents/agent-000/state"),
]


@pytest.mark.parametrize(("method", "path"), NEED_TOKEN)
async def test_without_a_token(anonymous: httpx.AsyncClient, method: str, path: str):
    answer = await anonymous.request(method, path, json={"description": "x"})
    assert answer.status_code == 401
    assert answer.json() == UNAUTHORIZED
    assert is_json(answer)


async def test_a_revoked_token_is_no_token(hub: Hub, anonymous: httpx.AsyncClient):
    headers = {"Authorization": f"Bearer {hub.token('short-lived')}"}
    assert (await anonymous.get("/api/tasks/stats", headers=headers)).status_code == 200
    hub.manage("token", "revoke", "short-lived")
    async with asyncio.timeout(5):  # the hub may remember a token for a moment
        while (await anonymous.get("/api/tasks/stats", headers=headers)).status_code != 401:
            pass


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/api/tasks"),
        ("DELETE", "/api/tasks"),
        ("DELETE", f"/api/tasks/{NOWHERE}"),
        ("PUT", f"/api/tasks/{NOWHERE}"),
        ("PATCH", f"/api/tasks/{NOWHERE}/retry"),
        ("GET", f"/api/tasks/{NOWHERE}/retry"),
        ("POST", "/api/tasks/stats"),
        ("POST", "/api/agents"),
        ("POST", "/api/dashboard/state"),
    ],
)
async def test_methods_that_there_are_not(api: httpx.AsyncClient, method: str, path: str):
    answer = await api.request(method, path)
    assert answer.status_code == 405
    assert is_json(answer)
    assert answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/api/tasks/x/y/z", "/api/%00"])
async def test_paths_that_there_are_not(api: httpx.AsyncClient, path: str):
    answer = await api.get(path)
    assert answer.status_code == 404
    assert is_json(answer)


async def test_a_host_that_is_not_ours(api: httpx.AsyncClient):
    answer = await api.get("/api/tasks/stats", headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert is_json(answer)


# Submit and process


async def test_an_array_is_queued_in_its_order(api: httpx.AsyncClient, join: Join):
    agent = await join()
    tasks = [
        {"description": f"No. {n}", "needed_capabilities": [agent.skill], "priority": "high"}
        for n in range(5)
    ]
    answer = await api.post("/api/tasks", json=tasks)
    assert answer.status_code == 201
    receipts = answer.json()
    assert receipts["count"] == 5
    assert all(receipt["priority"] == 1 for receipt in receipts["tasks"])
    for receipt in receipts["tasks"]:
        assign = await agent.assigned()
        assert assign["task_id"] == receipt["task_id"]
        await agent.say("task_complete", assign, result={})


# Read


async def walk(api: httpx.AsyncClient, path: str = "/api/tasks", **query: Any) -> list[Any]:
    """All pages."""
    tasks: list[Any] = []
    cursor = None
    while True:
        page = (
            await api.get(path, params={**query, **({"cursor": cursor} if cursor else {})})
        ).json()
        assert page["count"] == len(page["tasks"])
        tasks += page["tasks"]
        cursor = page["next_cursor"]
        if cursor is None:
            return tasks


async def test_pages_give_each_task_once_while_others_arrive(
    api: httpx.AsyncClient, submit: Submit
):
    there = {await submit("nobody", priority="low") for _ in range(25)}
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        query: dict[str, Any] = {"priority": "low", "limit": 4, **cursor}
        page = (await api.get("/api/tasks", params=query)).json()
        assert len(page["tasks"]) <= 4
        seen += [task["id"] for task in page["tasks"]]
        await submit("nobody", priority="low")
        if page["next_cursor"] is None or there <= set(seen):
            break
        cursor = {"cursor": page["next_cursor"]}
    assert there <= set(seen)
    assert len(seen) == len(set(seen))


async def test_filters(api: httpx.AsyncClient, join: Join, submit: Submit):
    agent = await join()
    done = await submit(agent.skill, priority="urgent")
    await agent.say("task_complete", await agent.assigned(), result={})
    held = await submit(agent.skill, priority="high")
    assign = await agent.assigned()
    waiting = await submit(agent.skill, priority="high")

    ids = {task["id"] for task in await walk(api, assigned_to=agent.agent_id, limit=500)}
    assert ids == {done, held}
    for query, found in (
        ({"status": "assigned", "assigned_to": agent.agent_id}, {held}),
        ({"status": "completed", "assigned_to": agent.agent_id, "priority": 0}, {done}),
        ({"status": "completed", "assigned_to": agent.agent_id, "priority": "urgent"}, {done}),
        ({"status": "completed", "assigned_to": agent.agent_id, "priority": "low"}, set()),
    ):
        assert {task["id"] for task in await walk(api, **query)} == found, query
    queued = await walk(api, status="queued", limit=500)
    assert waiting in {task["id"] for task in queued}
    assert {task["status"] for task in queued} == {"queued"}
    await agent.say("task_complete", assign, result={})


async def test_a_page_has_a_hundred_unless_told_otherwise(api: httpx.AsyncClient):
    tasks = [{"description": "one of many", "needed_capabilities": ["nobody"]}] * 101
    assert (await api.post("/api/tasks", json=tasks)).status_code == 201
    page = (await api.get("/api/tasks")).json()
    assert page["count"] == 100
    assert page["next_cursor"]
    assert "history" not in page["tasks"][0]
    assert_shape(page["tasks"][0], TASK)


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=501", "limit=-1", "limit=x", "limit=1.5", "limit=%00"),
        *("limit=" + "9" * 5000, "status=done", "status=%00", "status=%ff", "priority=4"),
        *("priority=soon", "priority=-1", "priority=%F0%9F%9B%A0", "cursor=x", "cursor=%00"),
        *("cursor=" + "A" * 5000, "cursor=eyJ4IjoxfQ", "cursor=-1", "assigned_to=%00"),
    ],
    ids=lambda query: query[:30],
)
async def test_a_bad_query_is_named(api: httpx.AsyncClient, query: str):
    answer = await api.get(f"/api/tasks?{query}")
    assert is_json(answer)
    assert answer.status_code == 400
    if "%ff" not in query:
        assert query.partition("=")[0] in answer.json()["error"]


async def test_a_task_that_is_not_there(api: httpx.AsyncClient):
    for method, path in (("GET", ""), ("POST", "/retry")):
        answer = await api.request(method, f"/api/tasks/{NOWHERE}{path}")
        assert answer.status_code == 404
        assert answer.json() == {"error": "task_not_found", "task_id": NOWHERE}


@pytest.mark.parametrize(
    "task_id", ["x", "task-", "%00", "%F0%9F%9B%A0", "a" * 3000, "-1", "1%20OR%201=1"]
)
async def test_a_strange_task_id(api: httpx.AsyncClient, task_id: str):
    answer = await api.get(f"/api/tasks/{task_id}")
    assert answer.status_code == 404
    assert answer.json()["error"] == "task_not_found"


async def test_the_dead_letter_and_back(api: httpx.AsyncClient, join: Join, submit: Submit):
    agent = await join()
    task_id = await submit(agent.skill, max_retries=1, priority="high")
    await agent.say("task_failed", await agent.assigned(), error="broken")
    assert (await api.get(f"/api/tasks/{task_id}")).json()["status"] == "dead_letter"
    dead = await walk(api, "/api/tasks/dead-letter")
    [task] = [task for task in dead if task["id"] == task_id]
    assert task["last_error"] == "broken"
    assert {task["status"] for task in dead} == {"dead_letter"}
    stats = (await api.get("/api/tasks/stats")).json()
    assert stats["dead_letter"] == len(dead)

    first = await api.post(f"/api/tasks/{task_id}/retry")
    assert first.status_code == 200
    assert first.json() == {"status": "requeued", "task_id": task_id, "priority": 1}
    retried = (await api.get(f"/api/tasks/{task_id}")).json()
    [entry] = [entry for entry in retried["history"] if entry["event"] == "task_retried"]
    assert entry["actor"] == f"token:{retried['submitted_by']}"
    second = await api.post(f"/api/tasks/{task_id}/retry")
    assert second.status_code == 404
    assert second.json() == {"error": "task_not_found", "task_id": task_id}
    again = await agent.assigned()
    assert again["task_id"] == task_id
    await agent.say("task_complete", again, result={})
    assert (await api.post(f"/api/tasks/{task_id}/retry")).status_code == 404


async def test_retry_many_at_once_requeues_once(api: httpx.AsyncClient, join: Join, submit: Submit):
    agent = await join()
    task_id = await submit(agent.skill, max_retries=1)
    await agent.say("task_failed", await agent.assigned(), error="broken")
    answers = await asyncio.gather(*(api.post(f"/api/tasks/{task_id}/retry") for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, *[404] * 5]
    await agent.say("task_complete", await agent.assigned(), result={})


async def test_stats(api: httpx.AsyncClient, submit: Submit):
    before = (await api.get("/api/tasks/stats")).json()
    assert before["by_status"].keys() >= {"queued", "assigned", "completed"}
    assert before["by_priority"].keys() == {"0", "1", "2", "3"}
    await submit("nobody", priority="urgent")
    after = (await api.get("/api/tasks/stats")).json()
    assert after["by_status"]["queued"] == before["by_status"]["queued"] + 1
    assert after["by_priority"]["0"] == before["by_priority"]["0"] + 1
    state = (await api.get("/api/dashboard/state")).json()
    assert state["queue"].items() >= after.items()


async def test_an_agents_state(api: httpx.AsyncClient, join: Join, submit: Submit):
    agent = await join()
    task_id = await submit(agent.skill)
    assign = await agent.assigned()
    state = (await api.get(f"/api/agents/{agent.agent_id}/state")).json()
    assert_shape(state, AGENT_STATE)
    assert state["fsm_state"] == "assigned"
    assert state["current_task_id"] == task_id
    states = (await api.get("/api/agents/states")).json()["agents"]
    assert [s for s in states if s["agent_id"] == agent.agent_id] == [state]
    await agent.say("task_complete", assign, result={})


@pytest.mark.parametrize("agent_id", ["nobody", "%00", "%F0%9F%9B%A0", "a" * 3000])
async def test_an_agent_that_is_not_there(api: httpx.AsyncClient, agent_id: str):
    answer = await api.get(f"/api/agents/{agent_id}/state")
    assert answer.status_code == 404
    assert answer.json()["error"] == "agent_not_found"


async def test_the_history_tells_the_whole_life(api: httpx.AsyncClient, join: Join, submit: Submit):
    agent = await join()
    task_id = await submit(agent.skill)
    first = await agent.assigned()
    await agent.say("task_accepted", first)
    await agent.say("task_failed", first, error="once")
    await agent.say("task_complete", await agent.assigned(), result={})
    history = (await api.get(f"/api/tasks/{task_id}")).json()["history"]
    assert [entry["event"] for entry in history] == [
        *("task_submitted", "task_assigned", "task_accepted", "task_failed", "task_retried"),
        *("task_assigned", "task_complete"),
    ]
    times = [entry["timestamp"] for entry in history]
    assert times == sorted(times)
    assert {entry["agent_id"] for entry in history[1:4]} == {agent.agent_id}
    assert all(isinstance(entry["details"], dict) for entry in history)
