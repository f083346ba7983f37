"""Scenarios with much in the database: two hubs take turns, so that both see the same machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import pairwise

from lab.bench import HELD, SOMEBODY
from lab.bench.scenario import (
    Bar,
    Countdown,
    Meter,
    Outcome,
    Scenario,
    Stage,
    percentile,
    run,
)
from lab.bench.traffic import SUBMITTER, Crew
from lab.harness.hub import Hub
from lab.kit.agent import RawAgent
from lab.kit.sockets import Http

STORED = (1_000, 1_000_000)
QUEUED = 100_000
NEEDS = 20_000
REBUILD_S = 0.15  # between two looks; a hub's turn comes after two, when it may build again
PROBE = "probe"
TASK = {"description": "Watch the queue"}
LIMIT_S = 240


def state(stage: Stage) -> Outcome:
    few = stage.filled("history", str(STORED[0]))
    many = stage.filled("history", str(stage.size(STORED[1], 10_000)))
    with few, many:
        return run(_state_times((few, many), stage.size(150, 10)), LIMIT_S)


async def _state_times(hubs: tuple[Hub, Hub], samples: int) -> Outcome:
    """Each look finds a new event, so the snapshot is built anew; the next finds it ready."""
    https = [await Http.connect(hub.port, hub.tokens([SUBMITTER])[SUBMITTER]) for hub in hubs]
    built: tuple[list[float], list[float]] = ([], [])
    ready: tuple[list[float], list[float]] = ([], [])
    with Meter(*hubs) as meter:
        for _ in range(samples):
            for http, anew, again in zip(https, built, ready, strict=True):
                await http.submit(TASK)
                await asyncio.sleep(REBUILD_S)
                anew.append(await _look(http))
                again.append(await _look(http))
    few, many = (percentile(times, 0.95) for times in built)
    figures = {
        "p95 ms, few stored": few,
        "p95 ms, many stored": many,
        "many/few ×": many / few,
        "p50 many/few ×": percentile(built[1], 0.5) / percentile(built[0], 0.5),
        "p95 ms, many, nothing new": percentile(ready[1], 0.95),
    }
    return Outcome(figures, meter.cpu)


async def _look(http: Http) -> float:
    began = time.perf_counter()
    await http.get("/api/dashboard/state")
    return 1000 * (time.perf_counter() - began)


def claim(stage: Stage) -> Outcome:
    full = stage.filled("queue", str(stage.size(QUEUED, 4_000)))
    varied = stage.filled("needs", str(stage.size(NEEDS, 1_000)))
    with stage.hub() as empty, full, varied:
        return run(_claim_times((empty, full, varied), stage.size(300, 20)), LIMIT_S)


async def _claim_times(hubs: tuple[Hub, Hub, Hub], samples: int) -> Outcome:
    with Meter(*hubs) as meter:
        times = await _new_task_times(hubs, samples)
        next_empty, next_full = await asyncio.gather(
            *(_next_task_ms(hub, samples) for hub in hubs[:2])
        )
    empty, full, varied = (percentile(those, 0.5) for those in times)
    figures = {
        "p50 ms, empty": empty,
        "p50 ms, full": full,
        "p50 ms, distinct needs": varied,
        "full/empty ×": full / empty,
        "distinct needs/empty ×": varied / empty,
        "next task, full/empty ×": next_full / next_empty,
    }
    return Outcome(figures, meter.cpu)


def held(stage: Stage) -> Outcome:
    count = str(stage.size(QUEUED, 4_000))
    behind_holds, scheduled = stage.filled("held", count), stage.filled("scheduled", count)
    with stage.hub() as empty, behind_holds, scheduled:
        hubs = (empty, behind_holds, scheduled)
        return run(_held_times(hubs, stage.size(300, 20)), LIMIT_S)


async def _held_times(hubs: tuple[Hub, Hub, Hub], samples: int) -> Outcome:
    """The agent could do all that is held. Each hub has the holds: only the tasks differ."""
    for hub in hubs:
        http = await Http.connect(hub.port, hub.tokens([SUBMITTER])[SUBMITTER])
        for scope, subject in (("lane", "low"), ("capability", HELD)):
            await http.post("/api/holds", {"scope": scope, "subject": subject, "reason": "-"}, 201)
        http.close()
    with Meter(*hubs) as meter:
        times = await _new_task_times(hubs, samples, [HELD])
    empty, behind_holds, scheduled = (percentile(those, 0.5) for those in times)
    figures = {
        "p50 ms, empty": empty,
        "p50 ms, held": behind_holds,
        "p50 ms, scheduled": scheduled,
        "held/empty ×": behind_holds / empty,
        "scheduled/empty ×": scheduled / empty,
    }
    return Outcome(figures, meter.cpu)


async def _new_task_times(
    hubs: Sequence[Hub], samples: int, more: Sequence[str] = ()
) -> list[list[float]]:
    """From submit to assign, of a task that only the idle agent can do, behind all the others."""
    async with AsyncExitStack() as stack:
        crews = []
        for hub in hubs:
            tokens = hub.tokens([SUBMITTER, "agent-probe"])
            crews.append(await stack.enter_async_context(Crew(hub, tokens, 1, [PROBE], more)))
        for _ in range(samples):
            for crew in crews:
                await crew.process(1)
        return [crew.assign_times_ms() for crew in crews]


async def _next_task_ms(hub: Hub, samples: int) -> float:
    """From one ack to the next of an agent that takes one task after the other off the queue.

    A hub without a queue gets just as many tasks as are taken; where there is one, they stand at
    its end, and the agent takes the first that it can do.
    """
    tokens = hub.tokens([SUBMITTER, "agent-bulk"])
    http = await Http.connect(hub.port, tokens[SUBMITTER])
    await http.submit([{**TASK, "needed_capabilities": [SOMEBODY]}] * samples)
    acks: list[float] = []
    left = Countdown(samples)

    def note(task_id: str, at: float) -> None:
        acks.append(at)
        left.step()

    agent = RawAgent("agent-bulk", tokens["agent-bulk"], [SOMEBODY], completed=note)
    await agent.join(hub.port)
    await left.wait()
    agent.close()
    http.close()
    return percentile([1000 * (after - before) for before, after in pairwise(acks)], 0.5)


SCENARIOS = [
    Scenario(
        "state",
        "/api/dashboard/state built anew, 1,000 and 1,000,000 tasks stored",
        [
            Bar("p95 ms, few stored", at_most=20),
            Bar("p95 ms, many stored", at_most=20),
            Bar("many/few ×", at_most=1.5),
        ],
        state,
    ),
    Scenario(
        "claim",
        f"submit → assign behind {QUEUED:,} queued, the first half of them for nobody, "
        f"and behind {NEEDS:,} that nobody can do, each with needs of its own",
        [
            Bar("full/empty ×", at_most=1.5),
            Bar("distinct needs/empty ×", at_most=1.5),
            Bar("next task, full/empty ×", at_most=1.5),
        ],
        claim,
    ),
    Scenario(
        "held",
        f"submit → assign beside {QUEUED:,} tasks that are held, and beside as many scheduled",
        [Bar("held/empty ×", at_most=1.5), Bar("scheduled/empty ×", at_most=1.5)],
        held,
    ),
]
