"""The page in a real browser: from the ack of a completion to the painted row, and first paint.

Needs Playwright (requirements-dev) and a Chromium; the browser itself takes the times.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from functools import cache
from typing import Any

import orjson

from lab.bench.crowd import LIMIT_S, connect_all, in_turns
from lab.bench.scenario import Bar, Meter, Outcome, Scenario, Stage, percentile, run
from lab.bench.traffic import Crew, names
from lab.harness.hub import Hub
from lab.kit.sockets import Failed
from lab.kit.viewer import Viewer

AGENTS = 1_000
WATCHERS = 50
RATE = 20  # tasks a second
SKILL = ["bench"]  # of the crew alone: the thousand only stand there
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_OPTIONS = ["--disable-gpu", "--disable-background-networking"]
SETTLE_S = 2.0

# Notes when the frame in which a task's row first stood has been handed to the screen: a message
# that is posted while a frame is being made arrives after its paint.
NOTE_PAINTS = """() => {
  window.painted = {};
  const rows = document.querySelector("#completion-rows");
  const now = () => performance.timeOrigin + performance.now();
  new MutationObserver(() => {
    const ids = [...rows.children].map((row) => row.dataset.task).filter((id) => !painted[id]);
    for (const id of ids) painted[id] = Infinity;
    requestAnimationFrame(() => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => { for (const id of ids) painted[id] = now(); };
      port2.postMessage(null);
    });
  }).observe(rows, { childList: true });
}"""
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def page(stage: Stage) -> Outcome:
    crowd = [f"idle-{number}" for number in range(stage.size(AGENTS, 50))]
    with stage.hub() as hub:
        tokens = hub.tokens(crowd)
        crew = hub.tokens(names(10))
        return run(_watched(hub, tokens, crew, RATE * stage.size(20, 2)), LIMIT_S)


async def _watched(
    hub: Hub, crowd: dict[str, str], crew_tokens: dict[str, str], tasks: int
) -> Outcome:
    idle = await connect_all(hub, crowd)
    decode = cache(orjson.loads)
    watchers = await in_turns([Viewer.open(hub.next_port(), decode) for _ in range(WATCHERS)])
    for watcher in watchers:
        watcher.subscribe()
    async with Crew(hub, crew_tokens, capabilities=SKILL) as crew:
        with Meter(hub) as meter:
            first_paint_ms, painted = await _look(hub, crew, tasks)
    for agent in idle:
        agent.close()
    for watcher in watchers:
        watcher.close()
    to_wall_clock = time.time() - time.perf_counter()
    times = [
        painted[task_id] - 1000 * (at + to_wall_clock)
        for task_id, at in crew.acked_at.items()
        if task_id in painted
    ]
    figures = {
        "p50 ms": percentile(times, 0.5) if times else 0.0,
        "p99 ms": percentile(times, 0.99) if times else 0.0,
        "painted %": 100 * len(times) / len(crew.acked_at),
        "first paint ms": first_paint_ms,
    }
    return Outcome(figures, meter.cpu)


async def _look(hub: Hub, crew: Crew, tasks: int) -> tuple[float, dict[str, float]]:
    """Open the page, have tasks processed, and give the first paint and each row's, in ms."""
    async with playwright() as tools:
        browser = await tools.chromium.launch(executable_path=chromium(), args=BROWSER_OPTIONS)
        view = await browser.new_page(viewport={"width": 1440, "height": 900})
        await view.goto(f"http://127.0.0.1:{hub.port}/dashboard")
        await view.wait_for_selector("html[data-connection=live]")
        first_paint_ms = float(await view.evaluate(FIRST_PAINT))
        await view.evaluate(NOTE_PAINTS)
        await crew.process_at_rate(RATE, tasks)
        await asyncio.sleep(SETTLE_S)
        painted: dict[str, float] = await view.evaluate("painted")
        await browser.close()
    return first_paint_ms, painted


def playwright() -> Any:
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        raise Failed("this scenario needs Playwright: `make test` installs it") from None
    return async_playwright()


def chromium() -> str:
    chosen = os.environ.get("AGENTCOM_CHROMIUM")
    path = chosen or next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        raise Failed("this scenario needs a Chromium: install it, or set AGENTCOM_CHROMIUM")
    return path


SCENARIOS = [
    Scenario(
        "page",
        f"{AGENTS:,} agents, {WATCHERS} other viewers: from a completion's ack to the painted row",
        [
            Bar("p99 ms", at_most=250),
            Bar("painted %", at_least=100),
            Bar("first paint ms", at_most=1000),
        ],
        page,
    ),
]
