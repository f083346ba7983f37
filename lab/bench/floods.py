"""One client floods the hub in every way that it can, while others work: what these notice.

The flood comes from a process of its own, `python -m lab.bench.floods KIND PORT TOKEN SECONDS`. It
shares the machine's processor with the hub, which by itself costs the others something.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from lab.bench.scenario import Bar, Meter, Outcome, Scenario, Stage, percentile, run
from lab.bench.traffic import Crew, names
from lab.harness.hub import Hub
from lab.harness.store import ROOT
from lab.kit.sockets import TEXT, Closed, Failed, Http, WebSocket, frame

WORKERS = 100
RATE = 50  # tasks a second
FLOOD_S = 8
LIMIT_S = 600
FLOODER = "flooder"

Flood = Callable[[int, str], Awaitable[None]]


def floods(stage: Stage) -> Outcome:
    """For each kind the median and p99 of submit → assign while it floods, over those before."""
    kinds = list(KINDS) if not stage.quick else ["pings"]
    with stage.hub(limits=True) as hub:
        tokens = hub.tokens(names(WORKERS), "submitter") | hub.tokens(names(WORKERS)[1:], "agent")
        flooder = hub.tokens([FLOODER], "agent")[FLOODER]
        return run(_compare(hub, tokens, flooder, kinds, stage.size(FLOOD_S, 2)), LIMIT_S)


async def _compare(
    hub: Hub, tokens: dict[str, str], flooder: str, kinds: list[str], seconds: int
) -> Outcome:
    figures: dict[str, float] = {}
    # with a capability that the flooder lacks, or it would get tasks
    async with Crew(hub, tokens, capabilities=["work"]) as crew:
        with Meter(hub) as meter:
            for kind in kinds:
                before = await _times(crew, seconds)
                async with _flooded(kind, hub, flooder, seconds + 2):
                    await asyncio.sleep(1)
                    during = await _times(crew, seconds)
                after = await _times(crew, seconds)
                figures[f"{kind}: p50 before ms"] = percentile(before, 0.5)
                figures[f"{kind}: p50 ms"] = percentile(during, 0.5)
                figures[f"{kind}: p99 ms"] = percentile(during, 0.99)
                figures[f"{kind}: p50 after ms"] = percentile(after, 0.5)
        figures["memory MB"] = hub.resident_kb / 1024
    return Outcome(figures, meter.cpu)


async def _times(crew: Crew, seconds: int) -> list[float]:
    crew.sent_at.clear()
    await crew.process_at_rate(RATE, RATE * seconds)
    return crew.assign_times_ms()


@asynccontextmanager
async def _flooded(kind: str, hub: Hub, token: str, seconds: int) -> AsyncIterator[None]:
    command = (sys.executable, "-m", "lab.bench.floods", kind, str(hub.port), str(seconds))
    environment = {**os.environ, "FLOOD_TOKEN": token}
    flood = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            flood.terminate()
        await flood.wait()


# --- The floods. Each goes on until it is ended; a socket that the hub closes is opened again.


def _ignore(text: bytes) -> None:
    """What a flooder hears."""


async def _over_agents_socket(port: int, token: str, message: dict[str, object]) -> None:
    payload = frame(TEXT, json.dumps(message).encode()) * 50
    while True:
        socket = await WebSocket.connect(port, "/ws", _ignore)
        socket.send(type="identify", token=token)
        while not socket.closed.done():
            socket.transport.write(payload)
            while socket.transport.get_write_buffer_size() > 1_000_000:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)


async def pings(port: int, token: str) -> None:
    await _over_agents_socket(port, token, {"type": "ping"})


async def progress(port: int, token: str) -> None:
    about = {"task_id": "task-0123456789abcdef", "generation": 1, "progress": 1}
    await _over_agents_socket(port, token, {"type": "task_progress", **about, "message": "x" * 400})


async def statuses(port: int, token: str) -> None:
    await _over_agents_socket(port, token, {"type": "status", "status": "x" * 400})


async def arrays(port: int, token: str) -> None:
    http = await Http.connect(port, token)
    task = {"description": "x" * 4000, "not_before": "2100-01-01"}
    while True:
        try:
            await http.submit([task] * 1000)
        except Failed:
            await asyncio.sleep(0.01)


async def wrong_tokens(port: int, token: str) -> None:
    https = [await Http.connect(port, "wrong") for _ in range(8)]

    async def guess(http: Http) -> None:
        while True:
            try:
                await http.submit({"description": "x"})
            except Failed:
                await asyncio.sleep(0)

    await asyncio.gather(*map(guess, https))


async def wrong_identifies(port: int, token: str) -> None:
    async def guess() -> None:
        while True:
            socket = await WebSocket.connect(port, "/ws", _ignore)
            for number in range(3):
                socket.send(type="identify", token=f"wrong {number} {time.monotonic()}")
            await socket.closed

    await asyncio.gather(*(guess() for _ in range(20)))


async def silent_sockets(port: int, token: str) -> None:
    async def be_silent() -> None:
        while True:
            socket = await WebSocket.connect(port, "/ws", _ignore)
            await socket.closed

    await asyncio.gather(*(be_silent() for _ in range(2_000)))


async def viewers(port: int, token: str) -> None:
    async def look() -> None:
        while True:
            try:
                socket = await WebSocket.connect(port, "/ws/dashboard", _ignore)
            except Failed:
                await asyncio.sleep(1)
                continue
            await socket.closed
            await asyncio.sleep(1)

    await asyncio.gather(*(look() for _ in range(1_000)))


KINDS: dict[str, Flood] = {
    each.__name__: each
    for each in (
        *(pings, progress, statuses, arrays, wrong_tokens, wrong_identifies, silent_sockets),
        viewers,
    )
}


async def _flood(kind: str, port: int, token: str, seconds: float) -> None:
    with suppress(TimeoutError, Closed):
        await asyncio.wait_for(KINDS[kind](port, token), seconds)


SCENARIOS = [
    Scenario(
        "floods",
        f"submit → assign of {WORKERS} agents at {RATE} tasks/s beside one client that floods",
        [Bar("pings: p99 ms", at_most=100)],
        floods,
    ),
]

if __name__ == "__main__":
    asyncio.run(
        _flood(sys.argv[1], int(sys.argv[2]), os.environ["FLOOD_TOKEN"], float(sys.argv[3]))
    )
