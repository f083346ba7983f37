"""A scenario of a program that submits many tasks and waits for each, with the published client."""

from __future__ import annotations

import asyncio
import time

from agentcom_client import AsyncHub
from lab.bench.scenario import Bar, Meter, Outcome, Scenario, Stage, percentile, run
from lab.bench.traffic import AGENTS, SUBMITTER, Crew, names
from lab.harness.hub import Hub

AT_ONCE = 50  # submits under way
LIMIT_S = 180


def wait(stage: Stage) -> Outcome:
    with stage.hub() as hub:
        tasks = stage.size(1_000, 100)
        return run(_submit_and_wait(hub, hub.tokens(names(AGENTS)), tasks), LIMIT_S)


async def _submit_and_wait(hub: Hub, tokens: dict[str, str], tasks: int) -> Outcome:
    told_at: dict[str, float] = {}
    room = asyncio.Semaphore(AT_ONCE)
    async with Crew(hub, tokens) as crew, AsyncHub(hub.url, tokens[SUBMITTER]) as client:

        async def do_one() -> None:
            async with room:
                task_id = await client.submit("Summarise the incident report of last night")
            (await client.wait(task_id)).outcome()
            told_at[task_id] = time.perf_counter()

        with Meter(hub) as meter:
            began = time.perf_counter()
            await asyncio.gather(*(do_one() for _ in range(tasks)))
            took_s = time.perf_counter() - began
        # 0 where it was told before the agent had its ack.
        acked_at = [(at, crew.acked_at.get(task_id, at)) for task_id, at in told_at.items()]
        late_ms = [1000 * max(0.0, told - acked) for told, acked in acked_at]
        figures = {
            "s": took_s,
            "tasks/s": tasks / took_s,
            "HTTP calls/task": client.calls / tasks,
            "told p50 ms": percentile(late_ms, 0.5),
            "told p99 ms": percentile(late_ms, 0.99),
        }
    return Outcome(figures, meter.cpu)


SCENARIOS = [
    Scenario(
        "wait",
        "1,000 single submits with `AsyncHub`, each waited for over one socket",
        [Bar("HTTP calls/task", at_most=1), Bar("told p99 ms", at_most=500)],
        wait,
    ),
]
