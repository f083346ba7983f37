"""Many tasks, agents and viewers at two web processes, also while these are restarted."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections import Counter
from typing import Any

import httpx
import pytest

from agentcom_client import Task
from lab.harness.hub import Cluster, Server
from lab.kit.fleet import Fleet, running
from lab.kit.submitter import Submitter
from lab.kit.viewer import Viewer
from tests.cluster.conftest import address

SETTINGS = {"AGENTCOM_WORKER_TICK_S": "0.5"}  # and the usual grace: nobody is late
AGENTS = 50
TASKS = 150  # of each submitter
MORE = 30  # tasks done between two steps
BATCH = 5
VIEWERS = 100
SNAPSHOTS_A_SECOND = 10
SEQ = re.compile(rb'"seq":\d+')
SNAPSHOT = b'{"type":"snapshot","data":'


async def work(task: Task) -> dict[str, Any]:
    await asyncio.sleep(random.uniform(0, 0.3))
    return {}


def two_submitters(cluster: Cluster, token: str, limit: int | None = None) -> list[Submitter]:
    """Each begins at another process."""
    urls = [address(web) for web in cluster.webs]
    return [Submitter(order, token, BATCH, limit) for order in (urls, urls[::-1])]


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
    caplog.set_level(logging.INFO, "agentcom_client")
    tokens = cluster.tokens([*(f"worker-{number}" for number in range(AGENTS)), "submitter"])
    token = tokens.pop("submitter")
    submitters = two_submitters(cluster, token)
    fleet = Fleet(cluster.ws_urls, tokens, work)
    before = await completed(cluster.webs[0])
    async with running(fleet):
        async with running(*submitters):
            for web in cluster.webs:
                await fleet.until_completed(len(fleet.completed) + MORE)
                assert await asyncio.to_thread(web.terminate) == 0
                await fleet.until_completed(len(fleet.completed) + MORE)
                await asyncio.to_thread(web.start)
        acked = [task_id for each in submitters for task_id in each.acked]
        await fleet.until_completed(len(acked))

    assert not any(each.refused for each in submitters)
    assert fleet.completed == Counter(acked)  # none lost, none done twice
    assert await completed(cluster.webs[0]) - before == len(acked)
    assert {generation for _, generation in fleet.handed} == {1}  # no work was repeated
    assert all(len(set(agents)) == 1 for agents in fleet.handed.values())
    losses = [line for line in caplog.messages if "lost the hub" in line]
    assert len([line for line in losses if "1012" in line]) >= AGENTS
    assert not [line for line in losses if "no close frame" in line]


async def test_no_assignment_is_pushed_twice(cluster: Cluster):
    tokens = cluster.tokens([*(f"claimer-{number}" for number in range(20)), "streamer"])
    token = tokens.pop("streamer")
    submitters = two_submitters(cluster, token, limit=TASKS)
    fleet = Fleet(cluster.ws_urls, tokens, work)
    async with running(fleet):
        await asyncio.gather(*(each.run() for each in submitters))
        acked = [task_id for each in submitters for task_id in each.acked]
        await fleet.until_completed(len(acked))
    assert fleet.completed == Counter(acked)
    assert fleet.handed.keys() == {(task_id, 1) for task_id in acked}
    assert all(len(agents) == 1 for agents in fleet.handed.values())


class AskingViewer(Viewer):
    """Asks for a snapshot on every event."""

    def __init__(self, built: set[bytes]) -> None:
        super().__init__()
        self.built = built
        self.received = 0

    def _on_text(self, text: bytes) -> None:
        if text.startswith(SNAPSHOT):
            self.built.add(text[len(SNAPSHOT) : -1])
            self.received += 1
        else:
            self.socket.send(type="request_snapshot")


async def test_a_snapshot_is_built_once_for_all_who_look(cluster: Cluster):
    web = cluster.webs[0]
    tokens = cluster.tokens(["looker", *(f"seen-{number}" for number in range(5))])
    submitter = Submitter(address(web), tokens.pop("looker"), BATCH)
    fleet, enough = Fleet(cluster.ws_urls, tokens, work), asyncio.Event()
    built: set[bytes] = set()  # uptime and time of the moment are in them
    read: dict[
        bytes, set[bytes]
    ] = {}  # over HTTP, where each state is encoded at most once a second
    viewers = [AskingViewer(built) for _ in range(VIEWERS)]

    async def ask() -> None:
        async with httpx.AsyncClient() as http:
            while not enough.is_set():
                state = (await http.get(f"{address(web)}/api/dashboard/state")).content
                seq = SEQ.search(state)
                assert seq is not None
                read.setdefault(seq[0], set()).add(state)

    began = time.monotonic()
    async with running(fleet), asyncio.TaskGroup() as asking:
        for viewer in viewers:
            await viewer.join(web.port)
        async with running(submitter):
            for _ in range(5):
                asking.create_task(ask())
            await fleet.until_completed(MORE)
            enough.set()
    took_s = time.monotonic() - began
    for viewer in viewers:
        viewer.close()
    assert len(built) <= SNAPSHOTS_A_SECOND * took_s + 2
    assert max(map(len, read.values())) <= took_s + 2
    assert min(viewer.received for viewer in viewers) > 3
