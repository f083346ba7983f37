"""`manage.py runworker`, as a real process; also beside web processes."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx
import pytest

from agentcom_client.connection import Connection
from lab.harness.hub import Hub, web_command
from lab.harness.store import ROOT
from lab.kit.viewer import Viewer

BOUND_S = 30
VISIBLE_WITHIN_S = 2.0
SETTINGS = {"AGENTCOM_RECLAIM_GRACE_S": "0.5"}


class Running:
    """A process and the lines that it has logged."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def until(self, text: str) -> None:
        """Wait for a line with this text."""
        assert self.process.stderr is not None
        async with asyncio.timeout(BOUND_S):
            while line := (await self.process.stderr.readline()).decode():
                self.lines.append(line)
                if text in line:
                    return
        raise AssertionError(f"It ended without {text!r}:\n{''.join(self.lines)}")

    async def end(self, signum: int) -> int:
        """Send a signal and give the exit code."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signum)
        return await self.ended()

    async def ended(self) -> int:
        """Give the exit code, after the last line."""
        async with asyncio.timeout(BOUND_S):
            _, rest = await self.process.communicate()
            self.lines += rest.decode().splitlines(keepends=True)
            return await self.process.wait()


Start = Callable[..., Awaitable[Running]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """Port, database and settings of the processes; the hub itself does not run."""
    return Hub(tmp_path_factory.mktemp("site"), **SETTINGS)


@pytest.fixture
async def start(site: Hub) -> AsyncIterator[Start]:
    """Start a process of the site, or of another one; all are ended after the test."""
    async with AsyncExitStack() as running:

        async def start(*arguments: str, site: Hub = site) -> Running:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *arguments, cwd=ROOT, env=site.environment, stderr=PIPE
            )
            started = Running(process)
            running.push_async_callback(started.end, signal.SIGKILL)
            return started

        yield start


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_after_its_last_tick(
    signum: signal.Signals, site: Hub, start: Start
):
    worker = await start("manage.py", "runworker")
    await worker.until("This worker acts")
    assert await worker.end(signum) == 0
    assert "finished its last tick" in worker.lines[-1]


async def test_a_second_one_stands_by_until_the_first_ends(start: Start):
    first = await start("manage.py", "runworker")
    await first.until("This worker acts")
    second = await start("manage.py", "runworker")
    await second.until("stands by")
    await first.end(signal.SIGTERM)
    await second.until("This worker acts")


async def test_an_old_database_is_refused_with_the_remedy(start: Start, tmp_path: Path):
    site = Hub(tmp_path)
    site.manage("migrate", "dashboard", "zero")
    worker = await start("manage.py", "runworker", site=site)
    await worker.until("run `manage.py migrate` first")
    assert await worker.ended() == 1


async def test_with_channel_names_it_is_the_one_of_channels(start: Start):
    worker = await start("manage.py", "runworker", "thumbnails")
    await worker.until("Running worker for channels ['thumbnails']")


async def test_beside_web_processes_its_health_and_reclaims_reach_the_dashboards(
    start: Start, tmp_path: Path
):
    site = Hub(tmp_path, **SETTINGS)  # on which no worker has reported yet
    await start(*web_command(site.server, site.port), site=site)
    await answer(site)
    token = site.token("a-1")
    async with asyncio.timeout(BOUND_S), await Viewer.open(site.port) as viewer:
        health = (await viewer.snapshot())["health"]
        assert [detail["code"] for detail in health["details"]] == ["worker_silent"]

        worker = await start("manage.py", "runworker", site=site)
        await worker.until("Health is ok")
        reported_at = time.monotonic()
        await viewer.until(lambda seen: any(e["type"] == "health_changed" for e in seen.events))
        assert time.monotonic() - reported_at < VISIBLE_WITHIN_S

        task_id = await submit(site, token)
        agent = await Connection.open(site.ws_url)
        async with agent:
            await agent.identify("a-1", token)
            while (push := await agent.next_push())["type"] != "task_assign":
                pass
            await agent.request("task_accepted", task_id=task_id, generation=push["generation"])
            agent.cut()
        await viewer.until_event(task_id, "task_reclaimed")
        [reclaimed] = [e for e in viewer.events if e.get("event") == "task_reclaimed"]
        assert time.time() - reclaimed["timestamp"] / 1000 < VISIBLE_WITHIN_S
        offline = ["1 agent is offline: a-1"]
        await viewer.until(lambda seen: any(e.get("conditions") == offline for e in seen.events))


async def answer(site: Hub) -> None:
    """Wait until the web process answers."""
    async with asyncio.timeout(BOUND_S), httpx.AsyncClient(base_url=site.url) as client:
        while True:
            with suppress(httpx.TransportError):
                if (await client.get("/health")).status_code == 200:
                    return
            await asyncio.sleep(0.05)


async def submit(site: Hub, token: str) -> str:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=site.url, headers=headers) as client:
        answer = await client.post("/api/tasks", json={"description": "Something to do"})
        task_id: str = answer.json()["task_id"]
        return task_id
