"""What was done lately: a bucket a minute, kept with the events, and the sliding hour over them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Sum

from agentcom.models import Event
from agentcom.work import Work
from counters.models import Minute


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
        *(Sum(name, default=0) for name in ("completed", "failed", "duration_ms", "tokens"))
    )
    return Hour(*sums.values())
