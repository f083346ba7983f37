"""Daphne and uvicorn in turns, so that both have the same machine at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

import orjson

from lab.bench.crowd import in_turns
from lab.bench.scenario import Cpu, Figures, Meter, Outcome, Scenario, Stage, run
from lab.bench.traffic import AGENTS, Crew, names
from lab.harness.hub import SERVERS, Hub
from lab.kit.viewer import Viewer

# What each server is measured by; for CPU less is better.
RATES = ("single tasks/s", "array tasks/s", "viewer frames/s")
COSTS = ("single hub CPU ms/task", "array hub CPU ms/task")
VIEWERS = 200
SLICES = 2  # turns of each server, so that a slow moment of the machine meets both
LIMIT_S = 240

Share = Callable[[Stage, Hub], Coroutine[Any, Any, Figures]]


def servers(stage: Stage) -> Outcome:
    """Figures of each server by its name, and how uvicorn's compare with Daphne's."""
    began = time.perf_counter()
    turns: dict[str, list[Figures]] = {server: [] for server in SERVERS}
    hub_s = 0.0
    for _ in range(SLICES):
        for server in SERVERS:
            with stage.hub(server=server) as hub:
                figures = run(_measure(stage, hub, hub.tokens(names(AGENTS))), LIMIT_S)
                hub_s += hub.cpu_s
            turns[server].append(figures)
    means = {server: _mean(figures) for server, figures in turns.items()}
    return Outcome(_side_by_side(means), Cpu(time.perf_counter() - began, hub_s, 0.0, 0.0))


def _mean(turns: list[Figures]) -> Figures:
    return {name: sum(turn[name] for turn in turns) / len(turns) for name in turns[0]}


def _side_by_side(means: dict[str, Figures]) -> Figures:
    figures: Figures = {}
    for name in (*RATES, *COSTS):
        figures |= {f"{server}: {name}": means[server][name] for server in SERVERS}
        figures[f"ratio: {name}"] = means["uvicorn"][name] / means["daphne"][name]
    return figures


async def _measure(stage: Stage, hub: Hub, tokens: dict[str, str]) -> Figures:
    figures: Figures = {}
    async with Crew(hub, tokens) as crew:
        for kind, tasks, batch in (
            ("single", stage.size(2_000, 100), 1),
            ("array", stage.size(5_000, 400), 100),
        ):
            with Meter(hub) as meter:
                took_s = await crew.process(tasks, batch)
            figures[f"{kind} tasks/s"] = tasks / took_s
            figures[f"{kind} hub CPU ms/task"] = 1000 * meter.cpu.hub_s / tasks
        figures["viewer frames/s"] = await _frames_a_second(stage, hub, crew)
    return figures


async def _frames_a_second(stage: Stage, hub: Hub, crew: Crew) -> float:
    """What a crowd of viewers gets while tasks flow as fast as they can."""
    decode = cache(orjson.loads)  # most frames are the same for all
    viewers = await in_turns(
        [Viewer.open(hub.next_port(), decode) for _ in range(stage.size(VIEWERS, 10))]
    )
    for viewer in viewers:
        viewer.subscribe()
    before = sum(len(viewer.arrived) for viewer in viewers)
    took_s = await crew.process(stage.size(2_000, 100))
    frames = sum(len(viewer.arrived) for viewer in viewers) - before
    for viewer in viewers:
        viewer.close()
    await asyncio.sleep(0)  # so that the sockets are closed before the hub is stopped
    return frames / took_s


SCENARIOS = [
    Scenario(
        "servers",
        f"Daphne and uvicorn in turns: single submits, arrays of 100, {VIEWERS} viewers",
        [],
        servers,
    )
]
