"""Every act of people, operators and the command line leaves an entry in the audit trail.

What can be done comes from the hub's own tables, so a new act, action or call without a row here
fails; and the rows here are done at a real hub, whose trail is read from its database.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.core.management.base import CommandParser
from django.test import RequestFactory
from websockets.asyncio.client import connect

from agentcom.admin.read_only import ReadOnlyAdmin
from agentcom.calls import declared_at
from agentcom.openapi import METHODS, addresses
from dashboard.consumers import ACTS
from lab.harness.hub import Hub
from lab.harness.store import ROOT

SETTINGS = {"AGENTCOM_DASHBOARD_ACCESS": "staff"}
PASSWORD = "correct horse battery"
PEOPLE = f"""
from django.contrib.auth.models import Group, User
for name in ("viewer", "operator", "admin"):
    user = User.objects.create_user(name, password={PASSWORD!r}, is_staff=True)
    user.groups.set(Group.objects.filter(name=f"AgentCom {{name}}"))
"""
HERE = "127.0.0.1"

# What each act of the dashboard's socket leaves, in an order in which all of them are done.
ACTS_DONE: dict[str, tuple[dict[str, str], str]] = {
    "set_priority": ({"task_id": "TASK", "priority": "low"}, "task.move"),
    "cancel_task": ({"task_id": "TASK", "reason": "wrong customer"}, "task.cancel"),
    "retry_task": ({"task_id": "TASK"}, "task.retry"),
    "place_hold": ({"scope": "lane", "subject": "low", "reason": "a test"}, "hold.place"),
    "lift_hold": ({"hold_id": "HOLD"}, "hold.lift"),
    "forget_agent": ({"agent_id": "AGENT"}, "agent.forget"),
}
# The calls that change something: what they leave with an operator's token; None: traffic.
CALLS: dict[tuple[str, str], str | None] = {
    ("post", "/api/tasks"): None,
    ("patch", "/api/tasks/{task_id}"): "task.move",
    ("post", "/api/tasks/{task_id}/cancel"): "task.cancel",
    ("post", "/api/tasks/{task_id}/retry"): "task.retry",
    ("post", "/api/holds"): "hold.place",
    ("delete", "/api/holds/{hold_id}"): "hold.lift",
    ("post", "/api/enrol"): "enrolment.use",
}
ACTIONS: dict[tuple[str, str], str] = {
    ("tasks.Task", "cancel"): "task.cancel",
    ("tasks.Task", "retry"): "task.retry",
    ("agents.Agent", "forget"): "agent.forget",
    ("agents.Hold", "lift"): "hold.lift",
    ("agents.AgentToken", "revoke"): "token.revoke",
    ("webhooks.Delivery", "replay"): "delivery.replay",
    ("webhooks.Delivery", "discard"): "delivery.discard",
    ("webhooks.Endpoint", "replay_dead"): "delivery.replay",
    ("webhooks.Endpoint", "test"): "webhook.test",
    ("webhooks.Endpoint", "rotate"): "webhook.secret",
    ("webhooks.Endpoint", "switch_off"): "webhook.disable",
    ("webhooks.Endpoint", "switch_on"): "webhook.enable",
    ("webhooks.Endpoint", "remove"): "webhook.remove",
    ("auth.User", "delete_selected"): "user.delete",
    ("auth.Group", "delete_selected"): "group.delete",
}
TOKEN_VERBS: dict[str, str | None] = {
    "create": "token.create",
    "enrol": "enrolment.create",
    "rotate": "token.rotate",
    "revoke": "token.revoke",
    "list": None,
}


@dataclass
class Trail:
    """Gives the entries since it was asked last."""

    hub: Hub
    last: int = 0

    def news(self) -> list[dict[str, Any]]:
        names = ("id", "actor", "address", "what", "subject", "reason", "outcome", "detail")
        query = f"SELECT {', '.join(names)} FROM agentcom_auditentry"
        found = self.hub.rows(f"{query} WHERE id > {self.last} ORDER BY id")
        entries = [dict(zip(names, row, strict=True)) for row in found]
        self.last = max([self.last, *(entry["id"] for entry in entries)])
        return entries

    def only(self) -> dict[str, Any]:
        [entry] = self.news()
        return entry


@pytest.fixture
def trail(hub: Hub, people: None) -> Trail:
    trail = Trail(hub)
    trail.news()
    return trail


@pytest.fixture(scope="module")
def people(hub: Hub) -> None:
    hub.manage("shell", "-v", "0", "-c", PEOPLE)


@pytest.fixture(scope="module")
def operator(hub: Hub) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {hub.token('the-operator', 'operator')}"}
    with httpx.Client(base_url=hub.url, headers=headers, timeout=20) as client:
        yield client


class Person:
    """A browser, logged in by the admin's form."""

    def __init__(self, hub: Hub) -> None:
        self.http = httpx.Client(base_url=hub.url, timeout=20)

    def log_in(self, name: str) -> None:
        self.http.get("/admin/login/")
        answer = self.post("/admin/login/", username=name, password=PASSWORD)
        assert answer.status_code == 302, answer.text

    def post(self, path: str, **form: Any) -> httpx.Response:
        token = self.http.cookies["csrftoken"]
        return self.http.post(path, data={"csrfmiddlewaretoken": token, **form})

    def act(self, path: str, action: str, *keys: Any, **more: str) -> httpx.Response:
        form = {"action": action, "_selected_action": [str(key) for key in keys], **more}
        answer = self.post(f"/admin/{path}/", **form)
        assert answer.status_code == 302, answer.text
        return answer

    @property
    def cookie(self) -> dict[str, str]:
        return {"Cookie": f"agentcom_session={self.http.cookies['agentcom_session']}"}


LogIn = Callable[[str], Person]


@pytest.fixture(scope="module")
def log_in(hub: Hub, people: None) -> Iterator[LogIn]:
    with ExitStack() as closing:

        def log_in(name: str) -> Person:
            person = Person(hub)
            closing.callback(person.http.close)
            person.log_in(name)
            return person

        yield log_in


@pytest.fixture(scope="module")
def boss(log_in: LogIn) -> Person:
    return log_in("admin")


def new_task(operator: httpx.Client) -> str:
    body = {"description": "The secret plan", "not_before": "2100-01-01"}
    return str(operator.post("/api/tasks", json=body).json()["task_id"])


def new_hold(operator: httpx.Client) -> str:
    hold = {"scope": "lane", "subject": "low", "reason": "a test"}
    return str(operator.post("/api/holds", json=hold).json()["id"])


async def new_agent(hub: Hub, name: str) -> str:
    """It was there, and has signed off."""
    token = hub.token(name)
    async with connect(hub.ws_url) as socket:
        for type, more in (("identify", {"token": token}), ("sign_off", {})):
            await socket.send(json.dumps({"type": type, **more}))
            await socket.recv()
    return name


# --- The dashboard


def test_every_act_has_a_row():
    assert ACTS.keys() == ACTS_DONE.keys()


async def test_acts(hub: Hub, log_in: LogIn, operator: httpx.Client, trail: Trail):
    known = {"TASK": new_task(operator), "AGENT": await new_agent(hub, "an-agent")}
    headers = log_in("operator").cookie
    async with connect(hub.dashboard_url, additional_headers=headers) as socket:
        for name, (fields, what) in ACTS_DONE.items():
            trail.news()
            given = {key: known.get(value, value) for key, value in fields.items()}
            await socket.send(json.dumps({"type": name, **given}))
            while (answer := json.loads(await socket.recv()))["type"] != ACTS[name].answer:
                pass
            assert answer["status"] in ACTS[name].statuses, answer
            known["HOLD"] = answer.get("hold", {}).get("id", "")
            entry = trail.only()
            assert (entry["what"], entry["outcome"]) == (what, "done")
            assert (entry["actor"], entry["address"]) == ("user:operator", HERE)
            assert entry["reason"] == fields.get("reason", "")
            assert entry["subject"] in {*given.values(), known["HOLD"]}
        await socket.send(json.dumps({"type": "forget_agent", "agent_id": "an-agent"}))
        while json.loads(await socket.recv())["type"] != "forget_result":
            pass
        refused = trail.only()
        assert (refused["outcome"], refused["detail"]) == ("refused", "agent_not_found")


def test_a_form(log_in: LogIn, trail: Trail):
    person = log_in("operator")
    assert [entry["what"] for entry in trail.news()] == ["login"]
    key = re.search(r'name="key" value="(\w+)"', person.http.get("/dashboard/submit").text)
    assert key
    form = {"description": "The secret plan", "priority": "low", "key": key[1]}
    for _ in range(2):  # sent twice, it is one task
        answer = person.post("/dashboard/submit", **form)
        assert answer.status_code == 303, answer.text
    first, again = trail.news()
    assert (first["what"], first["actor"]) == ("task.submit", "user:operator")
    assert answer.headers["Location"].endswith(first["subject"])
    assert again["subject"] == first["subject"]


# --- HTTP


def test_every_call_that_changes_something_has_a_row():
    changing = {
        (method, address)
        for address, view in addresses().items()
        for method in METHODS
        if method != "get" and hasattr(view, method) and declared_at(getattr(view, method))
    }
    assert changing == CALLS.keys()


def test_calls(hub: Hub, operator: httpx.Client, trail: Trail):
    task, hold = new_task(operator), new_hold(operator)
    code = hub.manage("token", "enrol", "a-host").strip()
    bodies = {
        "/api/tasks": {"description": "x", "not_before": "2100-01-01"},
        "/api/tasks/{task_id}": {"priority": "low"},
        "/api/tasks/{task_id}/cancel": {"reason": "wrong customer"},
        "/api/holds": {"scope": "lane", "subject": "high", "reason": "a test"},
        "/api/enrol": {"code": code, "token": "act_8Qm3vZr1oYx5Kc7TgWbN2hJfLp9SdAe4UiM6kRtXqB0"},
    }
    subjects = {"task": task, "enrolment": "a-host"}
    for (method, address), what in CALLS.items():
        trail.news()
        path = address.format(task_id=task, hold_id=hold)
        body = bodies.get(address, {}) if method != "delete" else None
        answer = operator.request(method, path, json=body)
        assert answer.status_code < 300, (path, answer.text)
        entries = trail.news()
        assert [entry["what"] for entry in entries] == ([what] if what else [])
        for entry in entries:
            actor = "token:a-host" if what == "enrolment.use" else "token:the-operator"
            assert (entry["actor"], entry["address"]) == (actor, HERE)
            room = str(what).partition(".")[0]
            assert entry["subject"] == subjects.get(room, entry["subject"]) != ""
    refused = operator.post("/api/tasks/task-0000000000000000/retry", json={})
    assert refused.status_code == 404
    entry = trail.only()
    assert (entry["outcome"], entry["detail"]) == ("refused", "not_found")


def test_what_programs_do_with_their_own_tasks_is_traffic(hub: Hub, trail: Trail):
    token = hub.token("a-program", "submitter")
    trail.news()
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=hub.url, headers=headers, timeout=20) as program:
        task = new_task(program)
        for verb in ("cancel", "retry"):
            assert program.post(f"/api/tasks/{task}/{verb}", json={}).status_code == 200
    assert trail.news() == []


# --- The admin


def test_every_action_of_the_admin_has_a_row():
    request = RequestFactory().get("/")
    request.user = type("Root", (), {"has_perm": lambda *_: True, "is_active": True})()
    found = {
        (model._meta.label, action)
        for model, shown in admin.site._registry.items()
        if model is not LogEntry
        for action in shown.get_actions(request)
    }
    assert found == ACTIONS.keys()
    assert all(
        isinstance(shown, ReadOnlyAdmin) or "delete_selected" in shown.get_actions(request)
        for shown in admin.site._registry.values()
        if shown.get_actions(request)
    )


async def test_actions(hub: Hub, boss: Person, operator: httpx.Client, trail: Trail):
    task = new_task(operator)
    [[number]] = hub.rows(f"SELECT number FROM tasks_task WHERE task_id = '{task}'")
    hub.token("a-holder")
    [[token_hash]] = hub.rows("SELECT token_hash FROM agents_agenttoken WHERE name = 'a-holder'")
    [[gone]] = json.loads(hub.manage("shell", "-v", "0", "-c", MAKE_GONE))
    [[group]] = hub.rows("SELECT id FROM auth_group WHERE name = 'gone'")
    endpoint = hub.manage("webhook", "add", "https://hooks.example.org/").split()[0]
    hub.manage("shell", "-v", "0", "-c", DEAD_DELIVERIES.format(endpoint=endpoint))
    keys = {
        **{place: endpoint for place in ACTIONS if place[0] == "webhooks.Endpoint"},
        ("webhooks.Delivery", "replay"): key_of_delivery(hub, "msg-1"),
        ("webhooks.Delivery", "discard"): key_of_delivery(hub, "msg-2"),
        ("tasks.Task", "cancel"): number,
        ("tasks.Task", "retry"): number,
        ("agents.Agent", "forget"): await new_agent(hub, "another-agent"),
        ("agents.Hold", "lift"): new_hold(operator),
        ("agents.AgentToken", "revoke"): token_hash,
        ("auth.User", "delete_selected"): gone,
        ("auth.Group", "delete_selected"): group,
    }
    for (label, action), what in ACTIONS.items():
        trail.news()
        path = label.lower().replace(".", "/")
        sure = {"post": "yes"} if action == "delete_selected" else {}
        boss.act(path, action, keys[label, action], **sure)
        entry = trail.only()
        assert (entry["what"], entry["outcome"]) == (what, "done")
        assert (entry["actor"], entry["address"]) == ("user:admin", HERE)
        assert entry["subject"]


DEAD_DELIVERIES = """
from django.utils import timezone
from webhooks.models import Delivery, Message, State
now = timezone.now()
for number in range(1, 4):
    Message.objects.create(message_id=f"msg-{{number}}", body="{{}}")
    Delivery.objects.create(
        message_id=f"msg-{{number}}", endpoint_id="{endpoint}", type="task.completed",
        state=State.DEAD, happened_at=now, created_at=now, ended_at=now, due_at=None,
    )
"""


def key_of_delivery(hub: Hub, message_id: str) -> int:
    query = f"SELECT number FROM webhooks_delivery WHERE message_id = '{message_id}'"
    [[number]] = hub.rows(query)
    return int(number)


MAKE_GONE = """
import json
from django.contrib.auth.models import Group, User
Group.objects.create(name="gone")
print(json.dumps([[User.objects.create_user("gone").pk]]))
"""


def test_users_and_their_rights(hub: Hub, boss: Person, trail: Trail):
    passwords = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    added = boss.post("/admin/auth/user/add/", username="newcomer", **passwords)
    assert added.status_code == 302, added.text
    entry = trail.only()
    assert (entry["what"], entry["subject"]) == ("user.add", "newcomer")
    page = added.headers["Location"].split("?")[0]
    [[group]] = hub.rows("SELECT id FROM auth_group WHERE name = 'AgentCom admin'")
    given = {"username": "newcomer", "is_active": "on", "is_staff": "on", "groups": str(group)}
    moments = {"date_joined_0": "2026-01-01", "date_joined_1": "12:00:00"}
    changed = boss.post(page, **given, **moments)
    assert changed.status_code == 302, changed.text
    entry = trail.only()
    assert (entry["what"], entry["actor"], entry["address"]) == ("user.change", "user:admin", HERE)
    assert "Groups" in entry["detail"]
    assert "Now active, staff, not superuser, groups AgentCom admin." in entry["detail"]
    told = boss.post(page.replace("change", "password"), **passwords)
    assert told.status_code == 302, told.text
    assert "password" in trail.only()["detail"].lower()


def test_ones_own_password_and_the_way_out(log_in: LogIn, trail: Trail):
    person = log_in("viewer")
    came = trail.only()
    assert (came["what"], came["actor"], came["address"]) == ("login", "user:viewer", HERE)
    assert "Password change" in person.http.get("/admin/password_change/").text
    new = {"old_password": PASSWORD, "new_password1": PASSWORD, "new_password2": PASSWORD}
    assert person.post("/admin/password_change/", **new).status_code == 302
    assert trail.only()["detail"] == "Changed own password."
    assert person.http.get("/admin/").status_code == 200  # still logged in
    wrong = {**new, "old_password": "wrong"}
    assert person.post("/admin/password_change/", **wrong).status_code == 200
    assert trail.news() == []
    assert person.post("/admin/logout/").status_code == 200
    assert (went := trail.only())["what"] == "logout"
    assert went["actor"] == "user:viewer"


# --- A process that dies


@pytest.mark.bound_s(60)
async def test_after_a_kill_each_change_has_its_entry_and_no_other(tmp_path: Path):
    with Hub(tmp_path / "hub", **SETTINGS) as hub:
        headers = {"Authorization": f"Bearer {hub.token('an-operator', 'operator')}"}
        async with httpx.AsyncClient(base_url=hub.url, headers=headers, timeout=20) as http:
            task = {"description": "x", "not_before": "2100-01-01"}
            made = await http.post("/api/tasks", json=[task] * 400)
            ids = [receipt["task_id"] for receipt in made.json()["tasks"]]
            answered: set[str] = set()

            async def cancel(task_ids: list[str]) -> None:
                for task_id in task_ids:
                    answer = await http.post(f"/api/tasks/{task_id}/cancel", json={})
                    assert answer.status_code == 200
                    answered.add(task_id)
                    if len(answered) == 150:
                        hub.kill()

            parts = [ids[start::8] for start in range(8)]
            await asyncio.gather(*map(cancel, parts), return_exceptions=True)
        hub.start()
        done = "SELECT subject FROM agentcom_auditentry WHERE what = 'task.cancel'"
        entries = [subject for (subject,) in hub.rows(done)]
        changed = hub.rows("SELECT task_id FROM tasks_task WHERE status = 'cancelled'")
        assert sorted(entries) == sorted(task_id for (task_id,) in changed)
        assert answered <= set(entries)
        assert 150 <= len(entries) < len(ids)


# --- The command line


def test_every_verb_of_the_token_command_has_a_row():
    parser = CommandParser()
    import_module("fleet.management.commands.token").Command().add_arguments(parser)
    [verbs] = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    assert verbs.choices.keys() == TOKEN_VERBS.keys()


def test_the_token_command(hub: Hub, trail: Trail):
    for verb, what in TOKEN_VERBS.items():
        hub.manage("token", verb, "typed")
        entries = trail.news()
        assert {entry["what"] for entry in entries} == ({what} if what else set())
        for entry in entries:
            assert (entry["actor"], entry["subject"]) == ("hub", "typed")
            assert entry["detail"].endswith(USER)


def test_users_of_the_command_line(hub: Hub, trail: Trail):
    hub.environment["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    hub.manage("createsuperuser", "--no-input", "--username", "root", "--email", "root@example.org")
    entry = trail.only()
    assert (entry["what"], entry["subject"], entry["actor"]) == ("user.add", "root", "hub")
    assert entry["detail"] == f"superuser, as {USER}"


USER = subprocess.run(
    [sys.executable, "-c", "import getpass; print(getpass.getuser())"],
    capture_output=True,
    text=True,
    check=True,
).stdout.strip()


def test_the_export_has_all_and_no_secret(hub: Hub, operator: httpx.Client, trail: Trail):
    operator.post(f"/api/tasks/{new_task(operator)}/cancel", json={"reason": "a reason"})
    [last] = trail.news()
    out = hub.manage("export", "audit")
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[-1]["subject"] == last["subject"]
    assert [line["id"] for line in lines] == [
        row[0] for row in hub.rows("SELECT id FROM agentcom_auditentry ORDER BY id")
    ]
    assert "The secret plan" not in out
    assert PASSWORD not in out
    assert operator.headers["Authorization"].split()[1] not in out
    assert hub.manage("export", "audit", "--until", lines[0]["at"]) == ""
    wrong = subprocess.run(
        [sys.executable, "manage.py", "export", "audit", "--format", "csv"],
        cwd=ROOT,
        env=hub.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "JSON only" in wrong.stderr
    assert wrong.returncode == 1
