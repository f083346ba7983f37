"""A web process that is told to stop: whatever goes on, it ends well within ten seconds."""

from __future__ import annotations

import asyncio
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from agentcom.commit import WRITER_LOCK
from agentcom_client.connection import Connection
from agentcom_client.slot import COME_BACK
from lab.harness.hub import Cluster, Hub, Server
from lab.harness.proxy import Proxy
from lab.harness.store import on_postgresql
from lab.kit.agent import RawAgent
from lab.kit.sockets import HOST
from lab.kit.viewer import Viewer
from tests.cluster.conftest import address, socket_address

WITHIN_S = 10.0
MANY = 300
NAMES = [f"agent-{number}" for number in range(MANY)]
KINDS = {
    "hub": lambda folder: Hub(folder),
    "web": lambda folder: Cluster(folder, webs=1, workers=1),
}


@pytest.fixture(params=KINDS)
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    with KINDS[request.param](tmp_path) as hub:
        yield hub


async def stopped(web: Server) -> int:
    """Its exit code, once it has ended in time."""
    began = time.monotonic()
    code = await asyncio.to_thread(web.terminate)
    assert time.monotonic() - began < WITHIN_S
    return code


@contextmanager
def nobody_can_write(hub: Hub) -> Iterator[None]:
    """Every commit waits inside; reads go on."""
    if on_postgresql():
        with psycopg.connect(hub.environment["DATABASE_URL"], autocommit=True) as holder:
            holder.execute("SELECT pg_advisory_lock(%s)", [WRITER_LOCK])
            yield
        return
    file = hub.data_dir / "agentcom.sqlite3"
    with closing(sqlite3.connect(file, isolation_level=None, timeout=20)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield


def accepts(web: Server) -> bool:
    with socket.socket() as knocking:
        return knocking.connect_ex((HOST, web.port)) == 0


async def test_answers_what_was_asked_and_accepts_nothing_more(hub: Hub) -> None:
    [web] = hub.webs
    tokens = hub.tokens(["busy", "idle"])
    headers = {"Authorization": f"Bearer {tokens['busy']}"}
    async with (
        httpx.AsyncClient(base_url=address(web), headers=headers, timeout=20) as http,
        httpx.AsyncClient(base_url=address(web)) as probe,
        httpx.AsyncClient(base_url=address(web)) as readiness,
        httpx.AsyncClient(base_url=address(web)) as liveness,
        await Connection.open(socket_address(web)) as busy,
        await Connection.open(socket_address(web)) as idle,
    ):
        await busy.identify("busy", tokens["busy"])
        await http.post("/api/tasks", json={"description": "x"})
        task = await busy.next_push()
        await idle.identify("idle", tokens["idle"])
        probes = {"/health": probe, "/health/ready": readiness, "/health/live": liveness}
        for path, client in probes.items():
            assert (await client.get(path)).status_code == 200
        with nobody_can_write(hub):
            about = {"task_id": task["task_id"], "generation": task["generation"]}
            completing = asyncio.create_task(busy.request("task_complete", **about, result={}))
            submitting = asyncio.create_task(http.post("/api/tasks", json={"description": "y"}))
            await asyncio.sleep(0.3)  # until both are on their way
            web.send(signal.SIGTERM)
            await idle.socket.wait_closed()
            assert idle.socket.close_code == 1012
            assert COME_BACK.search(idle.socket.close_reason or "")
            assert not accepts(web)
            assert (await liveness.get("/health/live")).status_code == 200
            assert (await probe.get("/health")).status_code == 503
            refused = await readiness.get("/health/ready")
            assert (refused.status_code, refused.json()["detail"]) == (503, "this process stops")
        assert (await completing)["status"] == "complete"
        receipt = await submitting
        assert receipt.status_code == 201
        assert receipt.headers["Connection"] == "close"
        await busy.socket.wait_closed()
        assert busy.socket.close_code == 1012
        assert await asyncio.to_thread(web.ended) == 0  # a second SIGTERM would cut its end short
        await asyncio.to_thread(web.start)
        again = await probe.get(f"/api/dashboard/tasks/{receipt.json()['task_id']}")
        assert again.status_code == 200


@pytest.mark.parametrize("hub", ["hub"], indirect=True)  # which has the worker inside, too
async def test_does_not_wait_for_a_database_that_takes_nothing(hub: Hub) -> None:
    [web] = hub.webs
    token = hub.token("busy")
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(base_url=address(web), headers=headers, timeout=20) as http,
        await Connection.open(socket_address(web)) as agent,
    ):
        await agent.identify("busy", token)
        with nobody_can_write(hub):
            submitting = asyncio.create_task(http.post("/api/tasks", json={"description": "x"}))
            status = asyncio.create_task(agent.request("status", status="on my way"))
            await asyncio.sleep(0.3)  # until both are on their way
            assert await stopped(web) == 0
        await asyncio.wait([submitting, status])
        assert submitting.exception() or submitting.result().status_code == 503
        assert agent.socket.close_code == 1012


@pytest.mark.postgresql
async def test_does_not_wait_for_a_database_that_fell_silent(tmp_path: Path) -> None:
    hub = Cluster(tmp_path, webs=1, workers=1)
    with Proxy.before(hub.environment["DATABASE_URL"]) as wire:
        hub.environment["DATABASE_URL"] = wire.through(hub.environment["DATABASE_URL"])
        with hub:
            [web], [worker] = hub.webs, hub.workers
            agent = RawAgent("agent", hub.token("agent"))
            await agent.join(web.port)
            wire.stall()
            codes = [*await asyncio.gather(stopped(web), stopped(worker))]
            assert codes == [0, 0]


async def test_many_agents_and_a_viewer_that_does_not_read_delay_nothing(hub: Hub) -> None:
    [web] = hub.webs
    agents = [RawAgent(name, token) for name, token in hub.tokens(NAMES).items()]
    viewer = await Viewer.open(web.port)
    await viewer.snapshot()
    viewer.socket.transport.pause_reading()
    for start in range(0, MANY, 50):
        await asyncio.gather(*(agent.join(web.port) for agent in agents[start : start + 50]))
    assert await stopped(web) == 0
    codes = [await agent.socket.closed for agent in agents]
    viewer.close()
    await asyncio.sleep(0)  # the transport closes its socket in the next turn of the loop
    assert set(codes) == {1012}
