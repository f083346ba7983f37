"""The database's clock, for answers that should not have to ask for it.

`nodes.beat` sets it with each heartbeat; in a process without one it is this host's.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone


class Clock:
    """This host's clock, and how far the database's is ahead of it."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return timezone.now() + self.ahead


clock = Clock()
