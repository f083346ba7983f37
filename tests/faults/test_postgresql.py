"""PostgreSQL that goes away, falls silent, or loses the answer to a commit."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab.harness.hub import Cluster
from lab.harness.proxy import CHUNK, Proxy
from lab.kit.fleet import Fleet, running
from lab.kit.sockets import HOST
from lab.kit.submitter import Submitter
from lab.kit.viewer import Viewer
from tests.faults.conftest import (
    check,
    codes,
    finish,
    until,
    until_answer,
    until_more,
)

pytestmark = pytest.mark.postgresql

AWAY_S = 3.0
LATE_S = 2.0
MARK = b"a-task-to-remember"
SETTINGS = {"AGENTCOM_COMMIT_TIMEOUT_S": "1"}
# The protocol's own bytes: a query, and the answer to it.
COMMIT, COMMITTED = b"Q\0\0\0\x0bCOMMIT\0", b"C\0\0\0\x0bCOMMIT\0"


@pytest.mark.parametrize("how", ["refuse", "stall"])
async def test_an_absence_loses_nothing_and_is_told(tmp_path: Path, how: str) -> None:
    hub = Cluster(tmp_path, webs=1, workers=1, **SETTINGS)
    with hub.wire("DATABASE_URL") as wire, hub:
        try:
            await absence(hub, wire, how)
        finally:
            wire.restore()  # or the hub could not end in good order


async def absence(hub: Cluster, wire: Proxy, how: str) -> None:
    tokens = hub.tokens(["a-1", "a-2", "a-3", "submitter"])
    submitter = Submitter(hub.url, tokens.pop("submitter"))
    fleet = Fleet(hub.ws_url, tokens)
    [worker] = hub.workers
    workers_pid = worker.pid
    async with running(fleet, submitter), await Viewer.open(hub.port) as viewer:
        viewer.subscribe()
        await until_more(fleet.completed, 10)

        getattr(wire, how)()
        before = len(submitter.acked)
        away = asyncio.create_task(asyncio.sleep(AWAY_S))
        await until_more(submitter.refused, 1)
        assert int(submitter.refused[-1].headers["Retry-After"]) > 0
        await until_answer(f"{hub.url}/health", lambda a: a.status_code == 503)
        async with httpx.AsyncClient(base_url=hub.url, timeout=1) as probe:
            assert (await probe.get("/health/live")).status_code == 200
        await until_answer(f"{hub.url}/health/ready", lambda a: a.status_code == 503)
        await until(lambda: "database_silent" in codes(viewer))
        async with httpx.AsyncClient(base_url=hub.url, timeout=5) as scraper:
            metrics = (await scraper.get("/metrics")).text  # without the database
        assert "agentcom_health_light 2.0" in metrics
        assert 'agentcom_health_condition{code="database_silent"} 1.0' in metrics
        await away
        assert len(submitter.acked) <= before + 1  # one may have been on its way

        wire.restore()
        await until_more(fleet.completed, 10)
        await until_answer(f"{hub.url}/health", lambda a: a.status_code == 200)
        await until(lambda: not codes(viewer))
        await finish(fleet, submitter)
    check(hub, fleet, submitter)
    assert set(fleet.identified.values()) == {1}  # no agent lost its socket
    assert worker.is_running
    assert worker.pid == workers_pid
    assert "the worker resumes" in worker.log or how == "stall"  # a short silence it sits out


class Wire(Proxy):
    """Lets the commit of whatever mentions `MARK` meet its fate; once."""

    def __init__(self, host: str, port: int) -> None:
        self.fate = ""
        self.met = threading.Event()
        self._loses_answer = False
        super().__init__(host, port)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_marked = False
        while data := await reader.read(CHUNK):
            is_marked = is_marked or MARK in data
            if self._loses_answer and COMMITTED in data:
                self._loses_answer = False
                break
            if is_marked and COMMIT in data and not self.met.is_set():
                self.met.set()
                await self._meet(reader)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def _meet(self, client: Any) -> None:
        match self.fate:
            case "arrives, its answer does not":
                self._loses_answer = True
            case "arrives after its connection broke":
                client._transport.abort()
                await asyncio.sleep(LATE_S)
            case "never arrives":
                await asyncio.Event().wait()


@pytest.mark.parametrize(
    "fate",
    ["arrives, its answer does not", "arrives after its connection broke", "never arrives"],
)
async def test_a_commit_that_gets_lost_counts_once_and_holds_up_no_other(
    tmp_path: Path, fate: str
) -> None:
    hub = Cluster(tmp_path, webs=2, workers=1, AGENTCOM_COMMIT_TIMEOUT_S="30")
    url = hub.environment["DATABASE_URL"]
    with Wire.before(url) as wire:
        assert isinstance(wire, Wire)
        wire.fate = fate
        unlucky, other = hub.webs
        unlucky.reroute(DATABASE_URL=wire.through(url))
        with hub:
            token = hub.token("submitter")
            first = asyncio.create_task(submit(unlucky.port, token, MARK.decode()))
            await until(wire.met.is_set)
            await submit(other.port, token, "another")
            await first
            assert sorted(hub.rows("SELECT description FROM tasks_task")) == [
                (MARK.decode(),),
                ("another",),
            ]
            told = hub.rows("SELECT kind FROM agentcom_event WHERE kind = 'task_submitted'")
            assert len(told) == 2


async def submit(port: int, token: str, description: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=40) as http:
        answer = await http.post(
            f"http://{HOST}:{port}/api/tasks", json={"description": description}
        )
    assert answer.status_code == 201, answer.text
