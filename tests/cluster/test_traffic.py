"""Many tasks, agents and viewers at two web processes, also while these are restarted."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx
import pytest

from fleet.client import Agent, Message, Task
from lab.harness.clients import WebSocket
from lab.harness.hub import Cluster, Hub, Server
from tests.at_work import Fleet
from tests.cluster.conftest import address

SETTINGS = {"AGENTCOM_WORKER_TICK_S": "0.5"}  # and the usual grace: nobody is late
AGENTS = 50
TASKS = 150  # of each submitter
MORE = 30  # tasks done between two steps
BATCH = 5
VIEWERS = 100
SNAPSHOTS_A_SECOND = 10
SNAPSHOT = b'{"type":"snapshot","data":'


class WideFleet(Fleet):
    """Agents that know all addresses, and what the hub told them."""

    def __init__(self, hub: Hub, tokens: dict[str, str]) -> None:
        self.handed: dict[tuple[str, int], list[str]] = defaultdict(list)  # agents by assignment
        self.done: list[str] = []  # tasks, as acked
        self.agents = [
            Agent(
                hub.ws_urls(number),
                agent_id,
                token,
                self._work,
                observe=self._observer(agent_id),
            )
            for number, (agent_id, token) in enumerate(tokens.items())
        ]

    async def until_done(self, count: int) -> None:
        while True:
            if len(self.done) >= count:
                return
            await asyncio.sleep(0.05)

    async def _work(self, task: Task) -> dict[str, Any]:
        await asyncio.sleep(random.uniform(0, 0.3))
        return {}

    def _observer(self, agent_id: str) -> Any:
        def observe(message: Message) -> None:
            match message:
                case {"type": "task_assign", "task_id": task_id, "generation": generation}:
                    self.handed[task_id, generation].append(agent_id)
                case {"type": "task_ack", "task_id": task_id, "status": "complete"}:
                    self.done.append(task_id)

        return observe


class Submitter:
    """As a careful client does it: when it fails the same again with the same key, elsewhere."""

    def __init__(self, webs: Sequence[Server], token: str, least: int = 0) -> None:
        self.acked: list[str] = []  # task ids
        self._webs = webs
        self._least = least
        self._headers = {"Authorization": f"Bearer {token}"}

    async def run(self, enough: asyncio.Event) -> None:
        async with httpx.AsyncClient(headers=self._headers, timeout=30) as http:
            while not enough.is_set() or len(self.acked) < self._least:
                await self._submit(http, secrets.token_hex(8))
                await asyncio.sleep(0.05)

    async def _submit(self, http: httpx.AsyncClient, key: str) -> None:
        for attempt in range(100):
            web = self._webs[attempt % len(self._webs)]
            with suppress(httpx.TransportError):
                answer = await http.post(
                    f"{address(web)}/api/tasks",
                    json=[{"description": key}] * BATCH,
                    headers={"Idempotency-Key": key},
                )
                assert answer.status_code == 201, answer.text
                self.acked += [receipt["task_id"] for receipt in answer.json()["tasks"]]
                return
            await asyncio.sleep(0.05)
        raise AssertionError("no process takes it")


async def completed(web: Server) -> int:
    async with httpx.AsyncClient() as http:
        state = (await http.get(f"{address(web)}/api/dashboard/state")).json()
    assert state["queue"]["by_status"]["queued"] == state["queue"]["by_status"]["assigned"] == 0
    counted: int = state["throughput"]["completed_last_hour"]
    assert counted == state["queue"]["by_status"]["completed"]
    return counted


async def test_both_processes_restarted_under_load_lose_and_repeat_nothing(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "fleet.client")
    tokens = cluster.tokens([*(f"worker-{number}" for number in range(AGENTS)), "submitter"])
    token = tokens.pop("submitter")
    submitters = [Submitter(webs, token) for webs in (cluster.webs, cluster.webs[::-1])]
    fleet = WideFleet(cluster, tokens)
    enough = asyncio.Event()
    before = await completed(cluster.webs[0])
    async with fleet.at_work():
        submitting = [asyncio.create_task(each.run(enough)) for each in submitters]
        for web in cluster.webs:
            await fleet.until_done(len(fleet.done) + MORE)
            assert await asyncio.to_thread(web.terminate) == 0
            await fleet.until_done(len(fleet.done) + MORE)
            await asyncio.to_thread(web.start)
        enough.set()
        await asyncio.gather(*submitting)
        acked = [task_id for each in submitters for task_id in each.acked]
        await fleet.until_done(len(acked))

    assert sorted(fleet.done) == sorted(acked)  # none lost, none done twice
    assert await completed(cluster.webs[0]) - before == len(acked)
    assert {generation for _, generation in fleet.handed} == {1}  # no work was repeated
    assert all(len(set(agents)) == 1 for agents in fleet.handed.values())
    losses = [line for line in caplog.messages if "lost the hub" in line]
    assert len([line for line in losses if "1012" in line]) >= AGENTS
    assert not [line for line in losses if "no close frame" in line]


async def test_no_assignment_is_pushed_twice(cluster: Cluster):
    tokens = cluster.tokens([*(f"claimer-{number}" for number in range(20)), "streamer"])
    token = tokens.pop("streamer")
    submitters = [Submitter(webs, token, TASKS) for webs in (cluster.webs, cluster.webs[::-1])]
    fleet = WideFleet(cluster, tokens)
    enough = asyncio.Event()
    enough.set()
    async with fleet.at_work():
        await asyncio.gather(*(each.run(enough) for each in submitters))
        acked = [task_id for each in submitters for task_id in each.acked]
        await fleet.until_done(len(acked))
    assert sorted(fleet.done) == sorted(acked)
    assert fleet.handed.keys() == {(task_id, 1) for task_id in acked}
    assert all(len(agents) == 1 for agents in fleet.handed.values())


class Asker:
    """A viewer that asks for a snapshot on every event."""

    def __init__(self, built: set[bytes]) -> None:
        self.built = built
        self.received = 0

    async def join(self, port: int) -> None:
        self.socket = await WebSocket.connect(port, "/ws/dashboard", self._on_text)

    def _on_text(self, text: bytes) -> None:
        if text.startswith(SNAPSHOT):
            self.built.add(text[len(SNAPSHOT) : -1])
            self.received += 1
        else:
            self.socket.send(type="request_snapshot")


async def test_a_snapshot_is_built_once_for_all_who_look(cluster: Cluster):
    web = cluster.webs[0]
    tokens = cluster.tokens(["looker", *(f"seen-{number}" for number in range(5))])
    submitter = Submitter([web], tokens.pop("looker"))
    fleet, enough = WideFleet(cluster, tokens), asyncio.Event()
    built: set[bytes] = set()  # uptime and time of the moment are in them
    viewers = [Asker(built) for _ in range(VIEWERS)]

    async def ask() -> None:
        async with httpx.AsyncClient() as http:
            while not enough.is_set():
                built.add((await http.get(f"{address(web)}/api/dashboard/state")).content)

    began = time.monotonic()
    async with fleet.at_work(), asyncio.TaskGroup() as asking:
        for viewer in viewers:
            await viewer.join(web.port)
        submitting = asyncio.create_task(submitter.run(enough))
        for _ in range(5):
            asking.create_task(ask())
        await fleet.until_done(MORE)
        enough.set()
        await submitting
    took_s = time.monotonic() - began
    for viewer in viewers:
        viewer.socket.close()
    assert len(built) <= SNAPSHOTS_A_SECOND * took_s + 2
    assert min(viewer.received for viewer in viewers) > 3
