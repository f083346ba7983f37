"""The time: the database's, for answers that should not have to ask for it, and one to measure by.

`nodes.beat` sets it with each heartbeat; in a process without one it is this host's time of day.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from django.utils import timezone

# Where the system has it, the clock that also goes on while the machine sleeps.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady() -> float:
    """Seconds on a clock that nobody sets, to tell how much time passed."""
    return time.clock_gettime(_STEADY)


class Clock:
    """Goes on from what the database said last, whatever becomes of this host's time of day."""

    def __init__(self) -> None:
        self._said: tuple[datetime, float] | None = None

    def set(self, now: datetime, at: float) -> None:
        """`at`: when the database said so, by `steady`."""
        self._said = now, at

    def now(self) -> datetime:
        if self._said is None:
            return timezone.now()
        moment, at = self._said
        return moment + timedelta(seconds=steady() - at)


clock = Clock()
