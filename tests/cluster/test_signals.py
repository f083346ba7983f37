"""Who is stopped ends well: at any moment, and also when the terminal is gone."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from agentcom_client.connection import Connection
from agentcom_client.slot import COME_BACK
from lab.harness.hub import Cluster, Hub
from lab.harness.store import ROOT
from tests.cluster.conftest import socket_address

COMMANDS = ["hub", "runworker"]
KINDS: dict[str, Callable[[Path], Hub]] = {
    "hub": Hub,
    "web": lambda folder: Cluster(folder, webs=1, workers=1),
}


@asynccontextmanager
async def starting(hub: Hub, *arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, env=hub.environment, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("command", COMMANDS)
async def test_ends_well_while_it_is_still_loaded(
    tmp_path: Path, command: str, signum: signal.Signals
) -> None:
    """Python names each module that it has loaded: one of them is early enough."""
    async with starting(Hub(tmp_path), "-X", "importtime", "manage.py", command) as process:
        assert process.stderr is not None
        while b" django.utils.version" not in (line := await process.stderr.readline()):
            assert line, "it ended before"
        process.send_signal(signum)
        await process.stderr.read()
        assert await process.wait() == 0


@pytest.mark.sqlite_only
async def test_ends_well_while_it_migrates(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    file = tmp_path / "agentcom.sqlite3"
    file.unlink()  # a first start
    with closing(sqlite3.connect(file, isolation_level=None)) as holder:
        holder.execute("PRAGMA journal_mode=WAL")
        holder.execute("BEGIN IMMEDIATE")  # the first migration waits for it
        async with starting(hub, "-X", "importtime", "manage.py", "hub") as process:
            assert process.stderr is not None
            while b" django.db.migrations.executor" not in await process.stderr.readline():
                pass
            process.send_signal(signal.SIGTERM)
            await process.stderr.read()
            assert await process.wait() == 0
    hub.manage("migrate")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_hangup_is_a_planned_stop(tmp_path: Path, kind: str) -> None:
    """Two of them: one comes from the terminal, one from the shell in it."""
    with KINDS[kind](tmp_path) as hub:
        [web] = hub.webs
        async with await Connection.open(socket_address(web)) as agent:
            await agent.identify("a-1", hub.token("a-1"))
            web.send(signal.SIGHUP)
            web.send(signal.SIGHUP)
            await agent.socket.wait_closed()
            assert agent.socket.close_code == 1012
            assert COME_BACK.search(agent.socket.close_reason or "")
        assert await asyncio.to_thread(web.ended) == 0
        for worker in hub.workers:
            worker.send(signal.SIGHUP)
            assert await asyncio.to_thread(worker.ended) == 0
            assert "finished its last tick" in worker.log


@pytest.mark.parametrize("kind", KINDS)
async def test_who_was_started_to_outlive_its_terminal_does(tmp_path: Path, kind: str) -> None:
    hub = KINDS[kind](tmp_path)
    for server in hub.servers:
        server._command = ["nohup", *server._command]
    with hub:
        [web] = hub.webs
        async with await Connection.open(socket_address(web)) as agent:
            for server in hub.servers:
                server.send(signal.SIGHUP)
            await agent.identify("a-1", hub.token("a-1"))
        codes = [await asyncio.to_thread(server.terminate) for server in hub.servers]
        assert set(codes) == {0}
