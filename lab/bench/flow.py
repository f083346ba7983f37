"""Scenarios with tasks that flow: how many a second, how soon at an agent, how soon on the page."""

from __future__ import annotations

import asyncio
from functools import cache

import orjson

from lab.bench.scenario import Bar, Meter, Outcome, Scenario, Stage, percentile, run
from lab.bench.traffic import AGENTS, Crew, names
from lab.harness.hub import Hub
from lab.kit.viewer import Viewer

RATE = 50  # tasks a second where the time is what matters
IDLE = 20  # agents, so that one is always idle at that rate
VIEWERS = 10
FEW_VIEWERS = 5
LIMIT_S = 180


def pipeline(stage: Stage) -> Outcome:
    return _throughput(stage, tasks=stage.size(4_000, 200), batch=1)


def arrays(stage: Stage) -> Outcome:
    return _throughput(stage, tasks=stage.size(10_000, 1_000), batch=100)


def _throughput(stage: Stage, tasks: int, batch: int) -> Outcome:
    with stage.hub() as hub:
        return run(_process(hub, hub.tokens(names(AGENTS)), tasks, batch), LIMIT_S)


async def _process(hub: Hub, tokens: dict[str, str], tasks: int, batch: int) -> Outcome:
    async with Crew(hub, tokens) as crew:
        with Meter(hub) as meter:
            took_s = await crew.process(tasks, batch)
    figures = {"tasks/s": tasks / took_s, "hub CPU ms/task": 1000 * meter.cpu.hub_s / tasks}
    return Outcome(figures, meter.cpu)


def submit(stage: Stage) -> Outcome:
    with stage.hub() as hub:
        return run(_submit_times(hub, hub.tokens(names(AGENTS)), stage.size(1_000, 50)), LIMIT_S)


async def _submit_times(hub: Hub, tokens: dict[str, str], tasks: int) -> Outcome:
    async with Crew(hub, tokens, connections=1) as crew:
        viewers = await _watch(hub, FEW_VIEWERS)
        with Meter(hub) as meter:
            await crew.process(tasks)
        times = crew.answer_times_ms()
    for viewer in viewers:
        viewer.close()
    figures = {
        "POST p50 ms": percentile(times, 0.5),
        "POST p99 ms": percentile(times, 0.99),
        "hub CPU ms/task": 1000 * meter.cpu.hub_s / tasks,
    }
    return Outcome(figures, meter.cpu)


def latency(stage: Stage) -> Outcome:
    with stage.hub() as hub:
        tasks = stage.size(1_000, 50)
        return run(_assign_times(hub, hub.tokens(names(IDLE)), tasks), LIMIT_S)


async def _assign_times(hub: Hub, tokens: dict[str, str], tasks: int) -> Outcome:
    async with Crew(hub, tokens) as crew:
        with Meter(hub) as meter:
            await crew.process_at_rate(RATE, tasks)
        times = crew.assign_times_ms()
    return Outcome({"p50 ms": percentile(times, 0.5), "p99 ms": percentile(times, 0.99)}, meter.cpu)


def dashboard(stage: Stage) -> Outcome:
    with stage.hub() as hub:
        tasks = stage.size(1_000, 50)
        return run(_frame_times(hub, hub.tokens(names(IDLE)), tasks), LIMIT_S)


async def _frame_times(hub: Hub, tokens: dict[str, str], tasks: int) -> Outcome:
    async with Crew(hub, tokens) as crew:
        viewers = await _watch(hub, VIEWERS)
        with Meter(hub) as meter:
            await crew.process_at_rate(RATE, tasks)
            await asyncio.sleep(1)  # the last frame
        times = [ms for viewer in viewers for ms in crew.frame_times_ms(viewer)]
    seen = len(times) / (VIEWERS * 2 * tasks)
    figures = {
        "p50 ms": percentile(times, 0.5),
        "p99 ms": percentile(times, 0.99),
        "events seen %": 100 * seen,
    }
    return Outcome(figures, meter.cpu)


async def _watch(hub: Hub, count: int) -> list[Viewer]:
    decode = cache(orjson.loads)  # most frames are the same for all
    viewers = [await Viewer.open(hub.next_port(), decode) for _ in range(count)]
    for viewer in viewers:
        viewer.subscribe()
    return viewers


SCENARIOS = [
    Scenario(
        "pipeline",
        f"{AGENTS} agents that complete at once, single submits over 16 connections",
        [Bar("tasks/s", at_least=300)],
        pipeline,
    ),
    Scenario(
        "arrays",
        f"{AGENTS} agents that complete at once, arrays of 100 over 16 connections",
        [Bar("tasks/s", at_least=900)],
        arrays,
    ),
    Scenario(
        "submit",
        f"one submitter, each task after the last answer; {AGENTS} agents that complete at once, "
        f"{FEW_VIEWERS} dashboards with patches",
        [Bar("POST p50 ms", at_most=20)],
        submit,
    ),
    Scenario(
        "latency",
        f"submit → assign at {RATE} tasks/s, idle agents enough",
        [Bar("p50 ms", at_most=20), Bar("p99 ms", at_most=100)],
        latency,
    ),
    Scenario(
        "dashboard",
        f"commit → frame at {VIEWERS} dashboards with patches, {RATE} tasks/s",
        [Bar("p99 ms", at_most=150), Bar("events seen %", at_least=100)],
        dashboard,
    ),
]
