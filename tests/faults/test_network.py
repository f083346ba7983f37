"""A network between agents and hub that loses packets, or goes away without a word."""

from __future__ import annotations

import asyncio
import functools
import random
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from agentcom_client import Agent, Task
from lab.harness.hub import Cluster
from lab.harness.proxy import CHUNK, Proxy
from lab.kit.fleet import Fleet, running
from lab.kit.sockets import HOST
from lab.kit.submitter import Submitter
from lab.kit.viewer import Viewer
from tests.faults.conftest import (
    Forgetful,
    check,
    finish,
    until,
    until_more,
)

pytestmark = pytest.mark.sqlite_only  # whatever the database: the sockets are the same

PINGS = (1, 2)  # of the hub, instead of 20 and 30 s
# of the agents, instead of 20 and 20 s
impatient = functools.partial(connect, ping_interval=0.5, ping_timeout=1.5)


@pytest.fixture(autouse=True)
def short_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.harness.hub.PING_S", PINGS)
    monkeypatch.setattr("agentcom_client.connection.connect", impatient)


async def test_a_connection_that_died_without_a_word_is_noticed_at_both_ends(
    tmp_path: Path,
) -> None:
    with (
        Cluster(tmp_path, webs=1, workers=1, AGENTCOM_RECLAIM_GRACE_S="0.5") as hub,
        Forgetful(HOST, hub.port) as wire,
    ):
        tokens = hub.tokens(["far", "near", "submitter"])
        submitter = Submitter(hub.url, tokens["submitter"])
        begun: list[Task] = []
        seen: list[dict[str, Any]] = []

        async def work(task: Task) -> dict[str, Any]:
            begun.append(task)
            await asyncio.Event().wait()  # until it is told to let go
            return {}

        far = Agent(
            f"ws://{HOST}:{wire.port}/ws",
            tokens["far"],
            work,
            first_delay_s=0.1,
            longest_delay_s=0.5,
            observe=seen.append,
        )
        near = Fleet(hub.ws_url, {"near": tokens["near"]})
        async with running(far), await Viewer.open(hub.port) as viewer:
            await until(lambda: far.connected)
            async with running(submitter):
                await until(lambda: begun)
            [task] = begun

            wire.stall()
            await viewer.until_event(task.id, "task_reclaimed")  # the hub has noticed
            await until(lambda: not far.connected)  # so has the agent
            async with running(near):
                await until(lambda: set(submitter.acked) <= near.completed.keys())

            wire.restore()
            await until(lambda: told(seen, "task_reassign") and far.connected)
        check(hub, near, submitter)


def told(seen: list[dict[str, Any]], type: str) -> bool:
    return any(message["type"] == type for message in seen)


class Lossy(Proxy):
    """As packets get lost: some bytes are late, some connections fall silent for good."""

    def __init__(self, host: str, port: int) -> None:
        self.chance = random.Random(4711)
        self.late = self.dead = 0
        super().__init__(host, port)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            draw = self.chance.random()
            if draw < 0.02:
                self.dead += 1
                await asyncio.Event().wait()
            if draw < 0.2:
                self.late += 1
                await asyncio.sleep(self.chance.uniform(0.05, 0.5))
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


async def test_over_a_lossy_network_every_task_is_done_once(tmp_path: Path) -> None:
    settings = {"AGENTCOM_RECLAIM_GRACE_S": "1", "AGENTCOM_ACCEPT_TIMEOUT_S": "2"}
    with (
        Cluster(tmp_path, webs=1, workers=1, **settings) as hub,
        Lossy(HOST, hub.port) as wire,
    ):
        tokens = hub.tokens(["a-1", "a-2", "a-3", "a-4", "a-5", "submitter"])
        submitter = Submitter(hub.url, tokens.pop("submitter"))
        url = f"ws://{HOST}:{wire.port}/ws"
        fleet = Fleet(url, tokens, first_delay_s=0.2, longest_delay_s=1)
        async with running(fleet, submitter):
            await until_more(submitter.acked, 25)
            await until(lambda: wire.dead)
            await finish(fleet, submitter)
        assert wire.late
        check(hub, fleet, submitter)
