"""What the docs say is true: their examples are run, their names and links exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.core.management import get_commands
from websockets.sync.client import ClientConnection, connect

from agentcom.kinds import kinds
from dashboard.consumers import ACTS
from dashboard.state.whole import SECTIONS
from fleet import protocol
from fleet.consumers import VERBS
from fleet.holds import HOLD_FIELDS
from fleet.models import AgentState
from lab.harness.hub import Hub
from lab.harness.store import ROOT
from tasks.api import CANCEL_FIELDS
from tasks.models import Status
from tasks.moves import MOVES
from tasks.queue import NewTask, Why
from tasks.serializers import FIELDS
from worker.health import CHECKS

pytestmark = pytest.mark.sqlite_only

PAGES = [
    *(
        ROOT / name
        for name in (
            *("README.md", "CHANGELOG.md", "SECURITY.md", "client/README.md"),
            *("deploy/README.md", "deploy/kubernetes/README.md"),
        )
    ),
    *sorted((ROOT / "docs").rglob("*.md")),
]
README, OPERATIONS, SUBMITTERS, AGENTS, VIEWERS = (
    (ROOT / name).read_text()
    for name in (
        "README.md",
        "docs/operations.md",
        "docs/protocol/submitters.md",
        "docs/protocol/agents.md",
        "docs/protocol/viewers.md",
    )
)
AGENT = "my-agent"  # as in the README
BOUND_S = 30

Json = dict[str, Any]


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", page, re.M | re.S)
    assert found, f"no {language} blocks"
    return found


def table_rows(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, header and rule left out."""
    section = page.split(f" {heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, re.M)
    assert lines, f"no table under {heading}"
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines[0].splitlines()[2:]
    ]


def named(page: str, name: str) -> bool:
    return f"`{name}`" in page


# --- Examples


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def token(hub: Hub) -> str:
    return hub.token(AGENT)


@pytest.fixture
def api(hub: Hub, token: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=hub.url, headers=headers, timeout=20) as api:
        yield api


def of(hub: Hub, example: str) -> str:
    """An example, for the hub under test."""
    return example.replace("127.0.0.1:4000", f"127.0.0.1:{hub.port}")


def submit(api: httpx.Client, **task: Any) -> str:
    answer = api.post("/api/tasks", json={"description": "Something to do", **task})
    assert answer.status_code == 201, answer.text
    task_id: str = answer.json()["task_id"]
    return task_id


def place_hold(api: httpx.Client) -> str:
    hold = {"scope": "capability", "subject": "nobody", "reason": "an example"}
    answer = api.post("/api/holds", json=hold)
    assert answer.status_code == 201, answer.text
    hold_id: str = answer.json()["id"]
    return hold_id


def completed(api: httpx.Client, agent: subprocess.Popen[bytes], **task: Any) -> Any:
    """The result of the task, which the agent is to do."""
    task_id = submit(api, **task)
    give_up_at = time.monotonic() + BOUND_S
    while (found := api.get(f"/api/tasks/{task_id}").json())["status"] != "completed":
        assert agent.poll() is None, "the agent has ended"
        assert time.monotonic() < give_up_at, found
        time.sleep(0.05)
    return found["result"]


def test_the_first_steps(hub: Hub, tmp_path: Path):
    """In a shell, as they are written; only the hub listens elsewhere."""
    steps = [block for block in blocks(README, "sh") if "agentcom-client" in block]
    bin = f"{Path(sys.executable).parent}/"
    run, submit = (of(hub, step).replace(".venv/bin/", bin) for step in steps)
    config = str(tmp_path / "client.json")
    environment = {**hub.environment, "AGENTCOM_URL": hub.url, "AGENTCOM_CONFIG": config}
    login, _, agent = run.strip().partition("\n")
    shell: dict[str, Any] = {"cwd": ROOT, "env": environment, "timeout": 60, "check": True}
    subprocess.run(["/bin/sh", "-ec", login], **shell)
    running = subprocess.Popen(["/bin/sh", "-ec", f"exec {agent}"], env=environment)
    try:
        done = subprocess.run(["/bin/sh", "-ec", submit], **shell, capture_output=True, text=True)
    finally:
        running.terminate()
        assert running.wait(BOUND_S) == 0
    assert done.stdout == "I was asked to: Say hello\n"


@pytest.mark.parametrize("number", [0, 2])
def test_the_agents_in_python_work(
    hub: Hub, token: str, api: httpx.Client, tmp_path: Path, number: int
):
    program = tmp_path / "my_agent.py"
    program.write_text(of(hub, blocks(README, "python")[number]))
    environment = {"TOKEN": token, "AGENTCOM_TOKEN": token, "AGENTCOM_URL": hub.url}
    agent = subprocess.Popen([sys.executable, program], env=environment)
    try:
        assert completed(api, agent, description="Say hello") == {"heard": "Say hello"}
    finally:
        agent.terminate()
        agent.wait(BOUND_S)


def test_the_submitter_in_python_works(hub: Hub, token: str, tmp_path: Path):
    environment = {"AGENTCOM_TOKEN": token, "AGENTCOM_URL": hub.url}
    (tmp_path / "agent.py").write_text(blocks(README, "python")[0])
    (tmp_path / "submit.py").write_text(blocks(README, "python")[1])
    agent = subprocess.Popen([sys.executable, tmp_path / "agent.py"], env=environment)
    try:
        done = subprocess.run(
            [sys.executable, tmp_path / "submit.py"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=BOUND_S,
        )
    finally:
        agent.terminate()
        agent.wait(BOUND_S)
    assert done.stdout == "{'heard': 'Say hello'}\n", done.stderr


def test_the_agent_in_any_language_is_five_lines():
    script = blocks(README, "python")[2]
    lines = script.partition("\n\n")[2].splitlines()
    assert len(lines) == 5


def test_the_token_command(hub: Hub):
    [command] = [block for block in blocks(README, "sh") if "export TOKEN" in block]
    command = command.splitlines()[0].replace(".venv/bin/python", sys.executable)
    done = subprocess.run(
        ["/bin/sh", "-ec", f'{command}\nprintf %s "$TOKEN"'],
        cwd=ROOT,
        env=hub.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = httpx.get(f"{hub.url}/api/tasks", headers={"Authorization": f"Bearer {done.stdout}"})
    assert found.status_code == 200


def test_the_curl_commands(hub: Hub, token: str, api: httpx.Client):
    curl = shutil.which("curl")
    if curl is None:  # a machine may well have none, and the hub does not need it
        return
    commands = [b for page in (README, SUBMITTERS) for b in blocks(page, "sh") if "curl" in b]
    assert len(commands) >= 6
    for command in commands:
        task = submit(api, needed_capabilities=["nobody"]) if "$TASK" in command else ""
        hold = place_hold(api) if "$HOLD" in command else ""
        if "enrol_…" in command:
            command = command.replace("enrol_…", hub.manage("token", "enrol", "new").strip())
        command = re.sub(r"^export TOKEN=.*\n", "", command)
        done = subprocess.run(
            ["/bin/sh", "-ec", of(hub, command)],
            env={"TOKEN": token, "PATH": str(Path(curl).parent), "TASK": task, "HOLD": hold},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "error" not in json.loads(done.stdout), done.stdout


@pytest.mark.parametrize("page", [SUBMITTERS, AGENTS, VIEWERS], ids=["submit", "agents", "view"])
def test_json_examples_are_json(page: str):
    for example in blocks(page, "json"):
        json.loads(example)


@pytest.mark.parametrize("session", blocks(AGENTS, "session"), ids=["whole", "cancelled"])
def test_the_session_is_as_written(hub: Hub, api: httpx.Client, session: str):
    """Sends what the session sends, and takes from the hub the frames that it shows."""
    frames = [(line[0], json.loads(line[2:])) for line in session.splitlines()]
    identify = frames[0][1]
    submit(api, priority="urgent", needed_capabilities=identify["capabilities"])
    identify["token"] = hub.token(identify["agent_id"])
    task: Json = {}
    with connect(hub.ws_url) as socket:
        for direction, frame in frames:
            if direction == ">":
                about = {name: task[name] for name in ("task_id", "generation") if name in frame}
                socket.send(json.dumps({**frame, **about}))
                continue
            if frame["type"] == "task_cancel":
                reason = {"reason": frame["reason"]}
                asked = api.post(f"/api/tasks/{task['task_id']}/cancel", json=reason)
                assert asked.status_code == 202, asked.text
            answer = receive(socket)
            while answer["type"] == "task_assign" != frame["type"]:
                answer = receive(socket)  # of another test's task, just before it signs off
            assert answer.keys() == frame.keys()
            assert answer["type"] == frame["type"]
            assert answer.get("status") == frame.get("status")
            if answer["type"] == "task_assign":
                task = answer


def receive(socket: ClientConnection) -> Json:
    frame: Json = json.loads(socket.recv(BOUND_S))
    return frame


def test_the_receipt_and_the_task_are_as_written(api: httpx.Client):
    written = [json.loads(example) for example in blocks(SUBMITTERS, "json")]
    receipt = next(w for w in written if "task_id" in w)
    task = next(w for w in written if "history" in w)
    answer = api.post("/api/tasks", json={"description": "x", "needed_capabilities": ["nobody"]})
    assert answer.json().keys() == receipt.keys()
    found = api.get(f"/api/tasks/{answer.json()['task_id']}").json()
    assert found.keys() == task.keys()
    for entry in found["history"]:
        example = next(e for e in task["history"] if e["event"] == entry["event"])
        assert entry.keys() == example.keys()
        assert entry["details"].keys() == example["details"].keys()


def test_the_reason_the_counts_and_the_hold_are_as_written(api: httpx.Client):
    written = [json.loads(example) for example in blocks(SUBMITTERS, "json")]
    task_id = submit(api, needed_capabilities=["nobody"])
    waiting = api.get(f"/api/tasks/{task_id}").json()["waiting"]
    assert waiting.keys() == next(w for w in written if "reason" in w and "missing" in w).keys()
    assert_alike(api.get("/api/tasks/stats").json(), next(w for w in written if "by_status" in w))
    place_hold(api)
    held = api.get("/api/holds").json()["holds"][0]
    assert held.keys() == next(w for w in written if "placed_by" in w).keys()
    assert api.get(f"/api/tasks/{task_id}").json()["waiting"]["hold"].keys() == held.keys()


def test_the_snapshot_is_as_written(hub: Hub, api: httpx.Client):
    [written] = [s for s in map(json.loads, blocks(VIEWERS, "json")) if "uptime_ms" in s]
    fill(hub, api)
    snapshot = api.get("/api/dashboard/state").json()
    assert_alike(snapshot, written)


def fill(hub: Hub, api: httpx.Client) -> None:
    """Something for every list of the snapshot: a completion, a dead letter, a lost agent."""
    lost = hub.token("lost")
    for outcome in ({"type": "task_complete", "result": {}}, {"type": "task_failed", "error": "x"}):
        submit(api, max_retries=1, priority="urgent", needed_capabilities=["fill"])
        with connect(hub.ws_url) as socket:
            socket.send(
                json.dumps(
                    {"type": "identify", "agent_id": "lost", "token": lost}
                    | {"capabilities": ["fill"]}
                )
            )
            while (task := receive(socket))["type"] != "task_assign":
                pass
            socket.send(json.dumps({**task, **outcome}))
            assert receive(socket)["type"] == "task_ack"
    give_up_at = time.monotonic() + BOUND_S
    while not api.get("/api/dashboard/state").json()["health"]["details"]:
        assert time.monotonic() < give_up_at, "a lost agent is no news to the worker"
        time.sleep(0.05)


def assert_alike(value: object, example: object, place: str = "it") -> None:
    """The same keys, and rows of the same shape where there are any."""
    if isinstance(example, dict):
        assert isinstance(value, dict), place
        assert value.keys() == example.keys(), place
        for key in example:
            assert_alike(value[key], example[key], f"{place}.{key}")
    if isinstance(example, list) and isinstance(value, list) and value:
        assert example, place
        assert_alike(value[0], example[0], f"{place}[0]")


# --- Names


def test_every_field_of_a_submission_and_of_a_hold_is_named():
    for heading, fields in (
        ("Submitting", FIELDS),
        ("Cancelling", CANCEL_FIELDS),
        ("Holds", HOLD_FIELDS),
    ):
        assert {row[0].strip("`") for row in table_rows(SUBMITTERS, heading)} == set(fields)


def test_the_defaults_of_a_submission_are_as_written():
    rows = {row[0].strip("`"): row[2].strip('`"') for row in table_rows(SUBMITTERS, "Submitting")}
    task = NewTask("")
    for name in ("max_retries", "max_reclaims", "max_rejections", "on_overdue"):
        assert rows[name] == str(getattr(task, name))
    for name in ("retry_backoff_s", "idle_timeout_s"):
        [(default, setting)] = re.findall(r"([\d,]+) \(`(\w+)`\)", rows[name])
        assert float(default.replace(",", "")) == settings.ENVIRONMENT[setting]


def test_every_reason_to_wait_is_named():
    calls = re.findall(r'_because\(\s*"(\w+)"', (ROOT / "fleet/waiting.py").read_text())
    rows = table_rows(SUBMITTERS, "Why a task waits")
    assert {row[0].strip("`") for row in rows} == set(calls)


def test_every_state_is_named():
    states = {row[0].strip("`") for row in table_rows(SUBMITTERS, "Agents")}
    assert states == set(AgentState.values)
    for status in Status.values:
        assert named(SUBMITTERS, status)


def test_every_word_for_a_reclaim_is_named():
    section = SUBMITTERS.split("\n## What the journal keeps\n")[1]
    for why in Why:
        assert named(section, why)


def test_every_message_of_agents_is_named_with_its_fields():
    rows = {row[0].strip("`"): row[1] for row in table_rows(AGENTS, "What an agent may say")}
    assert rows.keys() == protocol.MESSAGES.keys()
    for type, fields in protocol.MESSAGES.items():
        for name in fields:
            assert named(rows[type], name), f"{type} lacks {name}"
        optional = {name for name, field in fields.items() if not field.required}
        marked = set(re.findall(r"`(\w+)`\?", rows[type]))
        # one of the two has to be there, which no single field can say
        assert optional - {"error", "reason"} <= marked <= optional, type


def test_every_refusal_of_agents_is_named():
    for verb in VERBS.values():
        assert named(AGENTS, f"{verb.refused}: …")


def test_every_kind_of_the_journal_is_named_with_what_it_carries():
    rows = table_rows(SUBMITTERS, "What the journal keeps")
    details = {kind: row[1] for row in rows for kind in re.findall(r"`(\w+)`", row[0])}
    for kind, known in kinds().items():
        assert named(SUBMITTERS, kind)
        if kind.startswith("task_"):
            told = set(re.findall(r"`(\w+)`", details[kind].partition(", such")[0]))
            assert told == known.carries, kind


def test_every_event_of_dashboards_is_named_with_its_fields():
    rows = {row[0].strip("`"): row[1] for row in table_rows(VIEWERS, "Events of tasks")}
    assert {kind: re.findall(r"`(\w+)`", fields) for kind, fields in rows.items()} == {
        kind: list(move.shows) for kind, move in MOVES.items()
    }
    section = VIEWERS.split("\n## The dashboard's socket\n")[1].split("\n## ")[0]
    example = json.loads(blocks(section, "json")[0])
    others = {event["type"] for event in example["data"]} - {"task_event"}
    unsent = {
        *("agent_responded", "enrolment_created", "token_created", "token_revoked"),
        *("webhook_created", "webhook_changed", "webhook_removed"),
        *("webhook_enabled", "webhook_disabled"),
        *("tasks_pruned", "completions_pruned", "times_reset"),
    }
    assert others == kinds().keys() - MOVES.keys() - unsent


def test_every_act_of_viewers_is_named_with_its_answer_and_permission():
    section = VIEWERS.split("\n## What a viewer may say\n")[1].split("\n## ")[0]
    for type, act in ACTS.items():
        row = next(row for row in section.splitlines() if f'"type": "{type}"' in row)
        assert f'"type": "{act.answer}"' in row
        assert named(section, act.permission)


def test_what_patches_send_whole_is_named():
    [line] = [line for line in VIEWERS.splitlines() if "come as a whole" in line]
    assert set(re.findall(r"`(\w+)`", line)) == set(SECTIONS)


def test_every_health_condition_is_explained_to_both():
    codes = {code for code, _, _ in CHECKS} | {"database_silent", "worker_silent"}
    for page, heading in ((VIEWERS, "Health"), (OPERATIONS, "What the health light says")):
        assert {row[0].strip("`") for row in table_rows(page, heading)} == codes


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path):
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)\b", text, re.M)) <= targets
    commands = set(re.findall(r"(?:manage\.py |[`(]agentcom |^agentcom )([a-z]+)", text, re.M))
    assert commands <= get_commands().keys()


# --- Links


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


# --- Paths

SUFFIXES = {".py", ".js", ".css", ".html", ".md", ".toml", ".yaml", ".conf", ".service", ".example"}
NOT_OURS = {
    "my_agent.py",  # the reader makes it
    "var/",  # the first start does
    "var/demo",
    "nginx.conf",  # nginx has it
    "agentcom/rooms/",  # a wheel has it
}


@cache
def files() -> list[Path]:
    parts = [part for part in ROOT.iterdir() if not part.name.startswith((".", "var"))]
    found = [path for part in parts for path in (part, *part.rglob("*")) if path.is_file()]
    return [path for path in found if "__pycache__" not in path.parts]


@cache
def places() -> set[str]:
    """Every file and folder, by its path from each of the folders that it is in."""
    parts = [path.relative_to(ROOT).parts for path in files()]
    parts += [path[:depth] for path in parts for depth in range(1, len(path))]
    return {"/".join(path[start:]) for path in parts for start in range(len(path))}


def is_path(quoted: str) -> bool:
    if not re.fullmatch(r"[\w@-][\w.@-]*(/[\w.@-]+)*/?", quoted):
        return False
    begins_here = "/" in quoted and (ROOT / quoted.partition("/")[0]).is_dir()
    return begins_here or quoted.endswith("/") or Path(quoted).suffix in SUFFIXES


def quoted(page: Path) -> set[str]:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)
    return set(re.findall(r"`([^`\n]+)`", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_exist(page: Path):
    named = {name for name in quoted(page) if is_path(name)} - NOT_OURS
    assert {name for name in named if name.rstrip("/") not in places()} == set()


def test_what_a_room_is_said_to_hold_is_in_it():
    rows = table_rows((ROOT / "docs/architecture.md").read_text(), "The rooms")
    for room, holds, *_ in rows:
        folder = ROOT / room.strip("`")
        for name in filter(is_path, re.findall(r"`([^`]+)`", holds)):
            assert any(folder.rglob(name.rstrip("/"))), f"{name} in {room}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_file_is_said_to_hold_is_in_it(page: Path):
    """As in "`servable` in `fleet/dispatcher.py`" and "`Claim` (`tasks/queue.py`)"."""
    for name, path in re.findall(r"`(\w+)` (?:in |\()`([\w/]+\.\w+)`", page.read_text()):
        file = next(file for file in files() if file.as_posix().endswith(f"/{path}"))
        assert re.search(rf"\b{name}\b", file.read_text()), f"{name} in {path}"


def test_every_promise_of_security_is_tested():
    """The last cell of a row has links to files of tests, each with the names of tests in it."""
    rows = table_rows((ROOT / "docs/security.md").read_text(), "What is promised")
    assert len(rows) > 10
    for promise, tested in rows:
        files = re.findall(r"\]\(\.\./(tests/\S+\.py)\)([^\[]*)", tested)
        assert files, promise
        for file, names in files:
            defined = set(
                re.findall(r"^ *(?:async )?def (test_\w+)", (ROOT / file).read_text(), re.M)
            )
            named_there = set(re.findall(r"`(\w+)`", names))
            assert named_there, promise
            assert named_there - defined == set(), file


def test_pages_that_the_code_names_exist():
    for file in files():
        if file.suffix in SUFFIXES | {".toml", ".in", ".example"} or file.name == "Makefile":
            for page in re.findall(r"\bdocs/[\w/]+\.md", file.read_text()):
                assert (ROOT / page).exists(), f"{file}: {page}"


def test_the_exit_codes_are_those_of_the_command_line():
    page = (ROOT / "client/README.md").read_text()
    told = [row[:2] for row in table_rows(page, "Exit codes")]
    from agentcom_client.cli import EPILOG

    listed = re.findall(r"^ {2}(\d+) {2}(.+)$", EPILOG, re.M)
    assert [[code, said.replace("`", "")] for code, said in told] == [list(row) for row in listed]
