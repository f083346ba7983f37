"""A scenario with violence: a web process is killed under the agents that it holds."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import orjson

from agentcom_client import Task
from agentcom_client.connection import Message
from lab.bench.scenario import Bar, Countdown, Meter, Outcome, Scenario, Stage, percentile, run
from lab.bench.traffic import SUBMITTER, names
from lab.harness.hub import Hub
from lab.kit.fleet import Fleet, running
from lab.kit.sockets import Http

AGENTS = 1_000
WEBS = 2
BATCH = 500
LIMIT_S = 180


class HoldingFleet(Fleet):
    """Each agent accepts a task and holds it until all are released."""

    def __init__(self, hub: Hub, tokens: dict[str, str]) -> None:
        super().__init__(hub.ws_urls, tokens, self._work)
        self.released = asyncio.Event()
        self.holding = Countdown(len(tokens))
        self.asked = Countdown(len(tokens) // len(hub.webs))  # whether the task is still theirs
        self.back_at: list[float] = []

    async def _work(self, task: Task) -> dict[str, Any]:
        await self.released.wait()
        return {}

    def observe(self, agent_id: str, message: Message) -> None:
        super().observe(agent_id, message)
        match message:
            case {"type": "task_ack", "status": "accepted"}:
                self.holding.step()
            case {"type": "task_continue"}:
                self.back_at.append(time.perf_counter())
                self.asked.step()
            case {"type": "task_reassign"}:
                self.asked.step()


def failover(stage: Stage) -> Outcome:
    logging.getLogger("agentcom_client").setLevel(logging.WARNING)  # else some lines an agent
    with stage.hub(webs=WEBS) as hub:
        return run(_kill_one(hub, hub.tokens(names(stage.size(AGENTS, 50)))), LIMIT_S)


async def _kill_one(hub: Hub, tokens: dict[str, str]) -> Outcome:
    victim, survivor = hub.webs[0], hub.webs[-1]
    http = await Http.connect(survivor.port, tokens.pop(SUBMITTER))
    fleet = HoldingFleet(hub, tokens)
    async with running(fleet):
        for _ in range(0, len(tokens), BATCH):
            await http.submit([{"description": "Hold on"}] * min(BATCH, len(tokens)))
        await fleet.holding.wait()
        with Meter(hub) as meter:
            killed_at = time.perf_counter()
            victim.kill()
            await fleet.asked.wait()
            fleet.released.set()
            await fleet.until_completed(len(tokens))
        queue = orjson.loads(await http.get("/api/tasks/stats"))["by_status"]
        hour = orjson.loads(await http.get("/api/dashboard/state"))["throughput"]
    http.close()
    times = [at - killed_at for at in fleet.back_at]
    repeated = sum(map(len, fleet.handed.values())) - len(tokens)
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
