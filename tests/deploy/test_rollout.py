"""A rolling restart as deploy/kubernetes does it: a new process first, then an old one stops.

There is no cluster: `Service` stands for the way from clients to the processes that are ready.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from agentcom_client import Task
from lab.harness.hub import Cluster, Server
from lab.kit.fleet import Fleet, running
from lab.kit.sockets import HOST
from lab.kit.submitter import Submitter
from tests.deploy.test_kubernetes import PROBES, WEB, WORKER

AGENTS = 30
MORE = 30  # tasks done between two steps
BATCH = 5
READY_S, BOUND_S = 30, 150
CHUNK = 65_536


class Service:
    """One address for all clients: each new connection goes to one of the processes in `ready`.
    Those that are open stay where they are."""

    def __init__(self) -> None:
        self.ready: list[int] = []  # ports
        self.refused = 0
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with await asyncio.start_server(self._connect, HOST, 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(HOST, random.choice(self.ready))
        except OSError:
            self.refused += 1
            writer.close()
            return
        await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                writer.write(data)
                await writer.drain()
        writer.close()


async def until_ready(web: Server) -> None:
    """As the kubelet finds out."""
    async with asyncio.timeout(READY_S), httpx.AsyncClient() as http:
        while True:
            with suppress(httpx.TransportError):
                path = PROBES["readiness"]["path"]
                if (await http.get(f"http://{HOST}:{web.port}{path}")).status_code == 200:
                    return
            await asyncio.sleep(0.1)


async def exchange_web(cluster: Cluster, service: Service, old: Server, number: int) -> None:
    """maxSurge 1, maxUnavailable 0; while preStop waits, the Service hears that one is leaving."""
    new = cluster._web(number)
    cluster.webs.append(new)
    new.launch()
    await until_ready(new)
    service.ready.append(new.port)
    service.ready.remove(old.port)
    assert await asyncio.to_thread(old.terminate) == 0


async def exchange_worker(old: Server) -> None:
    """maxSurge 0, maxUnavailable 1; the other one acts."""
    assert await asyncio.to_thread(old.terminate) == 0
    await asyncio.to_thread(old.start)


async def work(task: Task) -> dict[str, Any]:
    await asyncio.sleep(random.uniform(0, 0.3))
    return {}


async def test_a_rollout_under_load_loses_and_repeats_nothing(tmp_path: Path):
    """Sooner than Kubernetes would go on: the next one follows as soon as work is done again."""
    size = (WEB["spec"]["replicas"], WORKER["spec"]["replicas"])
    service = Service()
    with Cluster(tmp_path, *size) as cluster:
        tokens = cluster.tokens([*(f"worker-{number}" for number in range(AGENTS)), "submitter"])
        token = tokens.pop("submitter")
        service.ready = [web.port for web in cluster.webs]
        async with asyncio.timeout(BOUND_S), service.serving():
            submitter = Submitter([f"http://{HOST}:{service.port}"], token, BATCH)
            fleet = Fleet(f"ws://{HOST}:{service.port}/ws", tokens, work)
            async with running(fleet):
                async with running(submitter):
                    for number, old in enumerate([*cluster.webs], start=len(cluster.webs)):
                        await fleet.until_completed(len(fleet.completed) + MORE)
                        await exchange_web(cluster, service, old, number)
                    for old in cluster.workers:
                        await fleet.until_completed(len(fleet.completed) + MORE)
                        await exchange_worker(old)
                    await fleet.until_completed(len(fleet.completed) + MORE)
                await fleet.until_completed(len(submitter.acked))

    assert not submitter.refused
    assert fleet.completed == Counter(submitter.acked)  # none lost, none done twice
    assert {generation for _, generation in fleet.handed} == {1}  # no work was repeated
    assert service.refused == 0  # nobody was sent to a process that listens no more
    assert min(fleet.identified[agent] for agent in tokens) >= 2  # each had to move
