"""What a hub must not lose: a fleet with failures and cut sockets, and the hub itself killed.

SURVIVAL_TASKS=10000 runs it at full size.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from agentcom_client import Task
from agentcom_client.connection import Connection, Message
from lab.harness.hub import Hub
from lab.kit.fleet import Fleet, running
from lab.kit.sockets import Closed, Failed
from lab.kit.submitter import Submitter
from lab.kit.viewer import Viewer

LANES = ["urgent", "high", "normal", "low"]
TASKS = int(os.environ.get("SURVIVAL_TASKS", "1500"))  # a multiple of the lanes
AGENTS = 50
FAILURE_RATE = 0.1
CUT_RATE = 0.05
BATCH = 100
BOUND_S = 60 + TASKS / 25
SETTINGS = {
    "AGENTCOM_RECLAIM_GRACE_S": "0.4",  # some of the cut agents are back in time, some are not
    "AGENTCOM_ACCEPT_TIMEOUT_S": "3",
    "AGENTCOM_WORKER_TICK_S": "0.1",
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub of the test's own: it is going to be killed."""
    with Hub(tmp_path, **SETTINGS) as hub:
        yield hub


@pytest.fixture
def lenient_hub(tmp_path: Path) -> Iterator[Hub]:
    """Waits for agents as long as a hub does when nothing is set."""
    with Hub(tmp_path) as hub:
        yield hub


class LossyFleet(Fleet):
    """Agents that fail and lose their sockets now and then."""

    def __init__(self, hub: Hub, tokens: dict[str, str]) -> None:
        super().__init__(hub.ws_url, tokens, self._work, first_delay_s=0.3, longest_delay_s=1.0)
        self.chance = random.Random(4711)
        self.pushed_here: dict[str, set[tuple[str, int]]] = defaultdict(set)  # over this socket
        self.pushed_twice: list[Message] = []
        self.failures = self.cuts = 0

    async def _work(self, task: Task) -> dict[str, Any]:
        await asyncio.sleep(self.chance.uniform(0, 0.02))
        await task.progress(50)
        if self.chance.random() < CUT_RATE:
            self.cuts += 1
            task.agent.cut()
        if self.chance.random() < FAILURE_RATE:
            self.failures += 1
            raise RuntimeError("no luck")
        return {"tokens_used": 1}

    def observe(self, agent_id: str, message: Message) -> None:
        super().observe(agent_id, message)
        match message:
            case {"type": "identified"}:
                self.pushed_here[agent_id].clear()
            case {"type": "task_assign", "task_id": task_id, "generation": generation}:
                if (task_id, generation) in self.pushed_here[agent_id]:
                    self.pushed_twice.append(message)
                self.pushed_here[agent_id].add((task_id, generation))


def submitters(hub: Hub, token: str) -> list[Submitter]:
    """One for each lane; together they submit all tasks."""
    return [
        Submitter(hub.url, token, BATCH, TASKS // len(LANES), priority=lane, max_retries=2)
        for lane in LANES
    ]


async def until_drained(hub: Hub) -> dict[str, Any]:
    """Watch until nothing is queued or assigned; the hub may be killed meanwhile."""
    while True:
        with suppress(OSError, Failed):
            async with await Viewer.open(hub.port) as viewer:
                while True:
                    snapshot = await viewer.snapshot()
                    queue = snapshot["queue"]
                    if queue["by_status"]["completed"] + queue["dead_letter"] == TASKS:
                        return snapshot
                    await viewer.frame("events")
                    viewer.send("request_snapshot")
        await asyncio.sleep(0.1)


def check(hub: Hub, fleet: LossyFleet, submitting: list[Submitter], end: dict[str, Any]) -> None:
    submitted = {task_id for submitter in submitting for task_id in submitter.acked}
    assert len(submitted) == TASKS
    status = dict(hub.rows("SELECT task_id, status FROM tasks_task"))
    assert status.keys() == submitted
    assert set(status.values()) <= {"completed", "dead_letter"}
    completed = {task_id for task_id in status if status[task_id] == "completed"}
    assert fleet.completed.keys() <= completed  # everything that was acked is there

    events = Counter(hub.rows("SELECT kind, task_id FROM agentcom_event WHERE task_id != ''"))
    completions = Counter(hub.rows("SELECT task_id FROM tasks_completion"))
    assert completions == Counter((task_id,) for task_id in completed)
    for task_id in submitted:
        done = task_id in completed
        assert events["task_complete", task_id] == done, task_id
        assert events["task_dead_letter", task_id] == (not done), task_id
        assert events["task_submitted", task_id] == 1, task_id
        assert events["task_failed", task_id] <= 2, task_id

    assert not fleet.pushed_twice
    assert all(len(set(agents)) == 1 for agents in fleet.handed.values())
    written = hub.rows(
        "SELECT task_id, CAST(data AS text) FROM agentcom_event WHERE kind = 'task_assigned'",
    )
    assigned = {(task_id, json.loads(data)["generation"]) for task_id, data in written}
    assert not fleet.handed.keys() - assigned  # what was handed out had been written down

    by_status = {status: n for status, n in end["queue"]["by_status"].items() if n}
    assert by_status == {"completed": len(completed)}
    assert end["queue"]["dead_letter"] == len(submitted) - len(completed)
    assert end["throughput"]["completed_last_hour"] == len(completed)
    assert end["throughput"]["total_tokens_hour"] == len(completed)


@pytest.mark.empty_hub
@pytest.mark.bound_s(BOUND_S)
async def test_failing_agents_and_cut_sockets_lose_nothing(hub: Hub):
    tokens = hub.tokens(f"worker-{n:02}" for n in range(AGENTS))
    fleet = LossyFleet(hub, tokens)
    submitting = submitters(hub, tokens["worker-00"])
    async with running(fleet, *submitting):
        end = await until_drained(hub)
    check(hub, fleet, submitting, end)
    assert fleet.failures > TASKS * FAILURE_RATE / 2
    assert fleet.cuts > TASKS * CUT_RATE / 2


@pytest.mark.empty_hub
@pytest.mark.bound_s(BOUND_S)
async def test_a_hub_that_is_killed_twice_loses_nothing(hub: Hub):
    tokens = hub.tokens(f"worker-{n:02}" for n in range(AGENTS))
    fleet = LossyFleet(hub, tokens)
    submitting = submitters(hub, tokens["worker-00"])
    async with running(fleet, *submitting):
        for share in (0.15, 0.6):
            await fleet.until_completed(int(TASKS * share))
            hub.kill()
            await asyncio.to_thread(hub.start)
        end = await until_drained(hub)
    check(hub, fleet, submitting, end)


@pytest.mark.empty_hub
async def test_a_planned_stop_says_so_and_keeps_everything(lenient_hub: Hub):
    hub = lenient_hub
    tokens = hub.tokens(["worker", "idler"])
    headers = {"Authorization": f"Bearer {tokens['worker']}"}
    async with (
        httpx.AsyncClient(base_url=hub.url, headers=headers) as http,
        await Connection.open(hub.ws_url) as worker,
        await Connection.open(hub.ws_url) as idler,
        await Viewer.open(hub.port) as viewer,
    ):
        await worker.identify("worker", tokens["worker"])
        receipts = (await http.post("/api/tasks", json=[{"description": "x"}] * 3)).json()["tasks"]
        done = await worker.next_push()
        about = {"task_id": done["task_id"], "generation": done["generation"]}
        await worker.request("task_complete", **about, result={"tokens_used": 5})
        held = await worker.next_push()
        await worker.request("task_accepted", task_id=held["task_id"])

        await asyncio.to_thread(hub.terminate)
        for connection in (worker, idler):
            with pytest.raises(ConnectionClosed) as closed:
                await connection.next_push()
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 1012
        with pytest.raises(Closed) as viewer_closed:
            await viewer.frame("never")
        assert viewer_closed.value.code == 1012

    await asyncio.to_thread(hub.start)
    async with (
        httpx.AsyncClient(base_url=hub.url, headers=headers) as http,
        await Connection.open(hub.ws_url) as worker,
    ):
        state = (await http.get("/api/dashboard/state")).json()
        assert [row["task_id"] for row in state["recent_completions"]] == [done["task_id"]]
        assert state["throughput"]["completed_last_hour"] == 1
        assert state["throughput"]["total_tokens_hour"] == 5
        assert sum(state["queue"]["by_status"].values()) == len(receipts)
        await worker.identify("worker", tokens["worker"])
        answer = await worker.request("task_recovering", task_id=held["task_id"])
        assert answer["type"] == "task_continue"
        assert answer["generation"] == held["generation"]
