"""A host whose clock is wrong: each process with this folder on its PYTHONPATH believes so.

The file that `SHIFT_FILE` names holds by how many seconds, as one double; it may change at any
time. What measures durations (`time.monotonic`) is right, as on such a host.
"""

from __future__ import annotations

import datetime
import mmap
import os
import struct
import time
from typing import Any

with open(os.environ["SHIFT_FILE"], "rb") as file:
    shift = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)

time_of_day = time.time
DateAndTime = datetime.datetime


def ahead_s() -> float:
    seconds: float
    (seconds,) = struct.unpack("d", shift[:])
    return seconds


class _AlsoTheReal(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, DateAndTime)


class Shifted(DateAndTime, metaclass=_AlsoTheReal):
    __slots__ = ()  # the size that C extensions expect

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return DateAndTime.now(tz) + datetime.timedelta(seconds=ahead_s())


time.time = lambda: time_of_day() + ahead_s()
time.time_ns = lambda: int(time.time() * 1e9)  # which logging uses from Python 3.13 on
datetime.datetime = Shifted  # type: ignore[misc]
