"""How much one client may ask of the hub, so that it cannot hold up the others.

Token buckets, in the memory of each process. A process counts for itself: with several behind a
load balancer a client may have as many times as much.

A bucket may be overdrawn by one request, however large, and is out of use until it is filled again.
So an array of 1,000 tasks is never too large for a bucket of 200; it is only a long wait for the
next one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

logger = logging.getLogger(__name__)

MAX_BUCKETS = 10_000
LOG_EVERY_S = 60.0  # for each limit and client


class Bucket:
    """`rate` a second, of which up to `burst` are saved. A rate of 0 is no limit."""

    __slots__ = ("_at", "_burst", "_level", "_now", "_rate")

    def __init__(
        self, rate: float, burst: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._now = rate, float(burst), now
        self._level, self._at = float(burst), now()

    def take(self, amount: float = 1) -> None:
        """Whether there is enough or not."""
        self._fill()
        if self._rate:
            self._level -= amount

    def wait_s(self) -> float:
        """For how long it is overdrawn; 0: it may be used."""
        self._fill()
        return 0.0 if self._level >= 0 or not self._rate else -self._level / self._rate

    @property
    def is_full(self) -> bool:
        self._fill()
        return self._level >= self._burst

    def _fill(self) -> None:
        now = self._now()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now


class Buckets:
    """One for each client. `what` names the limit in the log, after the first `shown` characters
    of the client's key."""

    def __init__(self, what: str, shown: int = 64) -> None:
        self._what, self._shown = what, shown
        self._buckets: dict[str, Bucket] = {}

    def admit(self, key: str, amount: float, rate: float, burst: float) -> float:
        """Take it, or give how many seconds to wait until then."""
        wait_s = self.wait_s(key)
        if not wait_s:
            self.take(key, amount, rate, burst)
        return wait_s

    def take(self, key: str, amount: float, rate: float, burst: float) -> None:
        """Whether there is enough or not."""
        if key not in self._buckets:
            if len(self._buckets) >= MAX_BUCKETS:
                self._drop_full()
            self._buckets[key] = Bucket(rate, burst)
        self._buckets[key].take(amount)

    def wait_s(self, key: str) -> float:
        """For how long its bucket is overdrawn. Logged when it is."""
        bucket = self._buckets.get(key)
        wait_s = bucket.wait_s() if bucket else 0.0
        if wait_s:
            note(self._what, key[: self._shown])
        return wait_s

    def _drop_full(self) -> None:
        """They are as new ones would be. If none is, all go: better than to hold memory."""
        used = {key: bucket for key, bucket in self._buckets.items() if not bucket.is_full}
        self._buckets = used if len(used) < MAX_BUCKETS else {}


class Crowd:
    """How many of something each address has at the moment."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._count: Counter[str] = Counter()

    def enter(self, address: str) -> int:
        """How many there are with this one."""
        self._count[address] += 1
        return self._count[address]

    def leave(self, address: str) -> None:
        self._count[address] -= 1
        if self._count[address] <= 0:
            del self._count[address]

    def note(self, address: str) -> None:
        note(self._what, address)


_noted: dict[tuple[str, str], float] = {}


def note(what: str, who: str) -> None:
    """Log that a client has met a limit, once a minute."""
    now, key = time.monotonic(), (what, who)
    if now - _noted.get(key, -LOG_EVERY_S) < LOG_EVERY_S:
        return
    if len(_noted) >= MAX_BUCKETS:
        _noted.clear()
    _noted[key] = now
    logger.warning("%s is slowed down: %s", who or "A client without an address", what)


class Failures:
    """Wrong tokens, sockets that say nothing and sockets that are one too many, by address. After
    too many of them the next attempt waits, before anything is done for it."""

    PER_S, BURST = 10, 500
    LONGEST_S = 5.0  # shorter than most clients wait for a connection or an answer

    def __init__(self) -> None:
        self._buckets = Buckets("its connections and tokens fail too often")

    def add(self, address: str) -> None:
        self._buckets.take(address, 1, self.PER_S, self.BURST)

    async def slow_down(self, address: str) -> None:
        if wait_s := self._buckets.wait_s(address):
            await asyncio.sleep(min(wait_s, self.LONGEST_S))


failures = Failures()
