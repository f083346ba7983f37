"""Scenarios in which tasks are stopped, wait for their time, or are not wanted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

import orjson

from lab.bench.scenario import Bar, Countdown, Figures, Meter, Outcome, Scenario, Stage, run
from lab.bench.traffic import CONNECTIONS, SUBMITTER, names
from lab.harness.hub import Hub
from lab.kit.agent import RawAgent
from lab.kit.sockets import Failed, Http, Message

AGENTS = 200
TIMEOUT_S = 2
LONG_S = 600
SETTLE_S = 2.0  # in which an agent would get another task
DUE = 10_000
BATCH = 500
LEAD_S = 40  # to submit all of them, also on a slow machine
WATCH_S = 5
PAUSE_S = 0.05
LIMIT_S = 180
TASK = {"description": "Stop when you are told to"}
MULE = "a-mule"


def cancel(stage: Stage) -> Outcome:
    count = stage.size(AGENTS, 20)
    with stage.hub() as listening, stage.hub() as deaf:
        return run(_cancel_all(listening, deaf, count), LIMIT_S)


async def _cancel_all(listening: Hub, deaf: Hub, count: int) -> Outcome:
    with Meter(listening, deaf) as meter:
        async with Held(listening, count, listens=True) as held:
            with Meter(listening) as asking:
                asked_s = await held.cancel(LONG_S)
                await held.ended.wait()
            ended_s = held.ended.ended_at - held.began_at
            busy = await held.agents_not("idle")
        async with Held(deaf, count, listens=False) as held:
            await held.submit(count)  # what an agent would get if it counted as free
            await held.cancel(TIMEOUT_S)
            await asyncio.sleep(TIMEOUT_S + SETTLE_S)
            late_ms = await held.fenced_late_ms()
            free = await held.agents_not("stopping")
            second = held.assigned - count
    figures: Figures = {
        "all asked s": asked_s,
        "all ended s": ended_s,
        "hub CPU ms/task": 1000 * asking.cpu.hub_s / count,
        "not idle": busy,
        "fenced off %": 100 * len(late_ms) / count,
        "late at most ms": max(late_ms, default=0.0),
        "early": sum(ms < 0 for ms in late_ms),
        "not stopping": free,
        "second tasks": second,
    }
    return Outcome(figures, meter.cpu)


class Held:
    """Agents at one hub, each with an accepted task that it will not complete."""

    def __init__(self, hub: Hub, count: int, listens: bool) -> None:
        self._hub = hub
        self._count = count
        self._tokens = hub.tokens(names(count))
        self._submitter = self._tokens.pop(SUBMITTER)
        self._given = Countdown(count)
        self._deadlines: dict[str, int] = {}
        self.assigned = 0
        self.ended = Countdown(count)
        self.began_at = 0.0
        self._agents = [
            RawAgent(name, token, (), self._note_assigned, self._note_ended, True, listens)
            for name, token in self._tokens.items()
        ]

    async def __aenter__(self) -> Held:
        await asyncio.gather(*(agent.join(self._hub.next_port()) for agent in self._agents))
        self._https = [
            await Http.connect(self._hub.next_port(), self._submitter) for _ in range(CONNECTIONS)
        ]
        self._task_ids = await self.submit(self._count)
        await self._given.wait()
        while await self.agents_not("working"):  # noqa: ASYNC110 – another process is asked
            await asyncio.sleep(PAUSE_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        for http in self._https:
            http.close()
        for agent in self._agents:
            agent.close()

    async def submit(self, count: int) -> list[str]:
        receipts = (await self._https[0].submit([TASK] * count))["tasks"]
        return [receipt["task_id"] for receipt in receipts]

    async def cancel(self, timeout_s: float) -> float:
        """Over all connections at once; give the s until the last request was answered."""
        self.began_at = time.perf_counter()
        ids = iter(self._task_ids)
        await asyncio.gather(*(self._cancel_some(http, ids, timeout_s) for http in self._https))
        return time.perf_counter() - self.began_at

    async def _cancel_some(self, http: Http, ids: Iterator[str], timeout_s: float) -> None:
        for task_id in ids:
            answer = await http.post(f"/api/tasks/{task_id}/cancel", {"timeout_s": timeout_s}, 202)
            self._deadlines[task_id] = answer["deadline"]

    async def fenced_late_ms(self) -> list[float]:
        """Of each task that ended: how much later than its deadline."""
        late = []
        for task_id, deadline in self._deadlines.items():
            task = orjson.loads(await self._https[0].get(f"/api/tasks/{task_id}"))
            ends = [e["timestamp"] for e in task["history"] if e["event"] == "task_cancelled"]
            late += [end - deadline for end in ends]
        return late

    async def agents_not(self, state: str) -> int:
        agents = orjson.loads(await self._https[0].get("/api/agents"))["agents"]
        return sum(agent["fsm_state"] != state for agent in agents)

    def _note_assigned(self, message: Message, at: float) -> None:
        self.assigned += 1
        self._given.step()

    def _note_ended(self, task_id: str, at: float) -> None:
        self.ended.step()


def due(stage: Stage) -> Outcome:
    with stage.hub() as hub:
        count, lead_s = stage.size(DUE, 500), stage.size(LEAD_S, 5)
        return run(_all_due(hub, count, lead_s), LIMIT_S)


async def _all_due(hub: Hub, count: int, lead_s: float) -> Outcome:
    http = await Http.connect(hub.port, hub.tokens([SUBMITTER])[SUBMITTER])
    moment = round(time.time() + lead_s)
    tasks = [{**TASK, "not_before": 1000 * moment}] * min(BATCH, count)
    ids: list[str] = []
    while len(ids) < count:
        ids += [receipt["task_id"] for receipt in (await http.submit(tasks))["tasks"]]
    if time.time() > moment - 1:
        raise Failed(f"{count:,} tasks could not be submitted within {lead_s:g} s")
    early = await _queued(http)
    await asyncio.sleep(moment - 1 - time.time())
    early += await _queued(http)
    with Meter(hub) as meter:
        while await _queued(http) < count:  # noqa: ASYNC110 – another process is asked
            await asyncio.sleep(PAUSE_S)
        seen_s = time.time() - moment
    at = [await _due_at(http, task_id) for task_id in ids[:: max(1, count // 200)]]
    http.close()
    figures = {
        "all queued s": seen_s,
        "early": float(early + sum(ms < 1000 * moment for ms in at)),
        "first s": min(at) / 1000 - moment,
        "hub CPU s": meter.cpu.hub_s,
    }
    return Outcome(figures, meter.cpu)


async def _queued(http: Http) -> int:
    stats = orjson.loads(await http.get("/api/tasks/stats"))
    queued: int = stats["by_status"]["queued"]
    return queued


async def _due_at(http: Http, task_id: str) -> int:
    task = orjson.loads(await http.get(f"/api/tasks/{task_id}"))
    at: Sequence[int] = [e["timestamp"] for e in task["history"] if e["event"] == "task_due"]
    return at[0]


def reject(stage: Stage) -> Outcome:
    with stage.hub() as hub:
        return run(_rejected(hub, stage.size(WATCH_S, 2)), LIMIT_S)


async def _rejected(hub: Hub, watch_s: float) -> Outcome:
    tokens = hub.tokens([SUBMITTER, MULE])
    http = await Http.connect(hub.port, tokens[SUBMITTER])
    unwanted = {**TASK, "metadata": {"unwanted": True}}
    done = Countdown(1)
    mule = RawAgent(
        MULE,
        tokens[MULE],
        completed=lambda task_id, at: done.step(),
        rejects=lambda task: bool(task["metadata"]),
    )
    await mule.join(hub.port)
    before = mule.heard
    with Meter(hub) as meter:
        began = time.perf_counter()
        task_id = (await http.submit(unwanted))["task_id"]
        await http.submit(TASK)
        await done.wait()
        done_s = done.ended_at - began
        await asyncio.sleep(watch_s)
    task = orjson.loads(await http.get(f"/api/tasks/{task_id}"))
    mule.close()
    http.close()
    figures = {
        "messages/s": (mule.heard - before) / meter.cpu.wall_s,
        "rejections": float(task["rejection_count"]),
        "next task done s": done_s,
    }
    return Outcome(figures, meter.cpu)


SCENARIOS = [
    Scenario(
        "cancel",
        f"{AGENTS} running tasks are cancelled, of agents that listen, and of others that do not",
        [
            Bar("all ended s", at_most=2),
            Bar("not idle", at_most=0),
            Bar("fenced off %", at_least=100),
            Bar("late at most ms", at_most=1_000),
            Bar("early", at_most=0),
            Bar("second tasks", at_most=0),
        ],
        cancel,
    ),
    Scenario(
        "due",
        f"{DUE:,} scheduled tasks whose time comes at one moment",
        [Bar("all queued s", at_most=2), Bar("early", at_most=0)],
        due,
    ),
    Scenario(
        "reject",
        "an agent rejects a task at once; another one waits behind it",
        [Bar("messages/s", at_most=10), Bar("next task done s", at_most=1)],
        reject,
    ),
]
