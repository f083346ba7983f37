"""Redis that goes away or falls silent: processes poll, and hints come again by themselves."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from lab.harness.hub import Cluster
from lab.harness.proxy import Proxy
from lab.kit.fleet import Fleet, running
from lab.kit.sockets import HOST
from lab.kit.submitter import Submitter
from lab.kit.viewer import Viewer
from tests.faults.conftest import (
    Forgetful,
    check,
    finish,
    until,
    until_answer,
    until_more,
)

pytestmark = pytest.mark.postgresql

AWAY_S = float(os.environ.get("REDIS_AWAY_S", "2"))  # the rest of the test takes its time as well
MISSED = ("No hint could be sent", "No hints are coming in")
BACK = "Hints are coming in again"


@pytest.mark.parametrize("how", ["refuse", "stall"])
async def test_without_redis_everything_goes_on_and_hints_come_again(
    tmp_path: Path, how: str
) -> None:
    hub = Cluster(tmp_path, webs=2, workers=1)
    url = hub.environment["REDIS_URL"]
    with Forgetful.before(url) as wire:
        for server in hub.servers:
            server.reroute(REDIS_URL=wire.through(url))
        with hub:
            try:
                await absence(hub, wire, how)
            finally:
                wire.restore()  # or the hub could not end in good order


async def absence(hub: Cluster, wire: Proxy, how: str) -> None:
    """Tasks come in at one process; the agents, who do them, are connected to the other."""
    here, there = hub.webs
    tokens = hub.tokens(["a-1", "a-2", "submitter"])
    submitter = Submitter(f"http://{HOST}:{here.port}", tokens.pop("submitter"))
    fleet = Fleet(f"ws://{HOST}:{there.port}/ws", tokens)
    async with (
        running(fleet, submitter),
        await Viewer.open(here.port) as near,
        await Viewer.open(there.port) as far,
    ):
        await until_more(fleet.completed, 5)

        getattr(wire, how)()
        away = asyncio.create_task(asyncio.sleep(AWAY_S))
        await until(lambda: all(misses(server.log) for server in hub.servers))
        await until_more(submitter.acked, 5)
        task_id = submitter.acked[-1]
        await until(lambda: task_id in fleet.completed)
        await near.until_event(task_id, "task_complete")
        await far.until_event(task_id, "task_submitted")
        for web in hub.webs:
            await until_answer(f"http://{HOST}:{web.port}/health", lambda a: a.status_code == 200)
        await away
        assert not any(BACK in server.log for server in hub.servers)

        wire.restore()
        await until(lambda: all(BACK in server.log for server in hub.servers))
        await until_more(fleet.completed, 5)
        await finish(fleet, submitter)
    check(hub, fleet, submitter)
    assert not submitter.refused
    assert set(fleet.identified.values()) == {1}


def misses(log: str) -> bool:
    return any(sentence in log for sentence in MISSED)
