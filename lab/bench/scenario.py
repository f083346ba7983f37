"""What a scenario is: load on hubs, the figures that come of it, and bars to hold them against."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

from lab.harness.hub import Cluster, Hub
from lab.harness.store import ROOT
from lab.kit.sockets import Failed

T = TypeVar("T")

Figures = dict[str, float]  # by name, which has the unit in it


# The scenarios' clients are few and ask for as much as the hub can do.
NO_LIMITS = {"AGENTCOM_SUBMITS_PER_S": "0", "AGENTCOM_VIEWERS_PER_ADDRESS": "0"}


@dataclass(frozen=True)
class Bar:
    """Where good begins for one of the figures."""

    figure: str
    at_most: float = math.inf
    at_least: float = -math.inf

    def is_met(self, figures: Figures) -> bool:
        value = figures.get(self.figure)
        return value is not None and self.at_least <= value <= self.at_most

    def __str__(self) -> str:
        sign, limit = ("≥", self.at_least) if math.isinf(self.at_most) else ("≤", self.at_most)
        return f"{self.figure} {sign} {limit:g}"


@dataclass(frozen=True)
class Cpu:
    """Processor time of the measured stretch, in s, and how long it was."""

    wall_s: float
    hub_s: float
    client_s: float
    others_s: float  # whatever else ran, or was taken away by the host


@dataclass(frozen=True)
class Outcome:
    figures: Figures
    cpu: Cpu


class Stage:
    """Where scenarios play: folders for their hubs, of how many processes, and how large they are.

    With `webs` 0 a hub is `manage.py hub`, else that many web processes and a worker. They run the
    checkout at `root`.
    """

    def __init__(
        self, folder: Path, quick: bool, webs: int = 0, server: str = "", root: Path = ROOT
    ) -> None:
        self.quick = quick
        self.webs = webs
        self.server = server
        self.root = root
        self.filled = cache(self._filled)
        self._folder = folder
        self._numbers = itertools.count()

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def hub(self, webs: int = 0, server: str = "", limits: bool = False) -> Hub:
        """A hub with nothing in it, and at least so many web processes. With `limits` it slows down
        clients that ask for too much, as it does by default; mostly that is what is measured."""
        folder, webs = self._new_folder(), max(webs, self.webs)
        chosen: dict[str, Any] = {"server": server or self.server, "root": self.root}
        if not limits:
            chosen |= NO_LIMITS
        return Cluster(folder, webs, 1, **chosen) if webs else Hub(folder, **chosen)

    def _filled(self, *arguments: str) -> Hub:
        """A hub whose database was filled, see `fill.py`; filled once for all repeats."""
        hub = self.hub()
        hub.python("-m", "lab.bench.fill", *arguments)
        return hub

    def _new_folder(self) -> Path:
        return self._folder / f"hub-{next(self._numbers)}"


@dataclass(frozen=True)
class Scenario:
    name: str
    says: str
    bars: Sequence[Bar]
    play: Callable[[Stage], Outcome]


class Meter:
    """Takes the processor time of a with-block."""

    def __init__(self, *hubs: Hub) -> None:
        self._hubs = hubs

    def __enter__(self) -> Self:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        wall, hub, client, all_ = (
            after - before for after, before in zip(self._now(), self._before, strict=True)
        )
        self.cpu = Cpu(wall, hub, client, max(0.0, all_ - hub - client))

    def _now(self) -> tuple[float, float, float, float]:
        hubs = sum(hub.cpu_s for hub in self._hubs)
        return time.perf_counter(), hubs, time.process_time(), busy_s()


def busy_s() -> float:
    """Processor time of the whole machine, without idling; 0 where the system has no /proc."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return 0.0
    user, nice, system, _idle, _wait, irq, soft, steal = ticks[:8]
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def run(coroutine: Coroutine[Any, Any, T], within_s: float) -> T:
    """Raises `Failed` when it takes longer, or when a client meets what it did not expect."""
    try:
        return asyncio.run(_bounded(coroutine, within_s))
    except TimeoutError:
        raise Failed(f"not done within {within_s:g} s") from None


async def _bounded(coroutine: Coroutine[Any, Any, T], within_s: float) -> T:
    scenario = asyncio.ensure_future(coroutine)
    unexpected: list[str] = []

    def end(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a protocol's callback raises reaches nobody; without this all would wait for it."""
        unexpected.append(str(context.get("exception") or context["message"]))
        scenario.cancel()

    asyncio.get_running_loop().set_exception_handler(end)
    try:
        async with asyncio.timeout(within_s):
            return await scenario
    except asyncio.CancelledError:
        if unexpected:
            raise Failed(unexpected[0]) from None
        raise


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass
class Countdown:
    """Waits for so many things to have happened."""

    left: int
    _done: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: float = 0.0

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.ended_at = time.perf_counter()
            self._done.set()

    async def wait(self) -> None:
        await self._done.wait()
