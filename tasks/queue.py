"""The queue's verbs. Each is a command for the Writer; nothing else changes a task's state.

Every command reads its task, calls the transition on the model (which refuses invalid ones) and
emits an event; the read models are updated from the events.
"""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson
from django.conf import settings

from agentcom import actors
from agentcom.audit.entries import Act, What
from agentcom.database import millis
from agentcom.rows import new as new_row
from agentcom.texts import listed
from agentcom.work import Wanted, Work
from tasks.models import OnOverdue, Priority, QueueError, Status, Submission, Task

TITLE = 120  # characters of the description in the journal
EXPIRED = "expired: its deadline passed before it could be completed"


class Why(StrEnum):
    """Why a task is taken back."""

    UNKNOWN = "unknown"
    DISCONNECTED = "disconnected"
    NOT_RESUMED = "not_resumed"
    NOT_ACCEPTED = "not_accepted"
    OVERDUE = "overdue"
    SILENT = "silent"
    TOO_LONG = "too_long"
    SIGNED_OFF = "signed_off"


def new_task_id() -> str:
    return f"task-{secrets.token_hex(8)}"


def title_of(task: Task) -> str:
    """The task's name in the journal, so that readers need not query the task."""
    return task.description[:TITLE]


@dataclass(frozen=True, slots=True)
class NewTask:
    description: str
    priority: int = Priority.NORMAL
    metadata: dict[str, Any] = field(default_factory=dict)
    max_retries: int = 3
    max_reclaims: int = 5
    max_rejections: int = 20
    retry_backoff_s: float | None = None
    idle_timeout_s: float | None = None
    run_timeout_s: float | None = None
    not_before: datetime | None = None
    complete_by: datetime | None = None
    on_overdue: str = OnOverdue.EXPIRE
    needed_capabilities: Sequence[str] = ()
    assign_to: str | None = None
    task_id: str = field(default_factory=new_task_id)


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """The response to the first submit with this key; None if there was none."""

    idempotency_key: str
    actor: str

    def rows(self) -> Wanted:
        return [(Submission, [self.idempotency_key])]

    def apply(self, work: Work) -> list[dict[str, Any]] | None:
        first = work.get(Submission, self.idempotency_key)
        if first is None:
            return None
        work.load([(Task, first.task_ids)])
        known = [work.get(Task, task_id) for task_id in first.task_ids]
        receipts = [_receipt(task) for task in known if task is not None]
        # tasks are dropped after their key has expired; both may be in this very group
        return receipts if len(receipts) == len(known) else None


@dataclass(frozen=True, slots=True)
class Submit:
    """Queue tasks, all or none. Each result is ``{"status", "task_id", "priority", "created_at"}``.

    A repeated `idempotency_key` (which includes the token's hash) gives the first response again.
    """

    tasks: Sequence[NewTask]
    submitted_by: str
    idempotency_key: str | None = None
    person: str | None = None  # the actor, if a person submits them rather than a token's bearer

    @property
    def actor(self) -> str:
        return self.person or actors.token(self.submitted_by)

    def rows(self) -> Wanted:
        return [(Submission, [self.idempotency_key])] if self.idempotency_key else []

    def apply(self, work: Work) -> list[dict[str, Any]]:
        if self.idempotency_key:
            first = FirstAnswer(self.idempotency_key, self.actor).apply(work)
            if first is not None:
                return first
        tasks = [self._queue(work, new) for new in self.tasks]
        if self.idempotency_key:
            ids = [task.task_id for task in tasks]
            work.add(Submission(key=self.idempotency_key, task_ids=ids, created_at=work.now))
        return [_receipt(task) for task in tasks]

    def act(self, result: Any = None) -> Act:
        """Of a person, who submits one task; repeated, it is the first one."""
        task_id = result[0]["task_id"] if result else self.tasks[0].task_id
        return Act(What.TASK_SUBMIT, task_id)

    def _queue(self, work: Work, new: NewTask) -> Task:
        task = new_row(
            Task,
            number=work.next_seq,
            task_id=new.task_id,
            description=new.description,
            metadata=new.metadata,
            priority=new.priority,
            max_retries=new.max_retries,
            max_reclaims=new.max_reclaims,
            max_rejections=new.max_rejections,
            retry_backoff_s=new.retry_backoff_s,
            idle_timeout_s=new.idle_timeout_s,
            run_timeout_s=new.run_timeout_s,
            not_before=new.not_before,
            complete_by=new.complete_by,
            on_overdue=new.on_overdue,
            needed_capabilities=list(new.needed_capabilities),
            assign_to=new.assign_to,
            submitted_by=self.submitted_by,
        )
        task.submit(work.now)
        work.add(task)
        work.emit(
            "task_submitted",
            task_id=task.task_id,
            priority=task.priority,
            title=title_of(task),
            status=task.status,
            until=millis(task.due_at),
        )
        return task


@dataclass(frozen=True, slots=True)
class OnTask:
    """A command on one task, by the agent that holds it. Raises `QueueError`."""

    task_id: str
    agent_id: str
    generation: int | None = None

    @property
    def actor(self) -> str:
        return actors.agent(self.agent_id)

    def rows(self) -> Wanted:
        return [(Task, [self.task_id])]

    def apply(self, work: Work) -> Any:
        task = work.get(Task, self.task_id)
        if task is None:
            raise QueueError("not_found")
        return self.move(work, task)

    def move(self, work: Work, task: Task) -> Any:
        raise NotImplementedError

    def emit(self, work: Work, kind: str, **data: Any) -> None:
        work.emit(kind, task_id=self.task_id, agent_id=self.agent_id, **data)


@dataclass(frozen=True, slots=True)
class Accept(OnTask):
    def move(self, work: Work, task: Task) -> None:
        if task.accept(self.agent_id, self.generation, work.now):
            self.emit(work, "task_accepted", generation=task.generation)


@dataclass(frozen=True, slots=True)
class Progress(OnTask):
    progress: float | None = None
    message: str | None = None

    def move(self, work: Work, task: Task) -> None:
        task.make_progress(self.agent_id, self.generation, self._fingerprint(), work.now)
        self.emit(work, "task_progress", progress=self.progress, message=self.message)

    def _fingerprint(self) -> str | None:
        """A fingerprint of this progress; None if it has no content."""
        if self.progress is None and not self.message:
            return None
        percent = None if self.progress is None else float(self.progress)
        content = orjson.dumps([percent, self.message])
        return hashlib.blake2b(content, digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Block(OnTask):
    reason: str = ""

    def move(self, work: Work, task: Task) -> None:
        if task.block(self.agent_id, self.generation, work.now):
            self.emit(work, "task_blocked", reason=self.reason)


@dataclass(frozen=True, slots=True)
class Unblock(OnTask):
    def move(self, work: Work, task: Task) -> None:
        if task.unblock(self.agent_id, self.generation, work.now):
            self.emit(work, "task_unblocked")


@dataclass(frozen=True, slots=True)
class Complete(OnTask):
    """A repeated completion is acked again and changes nothing."""

    result: dict[str, Any] = field(default_factory=dict)
    tokens_used: int | None = None

    def move(self, work: Work, task: Task) -> None:
        assert self.generation is not None
        if task.is_ended_by(Status.COMPLETED, self.agent_id, self.generation):
            return
        duration_ms = task.complete(
            self.agent_id, self.generation, self.result, self.tokens_used, work.now
        )
        self.emit(
            work,
            "task_complete",
            priority=task.priority,
            generation=task.generation,
            duration_ms=duration_ms,
            tokens_used=self.tokens_used,
        )


@dataclass(frozen=True, slots=True)
class ConfirmCancel(OnTask):
    """The agent has stopped. A repeated message is acked again and changes nothing."""

    result: dict[str, Any] | None = None
    tokens_used: int | None = None

    def move(self, work: Work, task: Task) -> None:
        assert self.generation is not None
        if task.is_ended_by(Status.CANCELLED, self.agent_id, self.generation):
            return
        task.confirm_cancel(self.agent_id, self.generation, self.result, self.tokens_used, work.now)
        emit_cancelled(work, task, Status.ASSIGNED, agent="idle")


@dataclass(frozen=True, slots=True)
class Fail(OnTask):
    """The result is "retried", "dead_letter", or "cancelled" if it was to be cancelled."""

    error: str = ""
    retryable: bool = True
    retry_after_s: float | None = None  # instead of the backoff

    def move(self, work: Work, task: Task) -> str:
        assert self.generation is not None
        if task.is_cancelling:
            task.confirm_cancel(self.agent_id, self.generation, None, None, work.now)
            emit_cancelled(work, task, Status.ASSIGNED, agent="idle", message=self.error)
            return "cancelled"
        retry_at = self._retry_at(task, work.now) if self.retryable else None
        is_retried = task.fail(self.agent_id, self.generation, self.error, retry_at, work.now)
        self.emit(work, "task_failed", generation=self.generation, error=self.error)
        if is_retried:
            emit_retried(work, task, Status.ASSIGNED, agent_id=self.agent_id)
            return "retried"
        emit_dead(work, task, Status.ASSIGNED, agent_id=self.agent_id)
        return "dead_letter"

    def _retry_at(self, task: Task, now: datetime) -> datetime:
        delay_s = self.retry_after_s
        if delay_s is None:
            delay_s = backoff_s(task.retry_backoff_s, task.retry_count)
        return now + timedelta(seconds=delay_s)


def backoff_s(first_s: float | None, failures: int) -> float:
    """How long to wait after one more failure: doubled with each of the earlier ones, up to the
    maximum. The jitter takes up to half of it away, so that tasks which failed together do not come
    back together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)."""
    first_s = settings.AGENTCOM_RETRY_BACKOFF_S if first_s is None else first_s
    most_s = max(first_s, settings.AGENTCOM_RETRY_BACKOFF_MAX_S)
    doubled_s: float = min(first_s * 2 ** min(failures, 60), most_s)
    return doubled_s * random.uniform(0.5, 1)


@dataclass(frozen=True, slots=True)
class Reject(OnTask):
    """The result is "requeued", "dead_letter" if it was rejected too often, or "cancelled"."""

    reason: str = ""

    def move(self, work: Work, task: Task) -> str:
        if task.is_cancelling:
            task.confirm_cancel(self.agent_id, self.generation, None, None, work.now)
            emit_cancelled(work, task, Status.ASSIGNED, agent="idle", message=self.reason)
            return "cancelled"
        pause_until = work.now + timedelta(seconds=settings.AGENTCOM_REJECT_PAUSE_S)
        may_stay = task.reject(self.agent_id, self.generation, pause_until, work.now)
        self.emit(
            work,
            "task_rejected",
            priority=task.priority,
            reason=self.reason,
            status=task.status,
            until=millis(task.due_at),
        )
        if may_stay:
            return "requeued"
        was = task.status
        times = f"{task.rejection_count} times" if task.rejection_count > 1 else "once"
        last = f"{self.agent_id}: {self.reason}" if self.reason else self.agent_id
        task.die(f"rejected {times}, last by {last}", work.now)
        emit_dead(work, task, was)
        return "dead_letter"


@dataclass(frozen=True, slots=True)
class Reclaim(OnTask):
    """Take a task back from an agent that is disconnected or silent, or that leaves.

    `why` is for programs: see `Why`. An agent that was `lost` counts against the task.
    """

    reason: str = ""
    why: Why = Why.SIGNED_OFF
    lost: bool = False
    actor = actors.WORKER

    def move(self, work: Work, task: Task) -> None:
        if task.is_cancelling:
            task.check_held(self.agent_id, self.generation)
            task.cancel(task.cancel_reason or "", work.now)
            after = self._agent_after()
            emit_cancelled(work, task, Status.ASSIGNED, agent=after, message=self.reason)
            return
        may_stay, is_over = True, self._is_over(task)
        if self.lost:
            may_stay = task.lose_agent(self.agent_id, self.generation, work.now)
        else:
            task.give_back(self.agent_id, self.generation, work.now)
        self.emit(
            work,
            "task_reclaimed",
            priority=task.priority,
            reason=self.reason,
            why=self.why,
            status=task.status,
            agent=self._agent_after(),
            generation=task.generation,
        )
        if is_over or not may_stay:
            was = task.status
            task.die(EXPIRED if is_over else _deadly(task, self.reason), work.now)
            emit_dead(work, task, was)

    def _is_over(self, task: Task) -> bool:
        """Its deadline has passed; queued, it would be handed out again in the same commit."""
        return self.why == Why.OVERDUE and task.on_overdue == OnOverdue.EXPIRE

    def _agent_after(self) -> str:
        """One that is known to work on it must stop before it gets another task."""
        return "stopping" if self.why == Why.TOO_LONG else "idle"


def _deadly(task: Task, reason: str) -> str:
    """The error of a task that has used up its agents."""
    names = list(dict.fromkeys(task.lost_agents or ()))
    times = f" {task.reclaim_count} times" if task.reclaim_count > 1 else ""
    return f"its agent was lost{times}: {listed(names)}. The last time: {reason}"


# --- Entries that several verbs write


def emit_retried(
    work: Work, task: Task, was: str, *, agent_id: str | None = None, by_hand: bool = False
) -> None:
    work.emit(
        "task_retried",
        task_id=task.task_id,
        agent_id=agent_id,
        priority=task.priority,
        by_hand=by_hand,
        was=was,
        status=task.status,
        until=millis(task.due_at),
    )


def emit_dead(work: Work, task: Task, was: str, *, agent_id: str | None = None) -> None:
    work.emit(
        "task_dead_letter",
        task_id=task.task_id,
        agent_id=agent_id,
        priority=task.priority,
        error=task.last_error,
        was=was,
        retry_count=task.retry_count,
        assigned_to=task.assigned_to,
    )


def emit_cancelled(
    work: Work, task: Task, was: str, *, agent: str = "", message: str | None = None
) -> None:
    """`agent`: the state of the agent that held it, afterwards."""
    work.emit(
        "task_cancelled",
        task_id=task.task_id,
        agent_id=task.assigned_to if agent else None,
        priority=task.priority,
        reason=task.cancel_reason,
        message=message,
        was=was,
        agent=agent,
        generation=task.generation,
        tokens_used=task.tokens_used,
    )


def _receipt(task: Task) -> dict[str, Any]:
    return {
        "status": "queued",
        "task_id": task.task_id,
        "priority": task.priority,
        "created_at": millis(task.created_at),
    }
