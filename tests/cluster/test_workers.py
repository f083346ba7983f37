"""Two workers, of which one acts."""

from __future__ import annotations

import asyncio
import time

import httpx

from lab.harness.hub import Cluster, Server
from lab.kit.viewer import Viewer
from tests.cluster.conftest import (
    TICKS,
    TIMES,
    Join,
    Submit,
    address,
    frozen,
    start,
)

TICK_S = float(TIMES["AGENTCOM_WORKER_TICK_S"])
SLACK_S = 5.0  # of a busy machine
ACTS = "This worker acts"
STANDS_BY = "this one stands by"


async def in_log(server: Server, sentence: str, times: int = 1) -> None:
    while True:
        if server.log.count(sentence) >= times:
            return
        await asyncio.sleep(0.05)


async def acting(cluster: Cluster) -> tuple[Server, Server]:
    """The worker that acts, and the other one."""
    while True:
        for worker, other in (cluster.workers, cluster.workers[::-1]):
            last = max((TICKS, ACTS, STANDS_BY), key=worker.log.rfind)
            if last == ACTS and worker.is_running:
                return worker, other
        await asyncio.sleep(0.05)


def lights(viewer: Viewer) -> list[tuple[str, set[str]]]:
    """Status and codes of each report that the viewer saw."""
    seen = [f["data"]["health"] for f in viewer.frames if "health" in f.get("data", ())]
    return [(light["status"], {d["code"] for d in light["details"]}) for light in seen]


async def test_the_other_worker_takes_over_and_the_light_is_never_wrong(
    cluster: Cluster, join: Join, submit: Submit
):
    web = cluster.webs[0]
    worker, other = await acting(cluster)
    lost = await join(web)
    task_id = await submit(web, lost.skill)
    await lost.accepted()
    takeovers = other.log.count(ACTS)
    async with await Viewer.open(web.port) as viewer:
        viewer.subscribe()
        await viewer.snapshot()
        worker.kill()
        killed_at = time.monotonic()
        lost.connection.cut()
        await in_log(other, ACTS, takeovers + 1)
        assert time.monotonic() - killed_at < 3 * TICK_S + SLACK_S
        await viewer.until_event(task_id, "task_reclaimed")
        assert {code for _, codes in lights(viewer) for code in codes} <= {
            "worker_silent",
            "agent_offline",
            "nobody_capable",  # when the reclaimed task has waited long enough: nobody else can
        }

        other.kill()
        await viewer.until(lambda v: bool(lights(v)) and "worker_silent" in lights(v)[-1][1])
        assert lights(viewer)[-1][0] == "warning"
        await asyncio.to_thread(start, worker)
        await viewer.until(lambda v: "worker_silent" not in lights(v)[-1][1])


async def test_a_worker_that_stood_still_takes_nothing_twice(
    cluster: Cluster, join: Join, submit: Submit, api: httpx.AsyncClient
):
    here, there = cluster.webs
    worker, other = await acting(cluster)
    lost = await join(here)
    task_id = await submit(here, lost.skill)
    await lost.accepted()
    heir = await join(there, skill=lost.skill)
    takeovers, stood_by = other.log.count(ACTS), worker.log.count(STANDS_BY)
    async with frozen(worker, there, api):
        lost.connection.cut()
        await in_log(other, ACTS, takeovers + 1)
        await heir.accepted()  # so it was reclaimed, and assigned anew
    await in_log(worker, STANDS_BY, stood_by + 1)
    history = (await api.get(f"{address(there)}/api/tasks/{task_id}")).json()["history"]
    events = [entry["event"] for entry in history]
    assert (events.count("task_reclaimed"), events.count("task_assigned")) == (1, 2)


async def test_a_worker_that_is_told_to_stop_hands_over_at_once(cluster: Cluster):
    worker, other = await acting(cluster)
    takeovers = other.log.count(ACTS)
    assert await asyncio.to_thread(worker.terminate) == 0
    await in_log(other, ACTS, takeovers + 1)
