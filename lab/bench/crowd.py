"""Scenarios with many sockets: a herd of agents, a thousand viewers, and what an agent weighs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from functools import cache
from typing import Any

import orjson

from lab.bench.scenario import Bar, Meter, Outcome, Scenario, Stage, T, percentile, run
from lab.bench.traffic import Crew, event_frames, names
from lab.harness.hub import Hub
from lab.kit.agent import RawAgent
from lab.kit.sockets import Http
from lab.kit.viewer import Viewer

HERD = 5_000
IDLERS = 2_000  # agents that are weighed
VIEWERS = 1_000
RATE = 50  # tasks a second, four events each
IDLE = 20
AT_A_TIME = 50  # connections, where being many at once is not the point
SETTLE_S = 3.0
SCRAPED = 5_000  # agents of a hub whose metrics are read
SCRAPES = 200
LIFE = ["task_submitted", "task_assigned", "task_accepted", "task_complete"]
LIMIT_S = 180


def herd(stage: Stage) -> Outcome:
    count = stage.size(HERD, 100)
    with stage.hub() as hub:
        return run(_rush(hub, hub.tokens(_herd(count))), LIMIT_S)


async def _rush(hub: Hub, tokens: dict[str, str]) -> Outcome:
    """Nobody tries twice: who is not let in at first is missing."""
    agents = [RawAgent(name, token) for name, token in tokens.items()]
    with Meter(hub) as meter:
        began = time.perf_counter()
        results = await asyncio.gather(
            *(_timed_join(agent, hub.next_port()) for agent in agents), return_exceptions=True
        )
    times = [at - began for at in results if isinstance(at, float)]
    for agent, at in zip(agents, results, strict=True):
        if isinstance(at, float):
            agent.close()
    figures = {
        "identified %": 100 * len(times) / len(agents),
        "s": max(times, default=0.0),
        "p50 s": percentile(times, 0.5) if times else 0.0,
        "hub CPU s": meter.cpu.hub_s,
    }
    return Outcome(figures, meter.cpu)


async def _timed_join(agent: RawAgent, port: int) -> float:
    await agent.join(port)
    return time.perf_counter()


def viewers(stage: Stage) -> Outcome:
    with stage.hub() as hub:
        tokens = hub.tokens(names(IDLE))
        tasks = RATE * stage.size(10, 2)
        return run(_watched(hub, tokens, stage.size(VIEWERS, 50), tasks), LIMIT_S)


async def _watched(hub: Hub, tokens: dict[str, str], count: int, tasks: int) -> Outcome:
    decode = cache(orjson.loads)  # most frames are the same for all
    async with Crew(hub, tokens) as crew:
        viewers = await in_turns([Viewer.open(hub.next_port(), decode) for _ in range(count)])
        for viewer in viewers:
            await viewer.snapshot()  # what happens before it is in it, and is not told
        with Meter(hub) as meter:
            await crew.process_at_rate(RATE, tasks)
            await asyncio.sleep(SETTLE_S)
        whole = sum(_saw_everything(viewer, set(crew.sent_at)) for viewer in viewers)
        times = [ms for viewer in viewers for ms in crew.frame_times_ms(viewer)]
    for viewer in viewers:
        viewer.close()
    figures = {
        "saw every event %": 100 * whole / count,
        "frames/s": max(_frames_a_second(viewer) for viewer in viewers),
        "p99 ms": percentile(times, 0.99),
        "hub CPU s": meter.cpu.hub_s,
    }
    return Outcome(figures, meter.cpu)


def _saw_everything(viewer: Viewer, task_ids: set[str]) -> bool:
    """Every event of every task, once and in order."""
    seen: dict[str, list[str]] = {task_id: [] for task_id in task_ids}
    for _, frame in event_frames(viewer):
        for event in frame["data"]:
            if event.get("task_id") in seen:
                seen[event["task_id"]].append(event["event"])
    return all(life == LIFE for life in seen.values())


def _frames_a_second(viewer: Viewer) -> float:
    times = [at for at, _ in event_frames(viewer)]
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0


def memory(stage: Stage) -> Outcome:
    count = stage.size(IDLERS, 100)
    with stage.hub() as hub:
        return run(_weigh(hub, hub.tokens(_herd(count))), LIMIT_S)


async def _weigh(hub: Hub, tokens: dict[str, str]) -> Outcome:
    """The first few come and go before, so that what the hub loads once is not counted."""
    with Meter(hub) as meter:
        for agent in await connect_all(hub, dict(list(tokens.items())[:AT_A_TIME])):
            agent.close()
        await asyncio.sleep(SETTLE_S)
        before_kb = hub.resident_kb
        agents = await connect_all(hub, tokens)
        await asyncio.sleep(SETTLE_S)
        after_kb = hub.resident_kb
    for agent in agents:
        agent.close()
    figures = {"kB/agent": (after_kb - before_kb) / len(agents), "hub MB": after_kb / 1000}
    return Outcome(figures, meter.cpu)


async def connect_all(hub: Hub, tokens: dict[str, str]) -> list[RawAgent]:
    agents = [RawAgent(name, token) for name, token in tokens.items()]
    await in_turns([agent.join(hub.next_port()) for agent in agents])
    return agents


async def in_turns(joining: list[Coroutine[Any, Any, T]]) -> list[T]:
    joined: list[T] = []
    for start in range(0, len(joining), AT_A_TIME):
        joined += await asyncio.gather(*joining[start : start + AT_A_TIME])
    return joined


def scrape(stage: Stage) -> Outcome:
    with stage.hub() as hub:
        tokens = hub.tokens(_herd(stage.size(SCRAPED, 100)))
        return run(_scraped(hub, tokens, stage.size(SCRAPES, 20)), LIMIT_S)


async def _scraped(hub: Hub, tokens: dict[str, str], scrapes: int) -> Outcome:
    """First scrapes alone, for their cost; then while another client asks what takes nothing, for
    what a scrape holds up."""
    await _scrape_all(hub, 1)  # the first one reads the state
    agents = await connect_all(hub, tokens)
    with Meter(hub) as meter:
        bodies = await _scrape_all(hub, scrapes)
    scraping = asyncio.ensure_future(_scrape_all(hub, scrapes))
    times = await _probe_until_done(hub, scraping)
    for agent in agents:
        agent.close()
    figures = {
        "hub CPU ms": 1000 * meter.cpu.hub_s / scrapes,
        "other calls, p99 ms": percentile(times, 0.99),
        "other calls, longest ms": max(times),
        "series": float(_series(bodies[-1])),
        "kB": len(bodies[-1]) / 1000,
    }
    return Outcome(figures, meter.cpu)


async def _scrape_all(hub: Hub, scrapes: int) -> list[bytes]:
    http = await Http.connect(hub.next_port())
    bodies = [await http.get("/metrics") for _ in range(scrapes)]
    http.close()
    return bodies


async def _probe_until_done(hub: Hub, other: asyncio.Future[Any]) -> list[float]:
    http, times = await Http.connect(hub.next_port()), []
    while not other.done():
        began = time.perf_counter()
        await http.get("/health/live")
        times.append(1000 * (time.perf_counter() - began))
    http.close()
    return times


def _series(body: bytes) -> int:
    return sum(not line.startswith(b"#") for line in body.splitlines())


def _herd(count: int) -> list[str]:
    return [f"agent-{number}" for number in range(count)]


SCENARIOS = [
    Scenario(
        "herd",
        f"{HERD:,} agents connect and identify at once",
        [Bar("identified %", at_least=100), Bar("s", at_most=5)],
        herd,
    ),
    Scenario(
        "viewers",
        f"{VIEWERS:,} dashboards, {RATE} tasks/s",
        [Bar("saw every event %", at_least=100), Bar("frames/s", at_most=10)],
        viewers,
    ),
    Scenario(
        "memory",
        f"resident memory of the hub for each of {IDLERS:,} idle agents",
        [Bar("kB/agent", at_most=60)],
        memory,
    ),
    Scenario(
        "scrape",
        f"GET /metrics of a hub with {SCRAPED:,} agents, one after the other",
        [Bar("hub CPU ms", at_most=20), Bar("series", at_most=250)],
        scrape,
    ),
]
