"""Who may do what: every call and every message against every role.

The rows come from the hub's own tables, so a new call or message without a rule here fails.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from agentcom.calls import declared_at
from agentcom.openapi import METHODS, addresses
from dashboard.consumers import ACTS
from fleet import outcomes, protocol
from fleet.presence import hash_of
from lab.harness.hub import Hub
from tests.flow.conftest import eventually

SETTINGS = {"AGENTCOM_DASHBOARD_ACCESS": "staff"}
LOG_IN = """
import json
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import Group, User
sessions = {}
for name in ("user", "staff", "viewer", "operator", "admin"):
    user = User.objects.create_user(name, is_staff=name != "user")
    user.groups.set(Group.objects.filter(name=f"AgentCom {name}"))
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    sessions[name] = session.session_key
print(json.dumps(sessions))
"""

# The roles. A token of the kind submitter may be for all tasks; "staff" has no permissions.
NOBODY = "nobody"
AGENT, SUBMITTER, SUBMITTER_OF_ALL = "agent", "submitter", "submitter of all"
VIEWER, OPERATOR = "viewer", "operator"
USER, STAFF, LOOKS, ACTS_TOO, ADMIN = "user", "staff", "person: viewer", "person: operator", "admin"
TOKENS = {AGENT, SUBMITTER, SUBMITTER_OF_ALL, VIEWER, OPERATOR}
PEOPLE = {USER, STAFF, LOOKS, ACTS_TOO, ADMIN}
ALL = {NOBODY, *TOKENS, *PEOPLE}
OWNERS = {AGENT, SUBMITTER}
SEE_ALL = {SUBMITTER_OF_ALL, VIEWER, OPERATOR}
LOOKERS = {VIEWER, OPERATOR, LOOKS, ACTS_TOO, ADMIN}

# Who may, for each call. `OWNERS` get 404 for a task or an agent that is not theirs.
CALLS: dict[tuple[str, str], set[str]] = {
    ("get", "/health"): ALL,
    ("get", "/health/live"): ALL,
    ("get", "/health/ready"): ALL,
    ("get", "/metrics"): ALL,  # from the hub's own machine
    ("get", "/api/schema"): ALL,
    ("get", "/api/schema/sockets"): ALL,
    ("post", "/api/enrol"): ALL,
    ("get", "/api/whoami"): TOKENS,
    ("post", "/api/tasks"): {*OWNERS, SUBMITTER_OF_ALL, OPERATOR},
    ("get", "/api/tasks"): {*OWNERS, *SEE_ALL},
    ("get", "/api/tasks/dead-letter"): {*OWNERS, *SEE_ALL},
    ("get", "/api/tasks/stats"): SEE_ALL,
    ("get", "/api/tasks/{task_id}"): {*OWNERS, *SEE_ALL},
    ("patch", "/api/tasks/{task_id}"): {*OWNERS, SUBMITTER_OF_ALL, OPERATOR},
    ("post", "/api/tasks/{task_id}/cancel"): {*OWNERS, SUBMITTER_OF_ALL, OPERATOR},
    ("post", "/api/tasks/{task_id}/retry"): {*OWNERS, SUBMITTER_OF_ALL, OPERATOR},
    ("get", "/api/holds"): SEE_ALL,
    ("post", "/api/holds"): {OPERATOR},
    ("delete", "/api/holds/{hold_id}"): {OPERATOR},
    ("get", "/api/agents"): {*TOKENS, LOOKS, ACTS_TOO, ADMIN},
    ("get", "/api/agents/states"): {*OWNERS, *SEE_ALL},
    ("get", "/api/agents/{agent_id}/state"): {*OWNERS, *SEE_ALL},
    ("get", "/api/dashboard/state"): LOOKERS,
    ("get", "/api/dashboard/history"): LOOKERS,
    ("get", "/api/dashboard/queue"): LOOKERS,
    ("get", "/api/dashboard/dead-letters"): LOOKERS,
    ("get", "/api/dashboard/tasks/{task_id}"): LOOKERS,
}
BODIES: dict[tuple[str, str], Any] = {
    ("post", "/api/tasks"): {"description": "One more", "not_before": "2100-01-01"},
    ("patch", "/api/tasks/{task_id}"): {"priority": "low"},
    ("post", "/api/holds"): {"scope": "lane", "subject": "high", "reason": "a test"},
}
# Pages are for people, with a session.
PAGES: dict[str, set[str]] = {
    "/dashboard": {LOOKS, ACTS_TOO, ADMIN},
    "/dashboard/agents/nobody": {LOOKS, ACTS_TOO, ADMIN},
    "/dashboard/submit": {ACTS_TOO, ADMIN},
    "/admin/": {STAFF, LOOKS, ACTS_TOO, ADMIN},
    "/api/docs": ALL,
}
# Who may connect as what, and what the dashboard's acts need.
IDENTIFY = {AGENT, OPERATOR}
WAIT = {*OWNERS, *SEE_ALL}
ACT_TOO = {OPERATOR, ACTS_TOO, ADMIN}
TASK, HOLD_ID = {"task_id": "task-0000000000000000"}, "hold-0000000000000000"
HOLD = {"scope": "lane", "subject": "low", "reason": "a test"}
ACTS_OF: dict[str, tuple[dict[str, str], set[str]]] = {
    "retry_task": (TASK, ACT_TOO),
    "cancel_task": (TASK, ACT_TOO),
    "set_priority": ({**TASK, "priority": "low"}, ACT_TOO),
    "forget_agent": ({"agent_id": "nobody"}, ACT_TOO),
    "place_hold": (HOLD, ACT_TOO),
    "lift_hold": ({"hold_id": HOLD_ID}, ACT_TOO),
}


@dataclass(frozen=True)
class World:
    hub: Hub
    headers: Mapping[str, Mapping[str, str]]  # by role
    own: Mapping[str, str]  # the id of a task that the role submitted
    foreign: str  # the id of a task that none of them did
    tokens: Mapping[str, str]
    http: httpx.Client


@pytest.fixture(scope="module")
def world(hub: Hub) -> Iterator[World]:
    sessions = json.loads(hub.manage("shell", "-v", "0", "-c", LOG_IN))
    tokens = {kind: hub.token(f"a {kind}", kind) for kind in (AGENT, SUBMITTER, VIEWER, OPERATOR)}
    create = ("token", "create", "of all", "--kind", "submitter", "--all-tasks")
    tokens[SUBMITTER_OF_ALL] = hub.manage(*create).strip()
    headers = {role: {"Authorization": f"Bearer {token}"} for role, token in tokens.items()}
    for role, name in (
        *((USER, "user"), (STAFF, "staff")),
        *((LOOKS, "viewer"), (ACTS_TOO, "operator"), (ADMIN, "admin")),
    ):
        headers[role] = {"Cookie": f"agentcom_session={sessions[name]}"}
    headers[NOBODY] = {}
    http = httpx.Client(base_url=hub.url, timeout=20)
    own = {role: submit(hub, headers[role]) for role in (AGENT, SUBMITTER)}
    foreign = submit(hub, headers[OPERATOR])
    with http:
        yield World(hub, headers, own, foreign, tokens, http)


def submit(hub: Hub, headers: Mapping[str, str], **fields: Any) -> str:
    task = {"description": "Something", "not_before": "2100-01-01", **fields}
    answer = httpx.post(f"{hub.url}/api/tasks", json=task, headers=dict(headers))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["task_id"])


def rows() -> list[tuple[str, str]]:
    return [
        (method, address)
        for address, view in addresses().items()
        for method in METHODS
        if hasattr(view, method) and declared_at(getattr(view, method))
    ]


def ask(world: World, role: str, call: tuple[str, str], task_id: str) -> httpx.Response:
    method, address = call
    path = address.format(task_id=task_id, agent_id="somebody", hold_id=HOLD_ID)
    body = BODIES.get(call, {}) if method in ("post", "patch") else None
    world.http.cookies.clear()  # of another role
    return world.http.request(method, path, headers=dict(world.headers[role]), json=body)


def test_every_call_has_a_rule():
    assert set(rows()) == CALLS.keys()


@pytest.mark.parametrize("role", sorted(ALL))
@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]} {call[1]}")
def test_calls(world: World, role: str, call: tuple[str, str]):
    answer = ask(world, role, call, world.foreign)
    if role not in CALLS[call]:
        assert answer.status_code in (401, 403), answer.text
    elif role in OWNERS and ("{task_id}" in call[1] or "{agent_id}" in call[1]):
        assert answer.status_code == 404
    else:
        assert answer.status_code not in (401, 403), answer.text


@pytest.mark.parametrize("role", sorted(OWNERS))
def test_what_is_ones_own(world: World, role: str):
    own = world.own[role]
    for call, expected in (
        (("get", "/api/tasks/{task_id}"), 200),
        (("patch", "/api/tasks/{task_id}"), 200),
        (("post", "/api/tasks/{task_id}/cancel"), 200),
        (("post", "/api/tasks/{task_id}/retry"), 200),
    ):
        answer = ask(world, role, call, own)
        assert answer.status_code == expected, (call, answer.text)
    listed = ask(world, role, ("get", "/api/tasks"), "").json()["tasks"]
    assert {task["submitted_by"] for task in listed} == {f"a {role}"}
    assert own in [task["id"] for task in listed]
    filtered = "/api/tasks?status=scheduled&priority=low"
    of_status = world.http.get(filtered, headers=dict(world.headers[role])).json()
    assert [task["id"] for task in of_status["tasks"]] == [own]


@pytest.mark.parametrize("role", sorted(ALL))
@pytest.mark.parametrize("page", PAGES)
def test_pages(world: World, role: str, page: str):
    world.http.cookies.clear()
    answer = world.http.get(page, headers=dict(world.headers[role]))
    if role in PAGES[page]:
        assert answer.status_code in (200, 404)
    else:
        assert answer.status_code == 403 or "/admin/login/" in answer.headers["Location"]


# --- Sockets


@pytest.mark.parametrize("role", sorted(TOKENS))
async def test_who_may_be_an_agent(world: World, role: str):
    said = await first_answer(world.hub.ws_url, type="identify", token=world.tokens[role])
    assert said["type"] == ("identified" if role in IDENTIFY else "error"), said
    if role not in IDENTIFY:
        assert said["error"] == "invalid_token"
        assert "its kind is" in said["detail"]


@pytest.mark.parametrize("role", sorted(TOKENS))
async def test_who_may_wait_for_which_task(world: World, role: str):
    async with connect(f"ws://127.0.0.1:{world.hub.port}/ws/tasks") as socket:
        await say(socket, type="identify", token=world.tokens[role])
        assert (await hear(socket))["type"] == ("identified" if role in WAIT else "error")
        await say(socket, type="watch", task_ids=[world.foreign])
        assert (await hear(socket))["type"] == "watching"
        if role in OWNERS:
            assert await hear(socket) == {"type": "task_unknown", "task_id": world.foreign}
        await say(socket, type="ping")
        assert (await hear(socket))["type"] == "pong"


def test_nothing_may_be_said_before_the_token():
    """So a new message of agents and submitters needs no rule of its own."""
    assert {"identify"} < protocol.MESSAGES.keys()
    assert {"identify"} < outcomes.MESSAGES.keys()


@pytest.mark.parametrize("url", ["/ws", "/ws/tasks"])
@pytest.mark.parametrize("type", sorted({*protocol.MESSAGES, *outcomes.MESSAGES} - {"identify"}))
async def test_without_a_token_every_message_is_refused(world: World, url: str, type: str):
    address = f"ws://127.0.0.1:{world.hub.port}{url}"
    known = protocol.MESSAGES if url == "/ws" else outcomes.MESSAGES
    if type in known:
        said = await first_answer(address, type=type)
        assert said["type"] == "error"
        assert said["error"] in ("not_identified", "invalid_message")


def test_every_act_has_a_rule():
    assert ACTS.keys() == ACTS_OF.keys()


@pytest.mark.parametrize("role", sorted(ALL - LOOKERS))
async def test_who_may_not_open_the_dashboards_socket(world: World, role: str):
    with pytest.raises(InvalidStatus) as refused:
        await connect(world.hub.dashboard_url, additional_headers=world.headers[role])
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("role", sorted(LOOKERS))
async def test_acts(world: World, role: str):
    headers = world.headers[role]
    async with connect(world.hub.dashboard_url, additional_headers=headers) as socket:
        for name, act in ACTS.items():
            fields, may = ACTS_OF[name]
            await say(socket, type=name, **fields)
            while (answer := await hear(socket))["type"] != act.answer:
                pass
            if role in may:
                assert answer["status"] not in ("forbidden", "invalid"), (name, answer)
            else:
                assert answer["status"] == "forbidden", (name, answer)


async def first_answer(url: str, **message: Any) -> dict[str, Any]:
    async with connect(url) as socket:
        await say(socket, **message)
        return await hear(socket)


async def say(socket: ClientConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))


async def hear(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(20):
        frame: dict[str, Any] = json.loads(await socket.recv())
        return frame


# --- Scopes, expiry, rotation, enrolment


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_scopes_limit_what_is_submitted(hub: Hub):
    scopes = ("--kind", "submitter", "--capability", "gpu", "--lane", "low")
    headers = bearer(hub.manage("token", "create", "scoped", *scopes).strip())
    good = {"needed_capabilities": ["gpu"], "priority": "low"}
    task_id = submit(hub, headers, **good)
    for wrong, hint in (
        ({**good, "needed_capabilities": []}, "only tasks that need"),
        ({**good, "needed_capabilities": ["gpu", "cpu"]}, "cpu"),
        ({**good, "priority": "high"}, "lane 1"),
    ):
        for body in (
            {"description": "x", **wrong},
            [{"description": "x", **good}, {"description": "x", **wrong}],
        ):
            answer = httpx.post(f"{hub.url}/api/tasks", json=body, headers=headers)
            assert answer.status_code == 403
            assert hint in answer.json()["hint"]
    move = httpx.patch(f"{hub.url}/api/tasks/{task_id}", json={"priority": 0}, headers=headers)
    assert move.status_code == 403
    listed = httpx.get(f"{hub.url}/api/tasks", headers=headers).json()
    assert [task["id"] for task in listed["tasks"]] == [task_id]


async def test_an_expired_token_is_refused(hub: Hub):
    token = hub.manage("token", "create", "brief", "--expires", "4s").strip()
    said = await first_answer(hub.ws_url, type="identify", token=token)
    assert said["type"] == "identified"
    await until_refused(hub, token)
    said = await first_answer(hub.ws_url, type="identify", token=token)
    assert said["error"] == "invalid_token"


async def test_after_a_rotation_both_tokens_work_and_a_key_counts_once(hub: Hub):
    old = hub.manage("token", "create", "rotating", "--kind", "submitter").strip()
    key = {"Idempotency-Key": "once"}
    first = submit(hub, bearer(old) | key)
    new = hub.manage("token", "rotate", "rotating", "--overlap", "1h").strip()
    assert submit(hub, bearer(new) | key) == submit(hub, bearer(old) | key) == first
    again = hub.manage("token", "rotate", hash_of(new), "--overlap", "0s").strip()
    assert submit(hub, bearer(again) | key) == first
    await until_refused(hub, new)


async def until_refused(hub: Hub, token: str) -> None:
    async with httpx.AsyncClient(base_url=hub.url, headers=bearer(token)) as http:

        async def is_refused() -> bool:
            return (await http.get("/api/whoami")).status_code == 401

        await eventually(is_refused)


def test_an_enrolment_code_works_once_and_its_answer_can_be_asked_for_again(hub: Hub):
    code = hub.manage("token", "enrol", "enrolled", "--kind", "submitter").strip()
    token = "act_8Qm3vZr1oYx5Kc7TgWbN2hJfLp9SdAe4UiM6kRtXqB1"
    url = f"{hub.url}/api/enrol"
    for wrong, status in (
        ({"code": "enrol_unknown", "token": token}, 404),
        ({"code": code, "token": "short"}, 400),
        ({"code": code, "token": "a" * 50}, 400),
        ({"code": code}, 400),
    ):
        assert httpx.post(url, json=wrong).status_code == status
    assert httpx.get(f"{hub.url}/api/whoami", headers=bearer(token)).status_code == 401
    for _ in range(2):
        answer = httpx.post(url, json={"code": code, "token": token})
        assert (answer.status_code, answer.json()) == (
            201,
            {"name": "enrolled", "kind": "submitter"},
        )
    thief = httpx.post(url, json={"code": code, "token": token[::-1]})
    assert (thief.status_code, thief.json()) == (409, {"error": "code_used"})
    who = httpx.get(f"{hub.url}/api/whoami", headers=bearer(token)).json()
    assert (who["name"], who["kind"]) == ("enrolled", "submitter")


def test_an_enrolment_code_expires(hub: Hub):
    code = hub.manage("token", "enrol", "late", "--valid", "0s").strip()
    token = "act_8Qm3vZr1oYx5Kc7TgWbN2hJfLp9SdAe4UiM6kRtXqB2"
    answer = httpx.post(f"{hub.url}/api/enrol", json={"code": code, "token": token})
    assert (answer.status_code, answer.json()) == (404, {"error": "code_invalid"})
