"""Webhooks while receivers fail and processes are killed: nothing lost, nothing out of order."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.harness.hub import Cluster, Hub
from lab.kit.fleet import Fleet, running
from lab.kit.submitter import Submitter
from tests.cluster.conftest import TIMES
from tests.webhooks.receiver import Receiver, assert_in_order, receiving
from webhooks.kinds import TYPES

SETTINGS = {
    **TIMES,
    "AGENTCOM_WEBHOOK_ALLOW_PRIVATE": "true",
    "AGENTCOM_WEBHOOK_TIMEOUT_S": "2",
    "AGENTCOM_WEBHOOK_BACKOFF_S": ",".join(["0.2", "0.4"] + ["0.8"] * 48),
}
KINDS = ("task_submitted", "task_assigned", "task_accepted", "task_complete")
AGENTS = 8
MORE = 25  # tasks done between two acts of violence
BOUND_S = 60.0
EVENTS = "SELECT seq FROM agentcom_event WHERE kind IN ({}) AND seq > {}"
CREATED = "SELECT MIN(seq) FROM agentcom_event WHERE kind = 'webhook_created'"
WAITING = "SELECT COUNT(*) FROM webhooks_delivery WHERE ended_at IS NULL"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def listen(hub: Hub, receiver: Receiver) -> str:
    """Add a webhook for the whole life of tasks, and give its secret."""
    types = [option for kind in KINDS for option in ("--type", TYPES[kind])]
    return hub.manage("webhook", "add", receiver.url, *types).split()[1]


def happened(hub: Hub) -> set[int]:
    """The numbers of all entries that the webhook has to hear of."""
    [(created,)] = hub.rows(CREATED)
    kinds = ", ".join(f"'{kind}'" for kind in KINDS)
    return {seq for (seq,) in hub.rows(EVENTS.format(kinds, created))}


async def told(hub: Hub, receiver: Receiver) -> set[int]:
    """Wait until the receiver has accepted all, and give what it has."""
    give_up_at = time.monotonic() + BOUND_S
    while True:
        wanted = happened(hub)
        accepted = {one.data["seq"] for one in receiver.accepted()}
        if accepted >= wanted and hub.rows(WAITING) == [(0,)]:
            return accepted
        assert time.monotonic() < give_up_at, f"lost: {sorted(wanted - accepted)[:20]}"
        await asyncio.sleep(0.2)


def assert_genuine(receiver: Receiver, secret: str) -> None:
    for one in receiver.received:
        one.verify(secret)
    bodies = {one.id: one.body for one in receiver.received}
    assert all(bodies[one.id] == one.body for one in receiver.received)


@pytest.mark.bound_s(150)
async def test_receiver_and_processes_fail_and_nothing_is_lost(
    cluster: Cluster, receiver: Receiver
):
    secret = await asyncio.to_thread(listen, cluster, receiver)
    tokens = cluster.tokens([*(f"worker-{number}" for number in range(AGENTS)), "submitter"])
    submitter = Submitter(
        [f"http://127.0.0.1:{web.port}" for web in cluster.webs], tokens.pop("submitter"), batch=3
    )
    fleet = Fleet(cluster.ws_urls, tokens)
    chance = random.Random(7)

    async def more() -> None:
        await fleet.until_completed(len(fleet.completed) + MORE)

    async with running(fleet):
        async with running(submitter):
            await more()
            receiver.answer = lambda _: 500 if chance.random() < 0.5 else 200
            await more()
            for process in (*cluster.workers, cluster.webs[0], *cluster.workers):
                process.kill()  # -9, while messages are under way
                await more()
                await asyncio.to_thread(process.start)
            receiver.stop()
            await more()
            await asyncio.to_thread(receiver.start)
            receiver.answer = 204
        await fleet.until_completed(len(submitter.acked))
        accepted = await told(cluster, receiver)
    assert len(accepted) >= 4 * 7 * MORE
    assert accepted == happened(cluster)
    assert_in_order(receiver.accepted())
    assert_in_order(receiver.received)
    assert_genuine(receiver, secret)
    repeats = len(receiver.accepted()) - len(accepted)
    print(f"{len(accepted)} events, {len(receiver.received)} requests, {repeats} accepted again")


@pytest.mark.bound_s(150)
async def test_a_hub_that_is_killed_and_restarted_loses_nothing(tmp_path: Path, receiver: Receiver):
    hub = Hub(tmp_path / "hub", **SETTINGS)
    with hub:
        secret = await asyncio.to_thread(listen, hub, receiver)
        tokens = hub.tokens([*(f"worker-{number}" for number in range(AGENTS)), "submitter"])
        submitter = Submitter(hub.url, tokens.pop("submitter"), batch=3)
        fleet = Fleet(hub.ws_url, tokens)
        slow = random.Random(3)

        def answer(_: object) -> int:
            time.sleep(slow.uniform(0, 0.05))
            return 200

        receiver.answer = answer
        async with running(fleet):
            async with running(submitter):
                for _ in range(3):
                    await fleet.until_completed(len(fleet.completed) + MORE)
                    hub.kill()
                    await asyncio.to_thread(hub.start)
                await fleet.until_completed(len(fleet.completed) + MORE)
                assert await asyncio.to_thread(hub.webs[0].terminate) == 0
                await asyncio.to_thread(hub.start)
                await fleet.until_completed(len(fleet.completed) + MORE)
            await fleet.until_completed(len(submitter.acked))
            accepted = await told(hub, receiver)
        assert accepted == happened(hub)
        assert_in_order(receiver.received)
        assert_genuine(receiver, secret)
    print(f"{len(accepted)} events, {len(receiver.received)} requests")
