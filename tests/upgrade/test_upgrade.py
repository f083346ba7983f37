"""The database of an earlier commit goes through `migrate` with everything in it; its hub runs on.

Whoever changes the tables so that a kept row can no longer be found as it was says in `RENAMED` or
`expected` where it is now.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from agentcom_client.connection import Connection
from lab.harness.hub import Hub
from lab.harness.store import ROOT, Store, on_postgresql
from tasks.causes import group_of
from tests.upgrade import old
from tests.upgrade.old import KEPT, Row

RENAMED = {
    "dashboard_minute": "counters_minute",
    "dashboard_laneminute": "counters_laneminute",
    "dashboard_agenthour": "counters_agenthour",
    "dashboard_durationcount": "counters_durationcount",
    "dashboard_healthreport": "worker_healthreport",
    "dashboard_queuesample": "worker_queuesample",
}
RENAMED_COLUMNS = {"agents_agenttoken": {"name": "agent_id"}}
MOVED_MODELS = dict(name.split("_")[::-1] for name in RENAMED.values())  # model to its new app

KILLED = 86
# Ends the process, as a power cut would, at the statement of that number that changes tables.
KILLED_MIGRATION = """
import os, sys
from django.core.management import call_command
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
execute, left = BaseDatabaseSchemaEditor.execute, {number}
def execute_or_die(self, *args, **kwargs):
    global left
    left -= 1
    if not left:
        os._exit({killed})
    return execute(self, *args, **kwargs)
BaseDatabaseSchemaEditor.execute = execute_or_die
call_command("migrate", verbosity=0)
"""
PERMISSIONS = """
import json
from django.contrib.auth.models import User
print(json.dumps(sorted(User.objects.get(username="keeper").get_all_permissions())))
"""
INSERTS = """
from django.utils import timezone
from counters.models import AgentHour, DurationCount, LaneMinute
from worker.models import HealthReport
now = timezone.now()
for row in (
    LaneMinute(start=now, priority=0),
    AgentHour(start=now, agent_id="new"),
    DurationCount(minute=0, bucket=0),
    HealthReport(status="ok", created_at=now, reported_at=now),
):
    newest = max(type(row).objects.values_list("id", flat=True))
    row.save(force_insert=True)
    assert row.id > newest, row
"""


@pytest.fixture(params=old.COMMITS, autouse=True)
def commit(request: pytest.FixtureRequest) -> Iterator[str]:
    old.choose(request.param)
    yield request.param
    old.choose(old.COMMITS[-1])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Not started, on a copy of the database as the old code left it."""
    monkeypatch.setattr(Store, "made_by", old.command_for(old.minutes_since()))
    settings = {"AGENTCOM_SECRET_KEY": KEPT["secret_key"], "AGENTCOM_RECLAIM_GRACE_S": "60"}
    hub = Hub(tmp_path / "hub", **settings)
    yield hub
    hub.terminate()


@pytest.fixture
def upgraded(hub: Hub) -> Hub:
    hub.manage("migrate")
    return hub


# --- The rows


def found(hub: Hub, table: str) -> list[Row]:
    """All rows that are there now, as the database gives them."""
    return [_as_named_before(table, row) for row in _rows_of(hub, table)]


def _as_named_before(table: str, row: Row) -> Row:
    before = RENAMED_COLUMNS.get(table, {})
    return {before.get(name, name): value for name, value in row.items()}


def _rows_of(hub: Hub, table: str) -> list[Row]:
    select = f"SELECT * FROM {table}"
    if on_postgresql():
        with psycopg.connect(hub.environment["DATABASE_URL"]) as database:
            cursor = database.execute(select)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]
    with closing(sqlite3.connect(hub.data_dir / "agentcom.sqlite3")) as file:
        rows = file.execute(select)
        names = [name for name, *_ in rows.description]
        return [dict(zip(names, row, strict=True)) for row in rows]


def expected(table: str) -> list[Row]:
    rows = list(old.rows(table, old.minutes_since()))
    if table == "django_content_type":
        for row in rows:
            row["app_label"] = MOVED_MODELS.get(row["model"], row["app_label"])
    if table == "tasks_task":  # the colours of a terminal no longer make a cause of their own
        for row in rows:
            row["cause"] = row["cause"] and group_of(row["last_error"])
    return rows


def comparable(row: Row, kinds: dict[str, str]) -> str:
    """The columns that were there, whatever form this database gives them."""
    plain = {name: _plain(row[name], kind) for name, kind in kinds.items()}
    return json.dumps(plain, sort_keys=True)


def _plain(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "json" and isinstance(value, str):
        return json.loads(value)
    if kind == "time":
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    return bool(value) if kind == "bool" else value


def assert_all_there(hub: Hub) -> None:
    for table, kept in KEPT["tables"].items():
        now = {comparable(row, kept["columns"]) for row in found(hub, RENAMED.get(table, table))}
        lost = [row for row in expected(table) if comparable(row, kept["columns"]) not in now]
        assert not lost, table


def test_every_row_is_there(upgraded: Hub):
    assert_all_there(upgraded)


def test_completed_tasks_have_ended_when_they_were_completed(upgraded: Hub):
    tasks = found(upgraded, "tasks_task")
    ended = [task for task in tasks if task["ended_at"] is not None]
    assert len(ended) == 14
    assert {task["status"] for task in ended} == {"completed"}
    assert "completed" not in {task["status"] for task in tasks if task["ended_at"] is None}
    for task in ended:
        assert _plain(task["ended_at"], "time") == _plain(task["updated_at"], "time")


def migrate_killed_at(number: int, hub: Hub) -> bool:
    """Whether it was killed, and not done before."""
    script = KILLED_MIGRATION.format(number=number, killed=KILLED)
    command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", script]
    code = subprocess.run(command, cwd=ROOT, env=hub.environment, timeout=60).returncode
    assert code in (0, KILLED)
    return code == KILLED


def test_a_migration_that_is_killed_goes_on(hub: Hub):
    for number in count(1):
        if not migrate_killed_at(number, hub):
            break
    assert number > 6, "no table was renamed"
    hub.manage("migrate")
    assert_all_there(hub)


def test_no_migration_is_missing(upgraded: Hub):
    upgraded.manage("makemigrations", "--check", "--dry-run")
    upgraded.manage("migrate", "--check")


def test_new_rows_get_new_ids(upgraded: Hub):
    upgraded.manage("shell", "-v", "0", "-c", INSERTS)


# --- What people and programs had


def test_staff_may_what_they_might(upgraded: Hub):
    permissions = set(json.loads(upgraded.manage("shell", "-v", "0", "-c", PERMISSIONS)))
    assert permissions >= {
        "worker.view_healthreport",
        "counters.view_minute",
        "agents.change_agent",
        "tasks.change_task",
        # by their group
        "counters.view_agenthour",
        "counters.view_laneminute",
        "counters.view_durationcount",
        "worker.view_queuesample",
        "agentcom.view_event",
    }


def moved(message: Row, name: str) -> Row:
    return {**message, name: message[name] + old.minutes_since() * 60_000}


async def join(hub: Hub, agent_id: str, *capabilities: str) -> Connection:
    agent = await Connection.open(hub.ws_url)
    await agent.identify(agent_id, KEPT["tokens"][agent_id], capabilities=list(capabilities))
    return agent


async def test_the_hub_goes_on(hub: Hub):
    hub.start()
    headers = {"Authorization": f"Bearer {KEPT['tokens']['quick']}"}
    async with httpx.AsyncClient(base_url=hub.url, headers=headers, timeout=20) as api:
        await _held_tasks_are_completed(hub, api)
        await _queued_tasks_are_assigned(hub)
        await _what_was_sent_twice_is_answered_as_before(api)
        await _dead_letters_are_retried(api)
        await _the_dashboard_shows_all(api)
        revoked = {"Authorization": f"Bearer {KEPT['tokens']['revoked']}"}
        assert (await api.get("/api/tasks", headers=revoked)).status_code == 401
        cookie = {"Cookie": f"agentcom_session={KEPT['receipts']['session']}"}
        assert "Zoë" in (await api.get("/admin/", headers=cookie)).text


async def _held_tasks_are_completed(hub: Hub, api: httpx.AsyncClient) -> None:
    for agent_id in ("working", "blocked", "recovering", "assigned"):
        held = KEPT["held"][agent_id]
        about = {"task_id": held["task_id"], "generation": held["generation"]}
        async with await join(hub, agent_id, agent_id) as agent:
            if agent_id == "assigned":
                pushed = await agent.next_push()
                assert pushed == moved(held, "assigned_at")
            else:
                go_on = await agent.request("task_recovering", task_id=held["task_id"])
                assert go_on == {"type": "task_continue", **about}
            ack = await agent.request("task_complete", **about, result={"after": "the upgrade"})
            assert ack["status"] == "complete"
            await agent.request("sign_off")
        task = (await api.get(f"/api/tasks/{held['task_id']}")).json()
        assert (task["status"], task["assigned_to"]) == ("completed", agent_id)
        kinds = [entry["event"] for entry in task["history"]]
        assert kinds[:2] == ["task_submitted", "task_assigned"]
        assert kinds[-1] == "task_complete"


async def _queued_tasks_are_assigned(hub: Hub) -> None:
    """In the order of their lanes."""
    async with await join(hub, "idle", "idle-later") as agent:
        for lane in range(4):
            task = await agent.next_push()
            assert task["description"] == f"Waits too in lane {lane}"
            about = {"task_id": task["task_id"], "generation": task["generation"]}
            await agent.request("task_complete", **about, result={})
            if lane == 2:
                between = await agent.next_push()
                assert between["description"] == "Asked for once"
                about = {"task_id": between["task_id"], "generation": between["generation"]}
                await agent.request("task_complete", **about, result={})
        await agent.request("sign_off")


async def _what_was_sent_twice_is_answered_as_before(api: httpx.AsyncClient) -> None:
    again = {"description": "Sent once more"}
    one, many = (KEPT["receipts"][key] for key in ("order-4711", "many"))
    answers = [
        await api.post("/api/tasks", json=body, headers={"Idempotency-Key": key})
        for key, body in (("order-4711", again), ("many", [again]))
    ]
    assert [answer.json() for answer in answers] == [
        moved(one, "created_at"),
        {**many, "tasks": [moved(task, "created_at") for task in many["tasks"]]},
    ]


async def _dead_letters_are_retried(api: httpx.AsyncClient) -> None:
    dead = (await api.get("/api/tasks/dead-letter")).json()["tasks"]
    groups = (await api.get("/api/dashboard/dead-letters")).json()
    assert groups["total"] == len(dead) == 7
    assert max(group["count"] for group in groups["groups"]) > 1
    again = await api.post(f"/api/tasks/{dead[0]['id']}/retry")
    assert again.json()["status"] == "requeued"


async def _the_dashboard_shows_all(api: httpx.AsyncClient) -> None:
    state = (await api.get("/api/dashboard/state")).json()
    assert state["health"]["status"] in ("ok", "warning", "critical")
    assert "worker_silent" not in {detail["code"] for detail in state["health"]["details"]}
    assert state["queue"]["dead_letter"] == 6
    assert state["queue"]["by_status"]["completed"] == 14 + 4 + 5
    assert state["throughput"]["completed_last_hour"] == 14 + 4 + 5
    assert len(state["recent_completions"]) == 14 + 4 + 5
    points = (await api.get("/api/dashboard/history?minutes=60")).json()["points"]
    assert sum(point["completed"] for point in points) == 14 + 4 + 5
