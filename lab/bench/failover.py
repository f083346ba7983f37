"""A scenario with violence: a web process is killed under the agents that it holds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import Any

import orjson

from fleet.client import Agent, Task
from lab.bench.scenario import Bar, Countdown, Meter, Outcome, Scenario, Stage, percentile, run
from lab.bench.traffic import SUBMITTER, names
from lab.harness.clients import Http, Message
from lab.harness.hub import Hub

AGENTS = 1_000
WEBS = 2
BATCH = 500
LIMIT_S = 180


class Fleet:
    """Agents of which each accepts a task and holds it until it is told to complete it.

    They are those of `fleet/client.py`, with its pauses; each knows all processes and begins
    with another one.
    """

    def __init__(self, hub: Hub, tokens: dict[str, str]) -> None:
        self.agents = [
            Agent(hub.ws_urls(number), name, token, self._work, observe=self._observe)
            for number, (name, token) in enumerate(tokens.items())
        ]
        self.released = asyncio.Event()
        self.holding = Countdown(len(self.agents))
        self.asked = Countdown(
            len(self.agents) // len(hub.webs)
        )  # whether the task is still theirs
        self.done = Countdown(len(self.agents))
        self.back_at: list[float] = []
        self.handed: Counter[str] = Counter()
        self.acked: Counter[str] = Counter()

    async def _work(self, task: Task) -> dict[str, Any]:
        await self.released.wait()
        return {}

    def _observe(self, message: Message) -> None:
        match message:
            case {"type": "task_assign", "task_id": task_id}:
                self.handed[task_id] += 1
            case {"type": "task_ack", "status": "accepted"}:
                self.holding.step()
            case {"type": "task_continue"}:
                self.back_at.append(time.perf_counter())
                self.asked.step()
            case {"type": "task_reassign"}:
                self.asked.step()
            case {"type": "task_ack", "status": "complete", "task_id": task_id}:
                self.acked[task_id] += 1
                if self.acked[task_id] == 1:
                    self.done.step()


def failover(stage: Stage) -> Outcome:
    logging.getLogger("fleet.client").setLevel(logging.WARNING)  # else some lines an agent
    with stage.hub(webs=WEBS) as hub:
        return run(_kill_one(hub, hub.tokens(names(stage.size(AGENTS, 50)))), LIMIT_S)


async def _kill_one(hub: Hub, tokens: dict[str, str]) -> Outcome:
    victim, survivor = hub.webs[0], hub.webs[-1]
    http = await Http.connect(survivor.port, tokens.pop(SUBMITTER))
    fleet = Fleet(hub, tokens)
    running = [asyncio.create_task(agent.run()) for agent in fleet.agents]
    for _ in range(0, len(tokens), BATCH):
        await http.submit([{"description": "Hold on"}] * min(BATCH, len(tokens)))
    await fleet.holding.wait()
    with Meter(hub) as meter:
        killed_at = time.perf_counter()
        victim.kill()
        await fleet.asked.wait()
        fleet.released.set()
        await fleet.done.wait()
    queue = orjson.loads(await http.get("/api/tasks/stats"))["by_status"]
    hour = orjson.loads(await http.get("/api/dashboard/state"))["throughput"]
    await asyncio.gather(*(agent.stop() for agent in fleet.agents))
    await asyncio.gather(*running)
    http.close()
    times = [at - killed_at for at in fleet.back_at]
    repeated = sum(times - 1 for times in fleet.handed.values())
    figures = {
        "back %": 100 * len(times) * len(hub.webs) / len(tokens),
        "half back s": percentile(times, 0.5),
        "all back s": max(times),
        "lost": len(tokens) - queue["completed"],
        "doubled": max(repeated, hour["completed_last_hour"] - len(tokens)),
    }
    return Outcome(figures, meter.cpu)


SCENARIOS = [
    Scenario(
        "failover",
        f"kill -9 of one of two processes; half of {AGENTS:,} agents go on at the other",
        [Bar("back %", at_least=100), Bar("lost", at_most=0), Bar("doubled", at_most=0)],
        failover,
    ),
]
