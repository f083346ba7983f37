"""The database's time without a query, and a clock for measuring intervals.

`nodes.send_heartbeats` sets the time with each heartbeat. A process that sends none uses the time
of day of its host.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from django.utils import timezone

# CLOCK_BOOTTIME, where the system has it, keeps running while the machine sleeps.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady() -> float:
    """Seconds on a monotonic clock, for measuring how much time has passed."""
    return time.clock_gettime(_STEADY)


class Clock:
    """The last known database time plus the time since then; this host's clock has no effect."""

    def __init__(self) -> None:
        self._last: tuple[datetime, float] | None = None

    def set(self, now: datetime, at: float) -> None:
        """`at`: the value of `steady` when the database reported `now`."""
        self._last = now, at

    def now(self) -> datetime:
        if self._last is None:
            return timezone.now()
        moment, at = self._last
        return moment + timedelta(seconds=steady() - at)


clock = Clock()
