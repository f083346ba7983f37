"""Recent throughput: a row for each minute, updated with the events, and sums of the last hour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import F, Sum
from django.db.models.functions import Least

from agentcom.models import Event
from agentcom.rows import COUNTER_MAX
from agentcom.work import Work
from counters.models import Minute

SUM_MAX = COUNTER_MAX["BigIntegerField"]


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
    """The sums of the last 60 minutes, including the current one."""
    start = now.replace(second=0, microsecond=0) - timedelta(minutes=59)
    # later minutes exist if the clock was set back; they are left out
    sums = Minute.objects.filter(start__gte=start, start__lte=now).aggregate(
        **{f"all_{name}": _total(name) for name in Hour.__dataclass_fields__}
    )
    # limited to whole numbers that every JSON parser can represent
    return Hour(*(min(total, SUM_MAX) for total in sums.values()))


def _total(name: str) -> Sum:
    """Each row is limited: older versions had no limit, and SQLite fails if a sum overflows."""
    return Sum(Least(F(name), SUM_MAX), default=0)
