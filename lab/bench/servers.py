"""Daphne and uvicorn in turns, so that both have the same machine at the same time."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache

import orjson

from lab.bench.crowd import in_turns
from lab.bench.scenario import Figures, Meter, Outcome, Scenario, Stage, run
from lab.bench.traffic import AGENTS, Crew, names
from lab.harness.hub import SERVERS, Hub
from lab.kit.viewer import Viewer

FIGURES = (
    *("single tasks/s", "single hub CPU ms/task", "array tasks/s", "array hub CPU ms/task"),
    *("viewers' frames/s", "viewers' hub CPU µs/frame"),
)
VIEWERS = 200
LIMIT_S = 240


def servers(stage: Stage) -> Outcome:
    """Figures of each server by its name, and how uvicorn's compare with Daphne's."""
    measured: dict[str, Figures] = {}
    with ExitStack() as hubs:
        both = {server: hubs.enter_context(stage.hub(server=server)) for server in SERVERS}
        with Meter(*both.values()) as meter:
            for server, hub in both.items():
                tokens = hub.tokens(names(AGENTS))
                measured[server] = run(_measure(stage, hub, tokens), LIMIT_S)
    return Outcome(_side_by_side(measured), meter.cpu)


def _side_by_side(measured: dict[str, Figures]) -> Figures:
    figures: Figures = {}
    for name in FIGURES:
        figures |= {f"{server}: {name}": measured[server][name] for server in SERVERS}
        figures[f"uvicorn/Daphne: {name}"] = measured["uvicorn"][name] / measured["daphne"][name]
    return figures


async def _measure(stage: Stage, hub: Hub, tokens: dict[str, str]) -> Figures:
    figures: Figures = {}
    async with Crew(hub, tokens) as crew:
        for kind, tasks, batch in (
            ("single", stage.size(1_000, 100), 1),
            ("array", stage.size(5_000, 400), 100),
        ):
            with Meter(hub) as meter:
                took_s = await crew.process(tasks, batch)
            figures[f"{kind} tasks/s"] = tasks / took_s
            figures[f"{kind} hub CPU ms/task"] = 1000 * meter.cpu.hub_s / tasks
        return figures | await _watch(stage, hub, crew)


async def _watch(stage: Stage, hub: Hub, crew: Crew) -> Figures:
    """What a crowd of viewers gets while tasks flow as fast as they can."""
    decode = cache(orjson.loads)  # most frames are the same for all
    viewers = await in_turns(
        [Viewer.open(hub.next_port(), decode) for _ in range(stage.size(VIEWERS, 10))]
    )
    for viewer in viewers:
        viewer.subscribe()
    before = sum(len(viewer.arrived) for viewer in viewers)
    with Meter(hub) as meter:
        took_s = await crew.process(stage.size(1_000, 100))
    frames = sum(len(viewer.arrived) for viewer in viewers) - before
    for viewer in viewers:
        viewer.close()
    return {
        "viewers' frames/s": frames / took_s,
        "viewers' hub CPU µs/frame": 1_000_000 * meter.cpu.hub_s / frames,
    }


SCENARIOS = [
    Scenario(
        "servers",
        f"Daphne and uvicorn in turns: single submits, arrays of 100, {VIEWERS} viewers",
        [],
        servers,
    )
]
