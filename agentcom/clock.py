"""The time: the database's, for answers that should not have to ask for it, and one to measure by.

`nodes.beat` sets it with each heartbeat; in a process without one it is this host's.
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
    """This host's clock, and how far the database's is ahead of it."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return timezone.now() + self.ahead


clock = Clock()
