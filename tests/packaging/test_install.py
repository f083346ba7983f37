"""The hub as pip installs it: from wheels, into an empty environment, outside any checkout.

Needs the package index: the packages that the wheels depend on are downloaded, or come from pip's
cache.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from lab.harness.hub import free_port
from lab.harness.store import ROOT, environment

pytestmark = pytest.mark.sqlite_only

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
BUILD = ("--no-deps", "--no-build-isolation", "--quiet")
ROOMS = {"counters", "dashboard", "fleet", "metrics", "tasks", "templates", "webhooks", "worker"}
BOUND_S = 600


@dataclass
class Installation:
    """An environment with the hub in it, and a home of its own where its data goes."""

    folder: Path

    @property
    def programs(self) -> Path:
        return self.folder / "env" / ("Scripts" if os.name == "nt" else "bin")

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def environment(self) -> dict[str, str]:
        foreign = ("PYTHON", "VIRTUAL_ENV", "XDG_", "DJANGO_")
        kept = {
            name: value for name, value in environment().items() if not name.startswith(foreign)
        }
        return {**kept, "HOME": str(self.home)}

    def start(self, *command: str, **settings: str) -> subprocess.Popen[str]:
        program, *arguments = command
        return subprocess.Popen(
            [self.programs / program, *arguments],
            cwd=self.home,
            env={**self.environment, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, **settings: str) -> str:
        """What the command writes to standard output; it has to succeed."""
        code, output, errors = self._ended(*command, **settings)
        assert code == 0, output + errors
        return output

    def refuse(self, *command: str, **settings: str) -> str:
        """What the command writes to standard error; it has to end with exit code 1."""
        code, output, errors = self._ended(*command, **settings)
        assert code == 1, output + errors
        return errors

    def _ended(self, *command: str, **settings: str) -> tuple[int, str, str]:
        with self.start(*command, **settings) as process:
            output, errors = process.communicate(timeout=BOUND_S)
        return process.returncode, output, errors


@dataclass
class RunningHub:
    installation: Installation
    hello: str
    url: str


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of the hub, built from its source distribution, and of the client."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    [source] = folder.glob("agentcom-*.tar.gz")
    to_wheels = ("wheel", *BUILD, "--wheel-dir", folder)
    subprocess.run([*PIP, *to_wheels, source, ROOT / "client"], check=True, timeout=BOUND_S)
    return sorted(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installation(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """What the wheels themselves ask for, and nothing else, in the versions of the lock."""
    made = Installation(tmp_path_factory.mktemp("installed"))
    made.home.mkdir()
    venv.create(made.folder / "env", with_pip=False)
    lock = (ROOT / "requirements.txt").read_text()
    constraints = made.folder / "constraints.txt"
    constraints.write_text("\n".join(re.findall(r"^(\w\S*==.*?) \\$", lock, re.M)))
    python = made.programs / "python"
    install = ("--python", python, "install", "--quiet", "--constraint", constraints)
    subprocess.run([*PIP, *install, *wheels], check=True, timeout=BOUND_S)
    return made


@pytest.fixture(scope="module")
def hub(installation: Installation) -> Iterator[RunningHub]:
    port = free_port()
    process = installation.start("agentcom", "hub", AGENTCOM_PORT=str(port))
    assert process.stdout is not None
    hello = ""
    for line in process.stdout:
        hello += line
        if line.startswith("Ctrl-C"):
            break
    try:
        yield RunningHub(installation, hello, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        _, log = process.communicate(timeout=BOUND_S)
    assert process.returncode == 0, log
    assert "Traceback" not in log


def test_only_two_modules_are_at_the_top_of_the_environment(installation: Installation):
    listed = (
        "import agentcom, pathlib; print(*pathlib.Path(agentcom.__file__).parents[1].iterdir())"
    )
    found = {Path(path).name for path in installation.run("python", "-c", listed).split()}

    assert {"agentcom", "agentcom_client", "django"} <= found
    assert not found & {*ROOMS, "client", "deploy", "docs", "hatch_build.py", "lab", "tests"}
    assert not found & {"psycopg", "channels_redis", "redis"}  # they are extras
    assert "No module named 'tasks'" in installation.refuse("python", "-c", "import tasks")


def test_another_program_with_a_module_of_a_rooms_name(installation: Installation):
    (installation.home / "tasks.py").write_text("raise ImportError('the tasks of somebody else')")
    try:
        installation.run("python", "-m", "agentcom", "check")
    finally:
        (installation.home / "tasks.py").unlink()


def test_the_data_is_in_the_users_folder(hub: RunningHub):
    [data] = re.findall(r"^  Data +(.+)$", hub.hello, re.M)

    file = Path(data)
    assert file.is_relative_to(hub.installation.home)
    assert file.name == "agentcom.sqlite3"
    assert file.exists()
    assert (file.parent / "secret_key").exists()


def test_a_relative_data_folder_begins_in_the_current_one(installation: Installation):
    installation.run("agentcom", "migrate", "-v", "0", AGENTCOM_DATA_DIR="here")

    assert (installation.home / "here" / "agentcom.sqlite3").exists()


def test_a_command_is_an_agent_and_completes_a_task(hub: RunningHub):
    assert "agentcom token create my-agent\n" in hub.hello
    token = hub.installation.run("agentcom", "token", "create", "my-agent").strip()
    client = {"AGENTCOM_URL": hub.url, "AGENTCOM_TOKEN": token}
    command = ("sh", "-c", 'echo "heard: $AGENTCOM_TASK_DESCRIPTION"')
    agent = hub.installation.start(
        "agentcom-client", "run", "--tasks", "1", "--", *command, **client
    )
    with agent:
        submit = ("submit", "Say hello", "--wait", "--timeout", "60")
        try:
            said = hub.installation.run("agentcom-client", *submit, **client)
            agent.communicate(timeout=60)
        finally:
            agent.terminate()
    assert "heard: Say hello" in said
    assert agent.returncode == 0


@pytest.mark.parametrize("page", ["/dashboard", "/admin/login/", "/api/docs"])
def test_pages_come_with_their_files(hub: RunningHub, page: str):
    answer = httpx.get(hub.url + page)

    assert answer.status_code == 200
    files = re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text)
    assert files
    for file in files:
        assert httpx.get(hub.url + file).status_code == 200, file


def test_the_page_names_a_command_that_exists(hub: RunningHub):
    page = httpx.get(hub.url + "/dashboard").text

    assert "$(agentcom token create my-agent)" in page
    assert "manage.py" not in page


def test_all_commands_are_there(installation: Installation):
    commands = set(installation.run("agentcom", "help", "--commands").split())

    assert {"hub", "worker", "runworker", "token", "export", "simulate", "migrate"} <= commands
    assert "bench" not in commands
    assert "usage: agentcom worker" in installation.run("agentcom", "worker", "--help")
    assert installation.run("agentcom", "--version").startswith("AgentCom ")


def test_what_is_not_migrated_names_the_command_of_here(installation: Installation):
    said = installation.refuse("agentcom", "worker", AGENTCOM_DATA_DIR="empty")

    assert "run `agentcom migrate` first" in said


@pytest.mark.parametrize(
    ("extra", "name", "url"),
    [
        ("postgres", "DATABASE_URL", "postgres://me:hush@db.invalid/hub"),
        ("redis", "REDIS_URL", "redis://:hush@redis.invalid/0"),
    ],
)
def test_an_extra_that_is_missing_is_named(installation: Installation, extra, name, url):
    said = installation.refuse("agentcom", "hub", **{name: url})

    assert f"{name} needs " in said
    assert f'which is not installed: pip install "agentcom[{extra}]".' in said
    assert "Traceback" not in said
    assert "hush" not in said
