"""A host whose clock is an hour fast: a process with this folder on its PYTHONPATH believes so.

What measures durations (`time.monotonic`) is right, as on such a host.
"""

from __future__ import annotations

import datetime
import time
from typing import Any

AHEAD = datetime.timedelta(hours=1)

time_of_day = time.time
DateAndTime = datetime.datetime


class _AlsoTheReal(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, DateAndTime)


class Shifted(DateAndTime, metaclass=_AlsoTheReal):
    __slots__ = ()  # the size that C extensions expect

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return DateAndTime.now(tz) + AHEAD


time.time = lambda: time_of_day() + AHEAD.total_seconds()
datetime.datetime = Shifted  # type: ignore[misc]
