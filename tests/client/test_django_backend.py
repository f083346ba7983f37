"""`agentcom_client.django` and `run-django`: a small Django project, its workers, and a real hub.

The project is in django_project, and runs with Django 6 in a Python of its own (django6.py); what
its code does and then holds is in cases.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lab.harness.hub import Hub
from lab.harness.store import ROOT, environment
from tests.client import django6
from tests.client.conftest import Cli

SETTINGS = {"AGENTCOM_RECLAIM_GRACE_S": "0.5", "AGENTCOM_WORKER_TICK_S": "0.2"}
PROJECT = "tests.client.django_project"


@pytest.fixture(scope="session")
def python() -> str:
    return django6.python()


class Project:
    """A Django project, with the hub's address and a token in its environment."""

    def __init__(
        self, python: str, hub: Hub, identities: Iterator[tuple[str, str]], folder: Path, name: str
    ) -> None:
        self._python = python
        self._identities = identities
        self._folder = folder
        self.name = name
        self.notes = folder / "notes"
        self.environment = environment(
            AGENTCOM_URL=hub.url,
            AGENTCOM_CONFIG=str(folder / "client.json"),
            DJANGO_SETTINGS_MODULE=f"{PROJECT}.settings",
            PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "client")]),
            PYTHONWARNINGS="error",
            PROJECT=name,
            DATABASE=str(folder / "project.sqlite3"),
            NOTES=str(self.notes),
        )

    async def start(self, *arguments: str, **more: str) -> Process:
        _, token = next(self._identities)
        return await asyncio.create_subprocess_exec(
            self._python, "-m", *arguments,
            stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=self._folder,
            env={**self.environment, "AGENTCOM_TOKEN": token, **more},
        )  # fmt: skip

    async def holds(self, case: str, **more: str) -> str:
        """Run a function of cases.py; gives what it printed."""
        process = await self.start(f"{PROJECT}.cases", case, **more)
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, err.decode()
        return out.decode() + err.decode()

    @asynccontextmanager
    async def worker(self, *arguments: str) -> AsyncIterator[Process]:
        process = await self.start("agentcom_client", "run-django", *arguments)
        assert process.stderr is not None
        try:
            said = await asyncio.wait_for(process.stderr.readline(), 30)
            assert b"is connected" in said, said + await process.stderr.read()
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            _, err = await asyncio.wait_for(process.communicate(), 30)
            print(err.decode())


@pytest.fixture
def project(
    python: str, hub: Hub, identities: Iterator[tuple[str, str]], tmp_path: Path, skill: str
) -> Project:
    return Project(python, hub, identities, tmp_path, skill)


async def test_results_and_arguments_are_as_they_were(project: Project):
    async with project.worker("--concurrency", "2"):
        await project.holds("results")
        await project.holds("coroutines")
    notes = project.notes.read_text().splitlines()
    assert notes[:2] == ["started add 1", "finished add SUCCESSFUL"]


async def test_failures_have_class_and_traceback_and_are_retried_if_wanted(project: Project):
    async with project.worker():
        await project.holds("failures")
    notes = project.notes.read_text().splitlines()
    assert notes[:2] == ["started fails 1", "finished fails FAILED"]
    begun = notes.index("started succeeds_at 1")
    assert notes[begun : begun + 4] == [
        "started succeeds_at 1",
        "started succeeds_at 2",
        "started succeeds_at 3",
        "finished succeeds_at SUCCESSFUL",
    ]


async def test_what_a_submission_needs_and_when_it_starts(project: Project):
    await project.holds("submissions")


async def test_nothing_is_run_but_what_the_project_has_enqueued(project: Project):
    async with project.worker():
        await project.holds("strangers")


async def test_a_task_that_is_cancelled_can_stop(project: Project):
    async with project.worker():
        await project.holds("cancelled")
    assert project.notes.read_text().splitlines() == [
        "started stops 1",
        "stops when it is cancelled",
        "finished stops FAILED",
    ]


async def test_a_worker_serves_the_queues_that_it_is_told(project: Project):
    async with project.worker("--queue", "mail"):
        await project.holds("queues")


async def test_a_task_of_a_worker_that_dies_is_run_by_another(project: Project):
    async with project.worker() as first:
        process = await project.start(f"{PROJECT}.cases", "lost_workers")
        assert process.stdout is not None
        said = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
        assert said["pid"] == first.pid
        first.kill()
        project.notes.with_name("go on").touch()
        async with project.worker():
            _, err = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 0, err.decode()


async def test_a_worker_that_is_stopped_ends_its_task_first(project: Project):
    async with project.worker() as worker:
        process = await project.start(f"{PROJECT}.cases", "stopped")
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), 30)
        worker.send_signal(signal.SIGTERM)
        project.notes.with_name("go on").touch()
        _, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, err.decode()
        await asyncio.wait_for(worker.wait(), 30)
        assert worker.returncode == 0


async def test_mistakes_are_said_at_the_start(project: Project):
    for said, arguments, more in (
        ("Say which project", (), {"DJANGO_SETTINGS_MODULE": ""}),
        ("TASKS has no 'nothing'", ("--backend", "nothing"), {}),
        ("CAPABILITES, which is not known", (), {"MORE_OPTIONS": '{"CAPABILITES": []}'}),
        ("No module named 'no_settings'", ("--settings", "no_settings"), {}),
    ):
        process = await project.start("agentcom_client", "run-django", *arguments, **more)
        _, err = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 2, err.decode()
        assert said in err.decode()


async def test_without_a_token_the_project_is_warned(project: Project):
    said = await project.holds("checks", AGENTCOM_TOKEN="")
    assert "(agentcom_client.W001) TASKS['default'] cannot enqueue. There is no token" in said


async def test_an_older_django_is_said_so(cli: Cli):
    (cli.folder / "django.py").write_text("VERSION = (5, 2)")  # is found before the installed one
    ended = await cli("run-django", "--settings", "project.settings")
    assert ended.code == 2
    assert 'pip install "agentcom-client[django]"' in ended.err
