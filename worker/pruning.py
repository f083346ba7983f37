"""Deletes old rows, in small bounded steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models import Func, IntegerField, Max, Model
from django.db.models.functions import Coalesce

from agentcom import actors
from agentcom.database import millis
from agentcom.models import AuditEntry, Event
from agentcom.work import Wanted, Work
from counters.durations import minute_of
from counters.models import AgentHour, DurationCount, LaneMinute, Minute
from fleet.models import Enrolment
from tasks.models import Completion, Submission, Tally, Task
from webhooks import feed
from webhooks.models import Attempt, Delivery, Endpoint, Message, State
from worker.models import HealthReport, QueueSample

STEP = 500  # at most so many rows of a model per step
# of tasks: every page of a large result takes time, in which nothing else is committed
STEP_BYTES = 4 * 1024 * 1024
CHUNK = 20  # tasks whose size is read at a time


@dataclass(frozen=True, slots=True)
class Prune:
    """Delete the oldest rows from before a moment. Gives how many.

    The newest row stays unless all may go: the Writer numbers from the newest event, and the light
    is the newest report.
    """

    model: type[Model]
    moment: str  # an indexed column
    before: datetime | int  # in the column's type
    all_may_go: bool = False
    actor = actors.WORKER

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> int:
        rows = self.model._default_manager
        old = self._among(work, rows.filter(**{f"{self.moment}__lt": self.before}))
        if not self.all_may_go:
            old = old.exclude(pk__in=rows.order_by("-pk").values("pk")[:1])
        step = old.order_by(self.moment).values("pk")[:STEP]
        self._announce(work, step)
        return rows.filter(pk__in=step).delete()[0]

    def _among(self, work: Work, old: Any) -> Any:
        """Entries of the journal stay until every webhook that is on has been given them."""
        if self.model is not Event:
            return old
        work.flush()  # so that the query sees a webhook that was switched on in this group
        needed = feed.first_needed()
        return old if needed is None else old.filter(pk__lt=needed)

    def _announce(self, work: Work, step: Any) -> None:
        """The newest completions are shown, even if they are old."""
        if self.model is Completion:
            until = Completion.objects.filter(pk__in=step).aggregate(at=Max("completed_at"))["at"]
            if until is not None:
                work.emit("completions_pruned", until=millis(until))


class StoredBytes(Func):
    """About how many bytes of a column are freed."""

    function = "LENGTH"
    output_field = IntegerField()

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, function="pg_column_size", **context)


SIZE = StoredBytes("description") + StoredBytes("metadata") + Coalesce(StoredBytes("result"), 0)


@dataclass(frozen=True, slots=True)
class PruneTasks:
    """Delete the tasks that ended first, before a moment, and their counts. Gives how many: fewer
    than `STEP` also if they are large.

    Dead letters have not ended. While an `Idempotency-Key` may be repeated, its tasks stay, because
    the answer is made from them.
    """

    before: datetime
    actor = actors.WORKER

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> int:
        work.flush()  # so that the query sees the earlier commands of this group
        ended = Task.objects.filter(ended_at__lt=self._before())
        # a key is as old as its tasks
        first_key = Submission.objects.order_by("created_at").first()
        if first_key is not None:
            # the first condition is a range of the index; after the clock was set back it is not
            # enough, because a task may have ended before it was submitted
            ended = ended.filter(
                ended_at__lt=first_key.created_at, created_at__lt=first_key.created_at
            )
        step = ended.order_by("ended_at").annotate(size=SIZE)
        columns = ("number", "task_id", "status", "priority", "size")  # a result may be large
        counts: Counter[tuple[str, int]] = Counter()
        room = STEP_BYTES
        for number, task_id, status, priority, size in step.values_list(*columns)[:STEP].iterator(
            CHUNK
        ):
            work.remove(Task(number=number, task_id=task_id))
            counts[status, priority] += 1
            room -= size
            if room < 0:
                break
        for (status, priority), count in counts.items():
            place = {"status": status, "priority": priority, "needs": "", "filed_under": ""}
            work.increment(Tally, place, count=-count)
        if counts:
            told = [[status, priority, count] for (status, priority), count in counts.items()]
            work.emit("tasks_pruned", counts=told)
        return counts.total()

    def _before(self) -> datetime:
        """Webhooks that are behind still have to say how tasks ended."""
        needed = feed.first_needed()
        if needed is None:
            return self.before
        unread = Event.objects.filter(seq__gte=needed).order_by("seq")
        at = unread.values_list("at", flat=True).first()
        return self.before if at is None else min(self.before, at)


@dataclass(frozen=True, slots=True)
class PruneDeliveries:
    """Delete the deliveries that were delivered first, before a moment, or those of endpoints that
    were removed, with their bodies and attempts. Gives how many."""

    delivered_before: datetime
    actor = actors.WORKER

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> int:
        work.flush()  # so that the queries see the earlier commands of this group
        numbers = self._delivered() or self._orphans()
        if not numbers:
            return 0
        gone = Delivery.objects.filter(pk__in=numbers)
        message_ids = list(gone.values_list("message_id", flat=True))
        Message.objects.filter(message_id__in=message_ids).delete()
        Attempt.objects.filter(message_id__in=message_ids).delete()
        return gone.delete()[0]

    def _delivered(self) -> list[int]:
        old = Delivery.objects.filter(state=State.DELIVERED, ended_at__lt=self.delivered_before)
        return list(old.order_by("ended_at").values_list("pk", flat=True)[:STEP])

    def _orphans(self) -> list[int]:
        """Those between two ids of endpoints that are there: a look into the index for each. After
        every id comes "i", because they begin with "hook-"."""
        known = sorted(Endpoint.objects.values_list("endpoint_id", flat=True))
        for low, high in pairwise(["", *known, "i"]):
            between = Delivery.objects.filter(endpoint_id__gt=low, endpoint_id__lt=high)
            numbers = list(between.order_by("endpoint_id").values_list("pk", flat=True)[:STEP])
            if numbers:
                return numbers
        return []


@dataclass(frozen=True, slots=True)
class PruneTallies:
    """Delete the tallies of needs that no queued task has any more. Gives how many."""

    actor = actors.WORKER

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> int:
        empty = Tally.objects.filter(count=0).exclude(needs="").values("pk")[:STEP]
        return Tally.objects.filter(pk__in=empty).delete()[0]


Step = Prune | PruneTasks | PruneTallies | PruneDeliveries


def steps(now: datetime) -> list[Step]:
    """One step for each kind of row."""
    events = now - timedelta(days=settings.AGENTCOM_EVENT_RETENTION_DAYS)
    completions = now - timedelta(days=settings.AGENTCOM_COMPLETION_RETENTION_DAYS)
    day = now - timedelta(days=1)
    return [
        *_of_tasks(now),
        Prune(Event, "at", events),
        Prune(HealthReport, "created_at", events),
        Prune(Completion, "completed_at", completions),
        Prune(Minute, "start", now - timedelta(days=8)),
        Prune(QueueSample, "at", day),
        Prune(LaneMinute, "start", day),
        Prune(AgentHour, "start", day),
        # an hour more than a day: the first step of the charts may begin before the day does
        Prune(DurationCount, "minute", minute_of(day - timedelta(hours=1))),
        Prune(Submission, "created_at", day, all_may_go=True),  # or the last one would keep tasks
        Prune(Session, "expire_date", now),
        Prune(Enrolment, "expires_at", events, all_may_go=True),
        *_of_audit(now),
        PruneTallies(),
        PruneDeliveries(now - timedelta(days=settings.AGENTCOM_WEBHOOK_LOG_DAYS)),
    ]


def _of_audit(now: datetime) -> Iterator[Prune]:
    """The database itself keeps what is younger than a day, see `AuditEntry`."""
    if days := settings.AGENTCOM_AUDIT_RETENTION_DAYS:
        yield Prune(AuditEntry, "at", now - timedelta(days=max(days, 1)), all_may_go=True)


def _of_tasks(now: datetime) -> Iterator[PruneTasks]:
    if days := settings.AGENTCOM_TASK_RETENTION_DAYS:
        yield PruneTasks(now - timedelta(days=days))
