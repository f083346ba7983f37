"""Hosts whose clocks differ: the database's decides."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import httpx
import pytest

from lab.harness.clock import HostClock
from lab.harness.hub import Cluster, Server
from lab.kit.viewer import Viewer
from tests.cluster.conftest import TIMES, Join, Submit, address
from tests.identities import FILL

pytestmark = pytest.mark.postgresql  # on SQLite there is one host

NEAR_MS = 60_000
GRACE_MS = 1000 * float(TIMES["AGENTCOM_RECLAIM_GRACE_S"])


@pytest.fixture(scope="module")
def module_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The second web process and the worker are on hosts that are an hour ahead."""
    folder = tmp_path_factory.mktemp("clocks")
    cluster = Cluster(folder, 2, 1, FILL, **TIMES)
    clock = HostClock(folder / "clock", ahead_s=3600)
    for server in (cluster.webs[1], *cluster.workers):
        server.reroute(**clock.environment)
    with cluster:
        yield cluster


def is_now(moment: int) -> bool:
    return abs(moment - time.time() * 1000) < NEAR_MS


async def test_nothing_is_reclaimed_early_and_all_times_are_the_databases(
    cluster: Cluster, join: Join, submit: Submit, api: httpx.AsyncClient
):
    right, fast = cluster.webs
    [worker] = cluster.workers
    believed = datetime.fromisoformat(worker.log[:19]) - datetime.now()  # noqa: DTZ005
    assert believed > timedelta(minutes=55)

    soon = int(time.time() * 1000) + 1_800_000  # for the fast hosts half an hour ago
    kept = []
    for web in (right, fast):
        agent = await join(web)
        await submit(web, agent.skill, complete_by=soon)
        kept.append((agent, await agent.accepted()))
    lost = await join(fast)
    task_id = await submit(fast, lost.skill)
    await lost.accepted()
    heir = await join(right, skill=lost.skill)
    lost.connection.cut()
    assert (await heir.accepted())["task_id"] == task_id  # the worker takes back what is due

    for agent, task in kept:
        assert (await agent.say("task_complete", task, result={}))["status"] == "complete"
        assert is_now(task["assigned_at"])
        assert is_now((await agent.connection.request("ping"))["timestamp"])
    task = (await api.get(f"{address(fast)}/api/tasks/{task_id}")).json()
    at = {entry["event"]: entry["timestamp"] for entry in task["history"]}
    assert all(is_now(moment) for moment in (task["created_at"], *at.values()))
    assert GRACE_MS <= at["task_reclaimed"] - at["task_submitted"] < NEAR_MS
    for web in cluster.webs:
        state = (await api.get(f"{address(web)}/api/dashboard/state")).json()
        assert is_now(state["timestamp"])
        assert "worker_silent" not in [d["code"] for d in state["health"]["details"]]
        async with await Viewer.open(web.port) as viewer:
            viewer.send("ping")
            assert is_now((await viewer.frame("pong"))["timestamp"])


def test_a_deadline_is_held_against_the_databases_clock(cluster: Cluster, identities):
    right, fast = cluster.webs
    _, token = next(identities)
    for web, minutes in ((right, 30), (fast, 30), (right, -1), (fast, -1)):
        answer = _submit(web, token, int(time.time() * 1000) + minutes * 60_000)
        assert answer.status_code == (201 if minutes > 0 else 400), (web.port, minutes)


def _submit(web: Server, token: str, complete_by: int) -> httpx.Response:
    return httpx.post(
        f"{address(web)}/api/tasks",
        headers={"Authorization": f"Bearer {token}"},
        json={"description": "x", "complete_by": complete_by},
        timeout=30,
    )
