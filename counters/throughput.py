"""What was done lately: a bucket a minute, kept with the events, and the sliding hour over them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import F, Sum
from django.db.models.functions import Least

from agentcom.models import Event
from agentcom.rows import COUNTER_MOST
from agentcom.work import Work
from counters.models import Minute

MOST = COUNTER_MOST["BigIntegerField"]


def project_minute(work: Work, event: Event) -> None:
    start = {"start": event.at.replace(second=0, microsecond=0)}
    if event.kind == "task_complete":
        work.increment(
            Minute,
            start,
            completed=1,
            duration_ms=event.data["duration_ms"],
            tokens=event.data["tokens_used"] or 0,
        )
    elif event.kind == "task_failed":
        work.increment(Minute, start, failed=1)


@dataclass(frozen=True, slots=True)
class Hour:
    completed: int
    failed: int
    duration_ms: int
    tokens: int


def last_hour(now: datetime) -> Hour:
    """The sums of the last 60 minutes, to the minute."""
    start = now.replace(second=0, microsecond=0) - timedelta(minutes=59)
    # up to now: later minutes are of before the clock was set back
    sums = Minute.objects.filter(start__gte=start, start__lte=now).aggregate(
        **{f"all_{name}": _total(name) for name in Hour.__dataclass_fields__}
    )
    # whole numbers that every reader of JSON can hold
    return Hour(*(min(total, MOST) for total in sums.values()))


def _total(name: str) -> Sum:
    """Older versions counted without a limit, and SQLite gives up on a sum that overflows."""
    return Sum(Least(F(name), MOST), default=0)
