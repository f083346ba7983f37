"""Fill a hub of a landed commit with all that a hub can hold, and keep its rows for the tests.

    .venv/bin/python -m tests.upgrade.make CHECKOUT

CHECKOUT is a clean checkout of the commit with a `.venv` of its own. All of it is real traffic
through the commit's own commands, sockets and pages, which takes about a minute; then the hub is
killed, as a power cut would do it, and its database is written to `COMMIT.json` beside this file.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import connect

from agentcom_client.connection import Connection, Message
from lab.harness.hub import free_port
from lab.harness.store import environment

HERE = Path(__file__).parent
SECRET_KEY = "the secret key of a hub that is going to be upgraded, and of no other one"
PASSWORD = "keeper-of-the-hub-1"
WAIT_S = 30

AGENTS = "quick clumsy idle assigned working blocked recovering lost leaver forgotten revoked"
STAFF = f"""
from django.contrib.auth.models import Group, Permission, User
User.objects.create_superuser("root", "root@example.org", "{PASSWORD}")
keeper = User.objects.create_user("keeper", "", "{PASSWORD}", is_staff=True, first_name="Zoë")
keeper.user_permissions.set(Permission.objects.filter(
    codename__in=["view_healthreport", "view_minute", "change_agent", "change_task"]))
group = Group.objects.create(name="watchers")
group.permissions.set(Permission.objects.filter(
    codename__in=["view_agenthour", "view_laneminute", "view_durationcount", "view_queuesample",
                  "view_event"]))
keeper.groups.add(group)
"""


class OldHub:
    """A hub that runs the code of the checkout, on SQLite."""

    def __init__(self, checkout: Path, data_dir: Path) -> None:
        self.checkout, self.data_dir = checkout, data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ws_url = f"ws://127.0.0.1:{self.port}/ws"
        self._python = checkout / ".venv/bin/python"
        self._environment = environment(
            AGENTCOM_DATA_DIR=str(data_dir),
            AGENTCOM_PORT=str(self.port),
            AGENTCOM_SECRET_KEY=SECRET_KEY,
            AGENTCOM_QUEUE_SAMPLE_S="10",
        )

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._python, "manage.py", "hub"], cwd=self.checkout, env=self._environment
        )
        give_up_at = time.monotonic() + WAIT_S
        while not self._answers():
            assert self._process.poll() is None, "the hub has ended"
            assert time.monotonic() < give_up_at, "the hub does not answer"
            time.sleep(0.1)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def manage(self, *arguments: str) -> str:
        return subprocess.run(
            [self._python, "manage.py", *arguments],
            cwd=self.checkout,
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health").status_code == 200
        except httpx.TransportError:
            return False


class Traffic:
    """What agents, submitters and people do to the hub."""

    def __init__(self, hub: OldHub, tokens: Mapping[str, str]) -> None:
        self.hub, self.tokens = hub, tokens
        headers = {"Authorization": f"Bearer {tokens['quick']}"}
        self.api = httpx.AsyncClient(base_url=hub.url, headers=headers)
        self.receipts: dict[str, Any] = {}  # by Idempotency-Key
        self.held: dict[str, Message] = {}  # task_assign by agent

    async def submit(self, skill: str, description: str, **fields: Any) -> str:
        key = fields.pop("key", None)
        headers = {"Idempotency-Key": key} if key else {}
        task = {"description": description, "needed_capabilities": [skill], **fields}
        answer = await self.api.post("/api/tasks", json=task, headers=headers)
        assert answer.status_code == 201, answer.text
        if key:
            self.receipts[key] = answer.json()
        task_id: str = answer.json()["task_id"]
        return task_id

    async def join(self, agent_id: str, **about: Any) -> Connection:
        """An agent whose skill is its own name."""
        agent = await Connection.open(self.hub.ws_url)
        await agent.identify(
            agent_id, self.tokens[agent_id], **{"capabilities": [agent_id], **about}
        )
        return agent

    async def take(self, agent_id: str, agent: Connection, accept: bool = True) -> Message:
        task = await _assigned(agent)
        if accept:
            await say(agent, "task_accepted", task)
        self.held[agent_id] = task
        return task

    async def until(self, path: str, is_so: Callable[[Any], bool]) -> None:
        give_up_at = time.monotonic() + WAIT_S
        while not is_so(found := (await self.api.get(path)).json()):
            assert time.monotonic() < give_up_at, found
            await asyncio.sleep(0.1)

    async def until_queued(self, task_id: str) -> None:
        await self.until(f"/api/tasks/{task_id}", lambda task: task["status"] == "queued")


async def _assigned(agent: Connection) -> Message:
    while (push := await agent.next_push())["type"] != "task_assign":
        pass
    return push


async def say(agent: Connection, type: str, task: Message, **fields: Any) -> Message:
    about = {"task_id": task["task_id"], "generation": task["generation"]}
    return await agent.request(type, **about, **fields)


async def complete(traffic: Traffic) -> None:
    """Results and tokens of all kinds, in two minutes, so that minutes and hours have rows."""
    quick = await traffic.join("quick", name="Quick 🐇", status="at work", presence=True)
    results: list[dict[str, Any]] = [
        {},
        {"text": "naïve — 漢字 🐇\n<b>bold</b>", "big": 2**53 + 1, "half": 0.5, "none": None},
        {"deep": [[{"a": [1, 2, {"b": True}]}]]},
    ]
    for number in range(12):
        await traffic.submit(
            "quick",
            f"Completed {number}: naïve “quotes”, 漢字",
            priority=number % 4,
            metadata={"number": number, "ünï": ["ö", 2**60, 2.5]},
        )
        task = await traffic.take("quick", quick)
        if number == 6:
            await asyncio.sleep(60.5 - time.time() % 60)  # the next minute
        tokens = {"tokens_used": number * 10**10} if number % 3 else {}
        await say(quick, "task_complete", task, result=results[number % 3], **tokens)
    await traffic.submit("quick", "Rejected once")
    task = await traffic.take("quick", quick)
    await say(quick, "task_rejected", task, reason="not now")
    task = await traffic.take("quick", quick)
    await say(quick, "task_complete", task, result={"second": "try"})
    await quick.request("status", status="waiting for more")


async def fail(traffic: Traffic) -> list[str]:
    """Give the tasks in the dead letter, of several causes."""
    clumsy = await traffic.join("clumsy")
    errors = [
        "no answer within 30 s from https://example.org/a/b?c=1",
        "no answer within 45 s from https://example.org/x",
        "File \"/srv/app/run.py\", line 12: KeyError: 'ünï'",
        "quota of user 8f14e45f-ceea-467f-a8d1-0a3e7c1f1c11 is used up",
        "",
    ]
    dead = []
    for number, error in enumerate(errors * 2):
        task_id = await traffic.submit("clumsy", f"Fails {number}", max_retries=1 + number % 2)
        for _ in range(1 + number % 2):
            task = await traffic.take("clumsy", clumsy)
            await say(clumsy, "task_failed", task, error=error or "a\nb\tc \x1b[31mred\x1b[0m")
        dead.append(task_id)
    await traffic.submit("clumsy", "Fails once, then succeeds")
    task = await traffic.take("clumsy", clumsy)
    await say(clumsy, "task_failed", task, error="the first attempt")
    task = await traffic.take("clumsy", clumsy)
    await say(clumsy, "task_complete", task, result={"attempt": 2}, tokens_used=7)
    await clumsy.close()
    return dead


async def retry(traffic: Traffic, dead: list[str]) -> None:
    """By the API, by a viewer and by a person in the admin, who also forgets an agent."""
    assert (await traffic.api.post(f"/api/tasks/{dead[0]}/retry")).status_code == 200
    async with connect(f"{traffic.hub.ws_url}/dashboard", max_size=None) as viewer:
        await viewer.send(json.dumps({"type": "retry_task", "task_id": dead[1]}))
        while json.loads(await viewer.recv())["type"] != "retry_result":
            pass
    await (await traffic.join("forgotten")).request("sign_off")
    async with httpx.AsyncClient(base_url=traffic.hub.url, follow_redirects=True) as person:
        person.headers["Referer"] = traffic.hub.url
        await post(person, "/admin/login/", next="/admin/", username="keeper", password=PASSWORD)
        for page, action, row in (
            ("/admin/tasks/task/", "retry", dead[2]),
            ("/admin/agents/agent/", "forget", "forgotten"),
        ):
            found = (await person.get(page, params={"q": row})).text
            [key] = re.findall(r'name="_selected_action" value="([^"]+)"', found)
            await post(person, page, action=action, _selected_action=key, index="0")
        traffic.receipts["session"] = person.cookies["agentcom_session"]


async def post(person: httpx.AsyncClient, page: str, **fields: str) -> None:
    form = (await person.get(page)).text
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
    assert token, form
    answer = await person.post(page, data={**fields, "csrfmiddlewaretoken": token[1]})
    assert answer.status_code == 200, answer.text
    assert "errornote" not in answer.text, answer.text


async def queue(traffic: Traffic) -> None:
    """Tasks that wait in all lanes, some for needs that nobody has, and first receipts of keys."""
    for priority in range(4):
        await traffic.submit("nobody", f"Waits in lane {priority}", priority=priority)
        await traffic.submit("idle-later", f"Waits too in lane {priority}", priority=priority)
    tomorrow = int((time.time() + 86_400) * 1000)
    await traffic.submit("nobody", "Has a deadline", complete_by=tomorrow, max_retries=0)
    needs = ["gpu", "ünï", 'a "quote"']
    await traffic.submit("nobody", "Needs much", metadata={"": []}, needed_capabilities=needs)
    await traffic.submit("idle-later", "Asked for once", key="order-4711")
    several = [{"description": f"One of many {n}", "needed_capabilities": ["many"]} for n in (1, 2)]
    answer = await traffic.api.post("/api/tasks", json=several, headers={"Idempotency-Key": "many"})
    traffic.receipts["many"] = answer.json()


async def reclaim(traffic: Traffic) -> None:
    """A deadline, a planned leave and a lost connection each put a task back."""
    soon = int((time.time() + 2) * 1000)
    overdue = await traffic.submit("leaver", "Takes too long", complete_by=soon)
    leaver = await traffic.join("leaver")
    await traffic.take("leaver", leaver)
    await traffic.until(
        f"/api/tasks/{overdue}",
        lambda task: any(entry["event"] == "task_reclaimed" for entry in task["history"]),
    )
    await leaver.request("sign_off")
    await traffic.until_queued(overdue)
    left = await traffic.submit("lost", "Left by who was lost")
    lost = await traffic.join("lost", name="Löst", status="on the train")
    await traffic.take("lost", lost)
    lost.cut()
    await traffic.until_queued(left)


async def hold(traffic: Traffic) -> list[Connection]:
    """Agents in every state, each with what it holds; they are there until the end."""
    present = [await traffic.join("idle", name="", capabilities=["review", "ünï", "idle"])]
    for agent_id in ("assigned", "working", "blocked", "recovering"):
        await traffic.submit(agent_id, f"Held by {agent_id}", priority="high", max_retries=5)
        agent = await traffic.join(agent_id)
        task = await traffic.take(agent_id, agent, accept=agent_id != "assigned")
        if agent_id == "working":
            await progress(agent, task, progress=42.5, message="nearly half — 半")
        if agent_id == "blocked":
            await say(agent, "task_blocked", task, reason="May I push to main?")
            await say(agent, "task_unblocked", task)
            await say(agent, "task_blocked", task, reason="May I push to main, really?")
        if agent_id == "recovering":
            agent.cut()
            agent = await traffic.join(agent_id)
        present.append(agent)
    return present


async def progress(agent: Connection, task: Message, **fields: Any) -> None:
    """It is not answered; the pong behind it says that it was taken."""
    about = {"task_id": task["task_id"], "generation": task["generation"]}
    await agent.socket.send(json.dumps({"type": "task_progress", **about, **fields}))
    await agent.request("ping")


async def play(hub: OldHub) -> Traffic:
    tokens = {agent_id: hub.manage("token", "create", agent_id) for agent_id in AGENTS.split()}
    hub.manage("token", "create", "quick")  # a second one
    hub.manage("shell", "-c", STAFF)
    traffic = Traffic(hub, tokens)
    async with traffic.api:
        await complete(traffic)
        dead = await fail(traffic)
        await queue(traffic)
        await reclaim(traffic)
        await retry(traffic, dead)
        hub.manage("token", "revoke", "revoked")
        present = await hold(traffic)
        hub.kill()
        for agent in present:
            agent.cut()
    return traffic


# --- The rows


def rows_of(file: Path) -> dict[str, Any]:
    """`{table: {"columns": {name: kind}, "rows": [[value, …], …]}}`, times as ISO text."""
    with closing(sqlite3.connect(file)) as database:
        names = [
            name
            for (name,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' "
                "AND name NOT LIKE 'sqlite_%' ORDER BY name"
            )
        ]
        return {name: _table(database, name) for name in names if name != "django_migrations"}


def _table(database: sqlite3.Connection, name: str) -> dict[str, Any]:
    declared = database.execute(f"PRAGMA table_info({name})").fetchall()
    columns = {column: _kind(type, database, name, column) for _, column, type, *_ in declared}
    rows = database.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()
    kinds = list(columns.values())
    return {
        "columns": columns,
        "rows": [[_neutral(*cell) for cell in zip(row, kinds, strict=True)] for row in rows],
    }


def _kind(type: str, database: sqlite3.Connection, table: str, column: str) -> str:
    [[sql]] = database.execute("SELECT sql FROM sqlite_master WHERE name = ?", [table])
    if f'JSON_VALID("{column}")' in sql:
        return "json"
    return {"bool": "bool", "datetime": "time"}.get(type, "")


def _neutral(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "bool":
        return bool(value)
    if kind == "time":
        return datetime.fromisoformat(value).replace(tzinfo=UTC).isoformat()
    return value


def migrations_of(file: Path) -> list[list[str]]:
    with closing(sqlite3.connect(file)) as database:
        found = database.execute("SELECT app, name FROM django_migrations ORDER BY id")
        return [list(row) for row in found]


def indexes_of(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        found = database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY 1"
        )
        return [name for (name,) in found]


def document(file: Path, traffic: Traffic, commit: str, at: datetime) -> dict[str, Any]:
    return {
        "commit": commit,
        "at": at.isoformat(),
        "secret_key": SECRET_KEY,
        "tokens": dict(traffic.tokens),
        "receipts": traffic.receipts,
        "held": traffic.held,
        "migrations": migrations_of(file),
        "indexes": indexes_of(file),
        "tables": rows_of(file),
    }


def forget_machine(file: Path) -> None:
    """On which machine the rows were made is nobody's business."""
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE agentcom_node SET host = 'a-machine'")


def written(made: dict[str, Any]) -> str:
    """JSON with a row a line, so that a difference can be read."""
    compact = functools.partial(json.dumps, ensure_ascii=False)
    tables = ",\n".join(
        f'{compact(name)}: {{"columns": {compact(table["columns"])}, "rows": ['
        + ",".join(f"\n{compact(row)}" for row in table["rows"])
        + "]}"
        for name, table in made["tables"].items()
    )
    rest = "".join(
        f"{compact(key)}: {compact(value)},\n" for key, value in made.items() if key != "tables"
    )
    return f'{{{rest}"tables": {{\n{tables}\n}}}}\n'


def main(checkout: Path) -> None:
    head = ["git", "-C", str(checkout), "rev-parse", "--short=7", "HEAD"]
    commit = subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        hub = OldHub(checkout, Path(folder))
        hub.start()
        try:
            traffic = asyncio.run(play(hub))
        finally:
            hub.kill()
        forget_machine(Path(folder) / "agentcom.sqlite3")
        at = datetime.now(UTC)
        made = document(Path(folder) / "agentcom.sqlite3", traffic, commit, at)
    empty = [name for name, table in made["tables"].items() if not table["rows"]]
    print("Nothing in:", ", ".join(empty) or "–")
    (HERE / f"{commit}.json").write_text(written(made))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
