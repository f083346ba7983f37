"""What people decide about tasks, and what time alone does to them. Commands for the Writer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from agentcom import actors
from agentcom.audit.entries import Act, What
from agentcom.database import millis
from agentcom.work import Wanted, Work
from tasks.models import WAITING, OnOverdue, Priority, QueueError, Status, Task
from tasks.queue import EXPIRED, emit_cancelled, emit_dead, emit_retried

DUE_MAX = 1_000  # tasks per command, so that many at once do not delay other commands


@dataclass(frozen=True, slots=True)
class Steer:
    """A person's command on one task. Raises `QueueError`."""

    task_id: str
    actor: str

    def rows(self) -> Wanted:
        return [(Task, [self.task_id])]

    def apply(self, work: Work) -> Any:
        task = work.get(Task, self.task_id)
        if task is None:
            raise QueueError("not_found")
        return self.move(work, task)

    def move(self, work: Work, task: Task) -> Any:
        raise NotImplementedError

    def act(self, result: Any = None) -> Act:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Retry(Steer):
    """Queue a dead letter or a cancelled task again. The result is its priority; raises
    `QueueError` "not_found"."""

    def move(self, work: Work, task: Task) -> int:
        was = task.status
        task.retry(work.now)
        emit_retried(work, task, was, by_hand=True)
        return task.priority

    def act(self, result: Any = None) -> Act:
        return Act(What.TASK_RETRY, self.task_id)


@dataclass(frozen=True, slots=True)
class SetPriority(Steer):
    """Move a task that does not run to its place in another lane. Gives its status; raises
    `QueueError` "too_late"."""

    priority: int

    def move(self, work: Work, task: Task) -> str:
        old = task.priority
        if task.set_priority(self.priority, work.now):
            work.emit(
                "task_reprioritized",
                task_id=self.task_id,
                priority=self.priority,
                old_priority=old,
                was=task.status,
                status=task.status,
            )
        return task.status

    def act(self, result: Any = None) -> Act:
        lane = Priority(self.priority).name.lower()
        return Act(What.TASK_MOVE, self.task_id, detail=f"to {lane}")


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The answer to `Cancel`: it is cancelled, or will be by the deadline."""

    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class Cancel(Steer):
    """End a task. One that an agent works on is ended once the agent has stopped, at the latest
    after `timeout_s` (None: the hub's setting). A second request can only shorten that time.

    Raises `QueueError` "too_late" for a task that is completed. One that is cancelled already stays
    as it is, so that the request can be repeated.
    """

    reason: str = ""
    timeout_s: float | None = None

    def move(self, work: Work, task: Task) -> Cancelled:
        if task.status == Status.CANCELLED:
            return Cancelled()
        if task.status == Status.ASSIGNED:
            return self._ask(work, task)
        was = task.status
        task.cancel(self.reason, work.now)
        emit_cancelled(work, task, was)
        return Cancelled()

    def _ask(self, work: Work, task: Task) -> Cancelled:
        timeout_s = settings.AGENTCOM_CANCEL_TIMEOUT_S if self.timeout_s is None else self.timeout_s
        if timeout_s <= 0:
            task.cancel(self.reason, work.now)
            emit_cancelled(work, task, Status.ASSIGNED, agent="stopping", message="at once")
            return Cancelled()
        deadline = work.now + timedelta(seconds=timeout_s)
        if task.ask_to_cancel(deadline, self.reason, work.now):
            work.emit(
                "task_cancel_requested",
                task_id=task.task_id,
                agent_id=task.assigned_to,
                reason=task.cancel_reason,
                deadline=millis(deadline),
                generation=task.generation,
            )
        return Cancelled(task.cancel_deadline)

    def act(self, result: Any = None) -> Act:
        return Act(What.TASK_CANCEL, self.task_id, self.reason)


# --- What time alone does


@dataclass(frozen=True, slots=True)
class ActWhenDue:
    """Do what is due: queue scheduled tasks, offer rejected ones again, and end tasks whose agents
    did not stop when asked. Gives how many; there may be more if it is `DUE_MAX`.

    Every process does it, so it does not depend on any single one; what another one has done is
    not found any more.
    """

    actor = actors.HUB

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> int:
        work.flush()
        due = Task.objects.filter(due_at__lte=work.now).order_by("due_at")[:DUE_MAX]
        found = [work.track(task) for task in due]
        for task in found:
            _DUE[Status(task.status)](work, task)
        return len(found)


def _queue(work: Work, task: Task) -> None:
    task.start_waiting(work.now)
    work.emit("task_due", task_id=task.task_id, priority=task.priority, until=millis(task.due_at))


def _offer_again(work: Work, task: Task) -> None:
    old = task.needs
    task.offer_again(work.now)
    work.emit(
        "task_reoffered",
        task_id=task.task_id,
        priority=task.priority,
        old_needs=old,
        until=millis(task.due_at),
    )


def _fence(work: Work, task: Task) -> None:
    task.cancel("", work.now)
    message = "the agent did not stop in time"
    emit_cancelled(work, task, Status.ASSIGNED, agent="stopping", message=message)


_DUE = {Status.SCHEDULED: _queue, Status.QUEUED: _offer_again, Status.ASSIGNED: _fence}


@dataclass(frozen=True, slots=True)
class CatchUp:
    """After the clock was set back: do now what was due some time after a moment that lies in the
    future again, or a backoff of a second could last for days. Dates that people gave stay as they
    are. Gives how many; there may be more if it is `DUE_MAX`."""

    actor = actors.WORKER

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> int:
        work.flush()
        ahead = Task.objects.filter(due_at__gt=work.now, updated_at__gt=work.now)
        ahead = ahead.exclude(status=Status.SCHEDULED, retry_count=0)
        found = [work.track(task) for task in ahead.order_by("due_at")[:DUE_MAX]]
        for task in found:
            task.end_waits()
            _DUE[Status(task.status)](work, task)
        return len(found)


@dataclass(frozen=True, slots=True)
class Expire:
    """A waiting task whose deadline has passed becomes a dead letter. Raises `QueueError` if it
    does not wait any more."""

    task_id: str
    actor = actors.WORKER

    def rows(self) -> Wanted:
        return [(Task, [self.task_id])]

    def apply(self, work: Work) -> None:
        task = work.get(Task, self.task_id)
        if task is None:
            raise QueueError("not_found")
        was = task.status
        task.expire(EXPIRED, work.now)
        emit_dead(work, task, was)


def expirable(until: datetime, most: int) -> list[str]:
    """The ids of tasks to `Expire`, for deadlines up to this moment."""
    overdue = Task.objects.filter(
        complete_by__lte=until,
        died_at=None,
        ended_at=None,
        on_overdue=OnOverdue.EXPIRE,
        status__in=WAITING,
    )
    return list(overdue.order_by("complete_by").values_list("task_id", flat=True)[:most])


def next_due() -> datetime | None:
    """When `ActWhenDue` has something to do again; None: nothing is due at a known time."""
    waiting = Task.objects.filter(due_at__isnull=False).order_by("due_at")
    return waiting.values_list("due_at", flat=True).first()
