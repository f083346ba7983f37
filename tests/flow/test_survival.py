"""What a hub must not lose: a fleet with failures and cut sockets, and the hub itself killed.

SURVIVAL_TASKS=10000 runs it at full size.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from websockets.exceptions import ConnectionClosed

from fleet.client import Agent, Connection, Message, Task
from lab.harness.hub import Hub
from tests.at_work import Fleet
from tests.viewer import Viewer

TASKS = int(os.environ.get("SURVIVAL_TASKS", "1500"))
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
    """Fifty agents that fail and lose their sockets now and then; keeps what the hub told them."""

    def __init__(self, hub: Hub, tokens: dict[str, str]) -> None:
        self.chance = random.Random(4711)
        self.agents = [
            Agent(
                hub.ws_url,
                agent_id,
                token,
                self._work,
                first_delay_s=0.3,
                longest_delay_s=1.0,
                observe=self._observer(agent_id),
            )
            for agent_id, token in tokens.items()
        ]
        self.handed: dict[tuple[str, int], set[str]] = defaultdict(set)  # agents by assignment
        self.pushed_twice: list[Message] = []
        self.completed: set[str] = set()  # as acked
        self.failures = self.cuts = 0
        self._progress = asyncio.Condition()

    async def until_completed(self, count: int) -> None:
        async with self._progress:
            await self._progress.wait_for(lambda: len(self.completed) >= count)

    async def _work(self, task: Task) -> dict[str, Any]:
        await asyncio.sleep(self.chance.uniform(0, 0.02))
        await task.progress(50)
        if self.chance.random() < CUT_RATE:
            self.cuts += 1
            task.agent.cut()
        if self.chance.random() < FAILURE_RATE:
            self.failures += 1
            raise RuntimeError("no luck")
        async with self._progress:
            self._progress.notify_all()
        return {"tokens_used": 1}

    def _observer(self, agent_id: str) -> Any:
        pushed_here: set[tuple[str, int]] = set()

        def observe(message: Message) -> None:
            match message:
                case {"type": "identified"}:
                    pushed_here.clear()
                case {"type": "task_assign", "task_id": task_id, "generation": generation}:
                    if (task_id, generation) in pushed_here:
                        self.pushed_twice.append(message)
                    pushed_here.add((task_id, generation))
                    self.handed[task_id, generation].add(agent_id)
                case {"type": "task_ack", "task_id": task_id, "status": "complete"}:
                    self.completed.add(task_id)

        return observe


async def submit_all(hub: Hub, token: str) -> set[str]:
    """As a careful client does it: on an error the same again, with the same key."""
    headers = {"Authorization": f"Bearer {token}"}
    ids: set[str] = set()
    async with httpx.AsyncClient(base_url=hub.url, headers=headers, timeout=30) as http:
        while len(ids) < TASKS:
            batch = [
                {"description": f"No. {len(ids) + n}", "max_retries": 2, "priority": n % 4}
                for n in range(min(BATCH, TASKS - len(ids)))
            ]
            ids |= await submit(http, batch)
    assert len(ids) == TASKS
    return ids


async def submit(http: httpx.AsyncClient, batch: list[dict[str, Any]]) -> set[str]:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    while True:
        with suppress(httpx.TransportError):
            answer = await http.post("/api/tasks", json=batch, headers=key)
            if answer.status_code == 201:
                return {receipt["task_id"] for receipt in answer.json()["tasks"]}
            assert answer.status_code == 503, answer.text
        await asyncio.sleep(0.1)


async def until_worked_off(hub: Hub) -> dict[str, Any]:
    """Watch until nothing is queued or assigned; the hub may go away meanwhile."""
    while True:
        with suppress(OSError, ConnectionClosed):
            async with await Viewer.open(hub.dashboard_url) as viewer:
                while True:
                    snapshot = await viewer.snapshot()
                    queue = snapshot["queue"]
                    if queue["by_status"]["completed"] + queue["dead_letter"] == TASKS:
                        return snapshot
                    await viewer.frame("events")
                    await viewer.send("request_snapshot")
        await asyncio.sleep(0.1)


def rows(hub: Hub, query: str) -> list[tuple[Any, ...]]:
    """From the hub's database itself: what the API shows may be counted wrong."""
    if url := hub.environment.get("DATABASE_URL"):
        with psycopg.connect(url) as postgresql:
            return postgresql.execute(query.encode()).fetchall()
    file = hub.data_dir / "agentcom.sqlite3"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as sqlite:
        return sqlite.execute(query).fetchall()


def check(hub: Hub, fleet: LossyFleet, submitted: set[str], end: dict[str, Any]) -> None:
    status = dict(rows(hub, "SELECT task_id, status FROM tasks_task"))
    assert status.keys() == submitted
    assert set(status.values()) <= {"completed", "dead_letter"}
    completed = {task_id for task_id in status if status[task_id] == "completed"}
    assert fleet.completed <= completed  # everything that was acked is there

    events = Counter(rows(hub, "SELECT kind, task_id FROM agentcom_event WHERE task_id != ''"))
    completions = Counter(rows(hub, "SELECT task_id FROM tasks_completion"))
    assert completions == Counter((task_id,) for task_id in completed)
    for task_id in submitted:
        done = task_id in completed
        assert events["task_complete", task_id] == done, task_id
        assert events["task_dead_letter", task_id] == (not done), task_id
        assert events["task_submitted", task_id] == 1, task_id
        assert events["task_failed", task_id] <= 2, task_id

    assert not fleet.pushed_twice
    assert set(map(len, fleet.handed.values())) == {1}
    written = rows(
        hub,
        "SELECT task_id, CAST(data AS text) FROM agentcom_event WHERE kind = 'task_assigned'",
    )
    assigned = {(task_id, json.loads(data)["generation"]) for task_id, data in written}
    assert not fleet.handed.keys() - assigned  # what was handed out had been written down

    assert end["queue"]["by_status"] == {"queued": 0, "assigned": 0, "completed": len(completed)}
    assert end["queue"]["dead_letter"] == len(submitted) - len(completed)
    assert end["throughput"]["completed_last_hour"] == len(completed)
    assert end["throughput"]["total_tokens_hour"] == len(completed)


@pytest.mark.empty_hub
@pytest.mark.bound_s(BOUND_S)
async def test_failing_agents_and_cut_sockets_lose_nothing(hub: Hub):
    tokens = hub.tokens(f"worker-{n:02}" for n in range(AGENTS))
    fleet = LossyFleet(hub, tokens)
    async with fleet.at_work():
        submitted = await submit_all(hub, tokens["worker-00"])
        end = await until_worked_off(hub)
    check(hub, fleet, submitted, end)
    assert fleet.failures > TASKS * FAILURE_RATE / 2
    assert fleet.cuts > TASKS * CUT_RATE / 2


@pytest.mark.empty_hub
@pytest.mark.bound_s(BOUND_S)
async def test_a_hub_that_is_killed_twice_loses_nothing(hub: Hub):
    tokens = hub.tokens(f"worker-{n:02}" for n in range(AGENTS))
    fleet = LossyFleet(hub, tokens)
    async with fleet.at_work():
        submitting = asyncio.create_task(submit_all(hub, tokens["worker-00"]))
        for share in (0.15, 0.6):
            await fleet.until_completed(int(TASKS * share))
            hub.kill()
            await asyncio.to_thread(hub.start)
        submitted = await submitting
        end = await until_worked_off(hub)
    check(hub, fleet, submitted, end)


@pytest.mark.empty_hub
async def test_a_planned_stop_says_so_and_keeps_everything(lenient_hub: Hub):
    hub = lenient_hub
    tokens = hub.tokens(["worker", "idler"])
    headers = {"Authorization": f"Bearer {tokens['worker']}"}
    async with (
        httpx.AsyncClient(base_url=hub.url, headers=headers) as http,
        await Connection.open(hub.ws_url) as worker,
        await Connection.open(hub.ws_url) as idler,
        await Viewer.open(hub.dashboard_url) as viewer,
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
        with pytest.raises(ConnectionClosed) as closed:
            await viewer.frame("never")
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1012

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
