"""The clock of the hub's host is set while it runs, or before it starts again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lab.harness.clock import HostClock
from lab.harness.hub import Hub, web_command
from lab.kit.member import Member
from lab.kit.sockets import PING, WebSocket
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


async def join(hub: Hub, agent_id: str, tokens: dict[str, str]) -> Member:
    return await Member.join(hub.ws_url, agent_id, tokens[agent_id], skill="any")


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
    async with await join(hub, "works", tokens) as works:
        await submit(hub, tokens["works"])
        task = await works.accepted()
        silent = await join(hub, "silent", tokens)
        await submit(hub, tokens["works"])
        forgotten = await silent.accepted()

        clock.set_ahead(by)
        await the_light_says(hub, words)

        assert (await works.say("task_complete", task, result={}))["status"] == "complete"
    async with await join(hub, "heir", tokens) as heir:
        assert (await heir.accepted())["task_id"] == forgotten["task_id"]
    await silent.leave()


async def test_a_hub_that_starts_with_a_clock_behind_its_journal_goes_on(
    hub: Hub, clock: HostClock
) -> None:
    tokens = hub.tokens(["lost", "heir"])
    async with await join(hub, "lost", tokens) as lost:
        await submit(hub, tokens["lost"])
        task = await lost.accepted()
        hub.kill()
    clock.set_ahead(-HOUR)
    hub.start()
    await the_light_says(hub, "back by ")
    async with await join(hub, "heir", tokens) as heir:
        assert (await heir.accepted())["task_id"] == task["task_id"]


class Pinged(WebSocket):
    pings = 0

    def _take(self, opcode: int, payload: bytes) -> None:
        self.pings += opcode == PING
        super()._take(opcode, payload)


@pytest.mark.bound_s(60)
async def test_idle_sockets_are_pinged_though_the_clock_was_set_back(
    tmp_path: Path, clock: HostClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(tmp_path, **clock.environment)
    hub.manage("migrate")
    monkeypatch.setattr("lab.harness.hub.PING_S", (1, 30))
    web = hub._server("web", hub.port, *web_command(hub.server, hub.port))
    web.start()
    try:
        socket = await Pinged.connect(hub.port, "/ws/dashboard", lambda _: None)
        await until(lambda: socket.pings)
        clock.set_ahead(-HOUR)
        so_far = socket.pings
        await until(lambda: socket.pings > so_far + 1)
    finally:
        web.terminate()
