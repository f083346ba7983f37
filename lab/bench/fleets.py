"""Scenarios with a fleet or a queue that is large, and somebody who looks at it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import orjson

from lab.bench.page import BROWSER_OPTIONS, FIRST_PAINT, chromium, playwright
from lab.bench.scenario import Bar, Meter, Outcome, Scenario, Stage, percentile, run
from lab.bench.traffic import SUBMITTER, Crew, names
from lab.harness.hub import Hub
from lab.kit.sockets import Failed, Http
from lab.kit.viewer import Viewer

QUEUED = (500, 3_000, 100_000)
STORED = 1_000_000
LOOKS = 200
TASK = {"description": "Watch the queue"}
KNOWN, CONNECTED = 100_000, 20_000
WORKERS = 20
RATE = 20  # tasks a second
SCROLLS = 40
LIMIT_S = 300


def fresh(stage: Stage) -> Outcome:
    sizes = [stage.size(size, 500 + number) for number, size in enumerate(QUEUED)]
    hubs = {f"{size:,} queued": stage.filled("queue", str(size)) for size in sizes}
    hubs[f"{STORED:,} stored"] = stage.filled("history", str(stage.size(STORED, 10_000)))
    with ExitStack() as running:
        for hub in hubs.values():
            running.enter_context(hub)
        with Meter(*hubs.values()) as meter:
            times = run(_look_in_turns(list(hubs.values()), stage.size(LOOKS, 20)), LIMIT_S)
    figures = {f"{name}, p50 ms": percentile(t, 0.5) for name, t in zip(hubs, times, strict=True)}
    figures["largest p50 ms"] = max(figures.values())
    figures["largest p99 ms"] = max(percentile(taken, 0.99) for taken in times)
    return Outcome(figures, meter.cpu)


async def _look_in_turns(hubs: Sequence[Hub], looks: int) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in hubs]
    async with AsyncExitStack() as open_:
        https = []
        for hub in hubs:
            http = await Http.connect(hub.next_port(), hub.token(SUBMITTER))
            open_.callback(http.close)
            await http.submit(TASK)
            https.append(http)
            await _state_ms(http)
        for _ in range(looks):
            for http, taken in zip(https, times, strict=True):
                await http.submit(TASK)
                taken.append(await _state_ms(http))
    return times


async def _state_ms(http: Http) -> float:
    began = time.perf_counter()
    await http.get("/api/dashboard/state")
    return 1000 * (time.perf_counter() - began)


def crowd(stage: Stage) -> Outcome:
    known = stage.size(KNOWN, 10_000)
    hub = stage.filled("fleet", str(known))
    for server in hub.servers:  # the process of those agents is not there
        server.reroute(AGENTCOM_NODE_TIMEOUT_S="3600")
    with hub:
        tokens = hub.tokens(names(WORKERS))
        figures, cpu = run(_look_at_crowd(hub, tokens, stage.size(20, 4)), LIMIT_S)
        figures["hub kB/agent"] = hub.resident_kb / (known * CONNECTED / KNOWN)
    return Outcome(figures, cpu)


async def _look_at_crowd(
    hub: Hub, tokens: dict[str, str], seconds: int
) -> tuple[dict[str, float], Any]:
    async with Crew(hub, tokens) as crew:
        with Meter(hub) as meter:
            async with await Viewer.open(hub.next_port()) as viewer:
                snapshot = await viewer.snapshot()
                working = asyncio.ensure_future(crew.process_at_rate(RATE, RATE * seconds))
                figures = await _use_page(hub)
                await working
    figures["snapshot MB"] = len(orjson.dumps(snapshot)) / 1e6
    return figures, meter.cpu


async def _use_page(hub: Hub) -> dict[str, float]:
    """Open the page, scroll through the agents, and filter them."""
    async with playwright() as tools:
        browser = await tools.chromium.launch(executable_path=chromium(), args=BROWSER_OPTIONS)
        view = await browser.new_page(viewport={"width": 1440, "height": 900})
        await view.goto(f"http://127.0.0.1:{hub.port}/dashboard")
        rows_at_first = await view.locator("#agent-rows tr").count()
        await view.wait_for_selector("html[data-connection=live]")
        first_paint_ms = float(await view.evaluate(FIRST_PAINT))
        summary = view.locator("#agents-summary")
        await view.wait_for_function(SHOWS_ALL)
        await browser.start_tracing(page=view, categories=["disabled-by-default-devtools.timeline"])
        waits = [await _scroll(view, share / SCROLLS) for share in range(1, SCROLLS + 1)]
        longest = max(page_tasks_ms(await browser.stop_tracing()))
        began = time.perf_counter()
        await view.fill("#agent-filter", "agent-000123")
        await view.wait_for_function(SHOWS_ONE)
        filter_ms = 1000 * (time.perf_counter() - began)
        text = await summary.inner_text()
        if rows_at_first == 0 or not text.startswith("1 of"):
            raise Failed(f"the page shows {rows_at_first} agents at first, and then {text}")
        await browser.close()
    return {
        "first paint ms": first_paint_ms,
        "scrolling: longest task ms": longest,
        "scrolling: rows after p99 ms": percentile(waits, 0.99),
        "filter ms": filter_ms,
    }


# The table has rows from its top to its bottom.
SHOWS_ALL = """() => {
  const box = document.querySelector("#agents-table").getBoundingClientRect();
  const rows = [...document.querySelectorAll("#agent-rows tr")];
  const edges = rows.map((row) => row.getBoundingClientRect());
  return edges.some(({ top }) => top <= box.top + 60)
    && edges.some(({ bottom }) => bottom >= box.bottom - 60);
}"""
SHOWS_ONE = "() => document.querySelectorAll('#agent-rows tr').length === 1"


async def _scroll(view: Any, share: float) -> float:
    """To a place in the list; the ms until its rows are there."""
    began = time.perf_counter()
    await view.evaluate(
        """(share) => {
          const table = document.querySelector("#agents-table");
          table.scrollTop = share * (table.scrollHeight - table.clientHeight);
        }""",
        share,
    )
    await view.wait_for_function(SHOWS_ALL)
    return 1000 * (time.perf_counter() - began)


def page_tasks_ms(trace: bytes) -> list[float]:
    """The processor time of each task of the page's main thread."""
    events = json.loads(trace)["traceEvents"]
    main = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    return [
        float(event.get("tdur", 0)) / 1000
        for event in events
        if event["name"].endswith("RunTask") and (event["pid"], event["tid"]) in main
    ]


SCENARIOS = [
    Scenario(
        "fresh",
        f"the state right after a change: {QUEUED[0]} to {QUEUED[-1]:,} queued, {STORED:,} stored",
        [
            Bar("largest p50 ms", at_most=5),
            Bar("largest p99 ms", at_most=20),
        ],
        fresh,
    ),
    Scenario(
        "crowd",
        f"the page of a hub that knows {KNOWN:,} agents, of which {CONNECTED:,} are connected",
        [
            Bar("first paint ms", at_most=1500),
            Bar("scrolling: longest task ms", at_most=100),
            Bar("hub kB/agent", at_most=25),
        ],
        crowd,
    ),
]
