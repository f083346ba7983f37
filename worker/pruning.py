"""Deletes old rows, in small bounded steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models import Model

from agentcom import actors
from agentcom.models import Event
from agentcom.work import Wanted, Work
from counters.durations import minute_of
from counters.models import AgentHour, DurationCount, LaneMinute, Minute
from tasks.models import Completion, Submission, Tally
from worker.models import HealthReport, QueueSample

STEP = 500  # at most so many rows of a model per step


@dataclass(frozen=True, slots=True)
class Prune:
    """Delete the oldest rows from before a moment. Gives how many.

    The newest row always stays: the Writer numbers from the newest event, and the light is the
    newest report.
    """

    model: type[Model]
    moment: str  # an indexed column
    before: datetime | int  # in the column's type
    actor = actors.WORKER

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> int:
        rows = self.model._default_manager
        newest = rows.order_by("-pk").values("pk")[:1]
        old = rows.filter(**{f"{self.moment}__lt": self.before}).exclude(pk__in=newest)
        step = old.order_by(self.moment).values("pk")[:STEP]
        return rows.filter(pk__in=step).delete()[0]


@dataclass(frozen=True, slots=True)
class PruneTallies:
    """Delete the tallies of needs that no queued task has any more. Gives how many."""

    actor = actors.WORKER

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> int:
        empty = Tally.objects.filter(count=0).exclude(needs="").values("pk")[:STEP]
        return Tally.objects.filter(pk__in=empty).delete()[0]


def steps(now: datetime) -> Sequence[Prune | PruneTallies]:
    """One step for each kind of row."""
    events = now - timedelta(days=settings.AGENTCOM_EVENT_RETENTION_DAYS)
    completions = now - timedelta(days=settings.AGENTCOM_COMPLETION_RETENTION_DAYS)
    day = now - timedelta(days=1)
    return (
        Prune(Event, "at", events),
        Prune(HealthReport, "created_at", events),
        Prune(Completion, "completed_at", completions),
        Prune(Minute, "start", now - timedelta(days=8)),
        Prune(QueueSample, "at", day),
        Prune(LaneMinute, "start", day),
        Prune(AgentHour, "start", day),
        # an hour more than a day: the first step of the charts may begin before the day does
        Prune(DurationCount, "minute", minute_of(day - timedelta(hours=1))),
        Prune(Submission, "created_at", day),
        Prune(Session, "expire_date", now),
        PruneTallies(),
    )
