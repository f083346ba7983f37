"""The clock of the hub's host is set while it runs, or before it starts again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet.client import Connection, Message
from lab.harness.clients import PING, WebSocket
from lab.harness.clock import HostClock
from lab.harness.hub import Hub
from tests.faults.conftest import until, until_answer

pytestmark = pytest.mark.sqlite_only  # PostgreSQL has a clock of its own, see tests/cluster

SETTINGS = {
    "AGENTCOM_RECLAIM_AFTER_S": "6",
    "AGENTCOM_RECLAIM_GRACE_S": "1",
    "AGENTCOM_WORKER_TICK_S": "0.5",
}
HOUR, MINUTES = 3600, -600


@pytest.fixture
def clock(tmp_path: Path) -> HostClock:
    return HostClock(tmp_path / "clock")


@pytest.fixture
def hub(tmp_path: Path, clock: HostClock) -> Iterator[Hub]:
    with Hub(tmp_path, **SETTINGS, **clock.environment) as hub:
        yield hub


async def submit(hub: Hub, token: str) -> None:
    async with httpx.AsyncClient(base_url=hub.url) as http:
        headers = {"Authorization": f"Bearer {token}"}
        answer = await http.post("/api/tasks", json={"description": "x"}, headers=headers)
        assert answer.status_code == 201


async def accept(agent: Connection) -> Message:
    """The next task that it gets."""
    while (push := await agent.next_push())["type"] != "task_assign":
        pass
    await say(agent, "task_accepted", push)
    return push


async def say(agent: Connection, type: str, task: Message, **fields: Any) -> Message:
    about = {"task_id": task["task_id"], "generation": task["generation"]}
    return await agent.request(type, **about, **fields)


def conditions(answer: httpx.Response) -> dict[str, str]:
    return {d["code"]: d["message"] for d in answer.json()["health"]["details"]}


async def the_light_says(hub: Hub, words: str) -> None:
    """Of the clock, and nothing else."""

    def said(answer: httpx.Response) -> bool:
        told = conditions(answer)
        return list(told) == ["clock_jumped"] and words in told["clock_jumped"]

    await until_answer(f"{hub.url}/api/dashboard/state", said)


@pytest.mark.parametrize(("by", "words"), [(HOUR, "forward by 1 h"), (MINUTES, "back by 10 min")])
async def test_a_jump_takes_nothing_from_a_working_agent_and_the_light_tells_of_it(
    hub: Hub, clock: HostClock, by: float, words: str
) -> None:
    tokens = hub.tokens(["works", "silent", "heir"])
    works, silent = await Connection.open(hub.ws_url), await Connection.open(hub.ws_url)
    async with works, silent:
        await works.identify("works", tokens["works"])
        await submit(hub, tokens["works"])
        task = await accept(works)
        await silent.identify("silent", tokens["silent"])
        await submit(hub, tokens["works"])
        forgotten = await accept(silent)

        clock.set_ahead(by)
        await the_light_says(hub, words)

        assert (await say(works, "task_complete", task, result={}))["status"] == "complete"
        await works.request("sign_off")
        async with await Connection.open(hub.ws_url) as heir:
            await heir.identify("heir", tokens["heir"])
            assert (await accept(heir))["task_id"] == forgotten["task_id"]


async def test_a_hub_that_starts_with_a_clock_behind_its_journal_goes_on(
    hub: Hub, clock: HostClock
) -> None:
    tokens = hub.tokens(["lost", "heir"])
    async with await Connection.open(hub.ws_url) as lost:
        await lost.identify("lost", tokens["lost"])
        await submit(hub, tokens["lost"])
        task = await accept(lost)
        hub.kill()
    clock.set_ahead(-HOUR)
    hub.start()
    await the_light_says(hub, "back by ")
    async with await Connection.open(hub.ws_url) as heir:
        await heir.identify("heir", tokens["heir"])
        assert (await accept(heir))["task_id"] == task["task_id"]


class Pinged(WebSocket):
    pings = 0

    def _take(self, opcode: int, payload: bytes) -> None:
        self.pings += opcode == PING
        super()._take(opcode, payload)


@pytest.mark.bound_s(60)
async def test_idle_sockets_are_pinged_though_the_clock_was_set_back(
    tmp_path: Path, clock: HostClock
) -> None:
    hub = Hub(tmp_path, **clock.environment)
    hub.manage("migrate")
    web = hub._server(
        *("web", hub.port, "-m", "daphne", "-v", "0", "-p", str(hub.port)),
        *("--ping-interval", "1", "agentcom.asgi:application"),
    )
    web.start()
    try:
        socket = await Pinged.connect(hub.port, "/ws/dashboard", lambda _: None)
        await until(lambda: socket.pings)
        clock.set_ahead(-HOUR)
        so_far = socket.pings
        await until(lambda: socket.pings > so_far + 1)
    finally:
        web.terminate()
