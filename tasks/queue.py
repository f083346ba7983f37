"""The queue's verbs. Each is a command for the Writer; nothing else changes a task's state.

Every command reads its task, calls the transition on the model (which refuses invalid ones) and
emits an event; the read models are updated from the events.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any

import orjson
from django.db import connection

from agentcom import actors
from agentcom.database import millis
from agentcom.models import Event
from agentcom.work import Wanted, Work
from tasks.models import Completion, Priority, QueueError, Status, Submission, Tally, Task
from tasks.moves import MOVES

TITLE = 120  # characters of the description in the journal
MAX_HEADS = 200  # parts of one compound query; SQLite allows 500


def new_task_id() -> str:
    return f"task-{secrets.token_hex(8)}"


def needs_key(capabilities: Iterable[str]) -> str:
    """The needed capabilities as one sorted key: a JSON array, or "" if there are none."""
    wanted = sorted(set(capabilities))
    return orjson.dumps(wanted).decode() if wanted else ""


def needs_of(key: str) -> frozenset[str]:
    return frozenset(orjson.loads(key)) if key else frozenset()


def filed_under(needs: Iterable[str]) -> str:
    """The needed capability by which waiting needs are found; "" if there are none.

    The longest one: a name that few tasks share (a customer, a machine, a file) is usually longer
    than one that many share, and claims for agents without it never read these needs.
    """
    return max(needs, key=lambda name: (len(name), name), default="")


def title_of(task: Task) -> str:
    """The task's name in the journal, so that readers need not query the task."""
    return task.description[:TITLE]


@dataclass(frozen=True, slots=True)
class NewTask:
    description: str
    priority: int = Priority.NORMAL
    metadata: dict[str, Any] = field(default_factory=dict)
    max_retries: int = 3
    complete_by: datetime | None = None
    needed_capabilities: Sequence[str] = ()
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
        known = (work.get(Task, task_id) for task_id in first.task_ids)
        return [_receipt(task) for task in known if task is not None]


@dataclass(frozen=True, slots=True)
class Submit:
    """Queue tasks, all or none. Each result is ``{"status", "task_id", "priority", "created_at"}``.

    A repeated `idempotency_key` (which includes the token's hash) gives the first response again.
    """

    tasks: Sequence[NewTask]
    submitted_by: str
    idempotency_key: str | None = None

    @property
    def actor(self) -> str:
        return actors.token(self.submitted_by)

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

    def _queue(self, work: Work, new: NewTask) -> Task:
        task = Task(
            number=work.next_seq,
            task_id=new.task_id,
            description=new.description,
            metadata=new.metadata,
            priority=new.priority,
            max_retries=new.max_retries,
            complete_by=new.complete_by,
            needed_capabilities=list(new.needed_capabilities),
            needs=needs_key(new.needed_capabilities),
            submitted_by=self.submitted_by,
            created_at=work.now,
            updated_at=work.now,
        )
        work.add(task)
        work.emit(
            "task_submitted",
            task_id=task.task_id,
            priority=task.priority,
            title=title_of(task),
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
        if task.is_done_by(self.agent_id, self.generation):
            return
        duration_ms = task.complete(
            self.agent_id, self.generation, self.result, self.tokens_used, work.now
        )
        self.emit(
            work,
            "task_complete",
            generation=task.generation,
            duration_ms=duration_ms,
            tokens_used=self.tokens_used,
        )


@dataclass(frozen=True, slots=True)
class Fail(OnTask):
    """The result is "retried" or "dead_letter"."""

    error: str = ""

    def move(self, work: Work, task: Task) -> str:
        assert self.generation is not None
        retried = task.fail(self.agent_id, self.generation, self.error, work.now)
        self.emit(work, "task_failed", generation=self.generation, error=self.error)
        if retried:
            self.emit(work, "task_retried", by_hand=False)
            return "retried"
        self.emit(work, "task_dead_letter", error=self.error)
        return "dead_letter"


@dataclass(frozen=True, slots=True)
class Reject(OnTask):
    reason: str = ""

    def move(self, work: Work, task: Task) -> None:
        task.give_back(self.agent_id, self.generation, work.now)
        self.emit(work, "task_rejected", reason=self.reason)


@dataclass(frozen=True, slots=True)
class Reclaim(OnTask):
    """Take a task back from an agent that is disconnected or unresponsive."""

    reason: str = ""
    actor = actors.WORKER

    def move(self, work: Work, task: Task) -> None:
        task.give_back(self.agent_id, self.generation, work.now)
        self.emit(work, "task_reclaimed", reason=self.reason)


@dataclass(frozen=True, slots=True)
class Retry:
    """Queue a dead letter again. The result is its priority; raises `QueueError` "not_found"."""

    task_id: str
    actor: str

    def rows(self) -> Wanted:
        return [(Task, [self.task_id])]

    def apply(self, work: Work) -> int:
        task = work.get(Task, self.task_id)
        if task is None:
            raise QueueError("not_found")
        task.retry(work.now)
        work.emit("task_retried", task_id=self.task_id, by_hand=True)
        return task.priority


# --- Queued tasks


@dataclass(frozen=True, slots=True)
class QueuedTask:
    number: int
    task_id: str
    needs: str


def waiting_needs(capabilities: Iterable[str]) -> list[tuple[int, dict[str, int]]]:
    """For each lane with queued tasks, most urgent first, the number of tasks with each needs.

    Reads only needs that are filed under one of these capabilities, so the cost does not depend on
    how many others are waiting. Some of them may need further capabilities.
    """
    wanted = ["", *capabilities]
    is_postgresql = connection.vendor == "postgresql"
    one_of = "= ANY(%s)" if is_postgresql else "IN (SELECT value FROM json_each(%s))"
    with connection.cursor() as cursor:  # run for every claim; the ORM takes ten times as long
        cursor.execute(
            f"SELECT priority, needs, count FROM {Tally._meta.db_table} "
            f"WHERE status = 'queued' AND filed_under {one_of} AND count > 0",
            [wanted if is_postgresql else orjson.dumps(wanted).decode()],
        )
        lanes: dict[int, dict[str, int]] = defaultdict(dict)
        for lane, needs, count in cursor.fetchall():
            lanes[lane][needs] = count
    return sorted(lanes.items())


def heads(priority: int, needs: Sequence[str], limit: int) -> list[QueuedTask]:
    """The first `limit` tasks of a lane for each of these needs, in the queue's order.

    One lookup in the index `task_queue` for each of the needs, however many other tasks come before
    or between. The needs are a range, and part of the order, so that no other index has that order:
    with an equality PostgreSQL would scan the whole queue by number.
    """
    quoted = connection.ops.quote_name
    head = (
        f"SELECT * FROM (SELECT number, task_id, needs FROM {quoted(Task._meta.db_table)} "
        "WHERE status = 'queued' AND priority = %s AND needs >= %s AND needs <= %s "
        "ORDER BY needs, number LIMIT %s) AS h"
    )
    found: list[QueuedTask] = []
    with connection.cursor() as cursor:
        for start in range(0, len(needs), MAX_HEADS):
            keys = needs[start : start + MAX_HEADS]
            values = [value for key in keys for value in (priority, key, key, limit)]
            cursor.execute(" UNION ALL ".join([head] * len(keys)), values)
            found += [QueuedTask(*row) for row in cursor.fetchall()]
    return sorted(found, key=attrgetter("number"))


def count_before(priority: int, needs: Sequence[str], number: int, limit: int) -> int:
    """How many tasks of a lane with any of these needs come before a number; at most `limit`."""
    quoted = connection.ops.quote_name
    part = (
        f"SELECT * FROM (SELECT 1 FROM {quoted(Task._meta.db_table)} WHERE status = 'queued' "
        "AND priority = %s AND needs >= %s AND needs <= %s AND number < %s LIMIT %s) AS h"
    )
    count = 0
    with connection.cursor() as cursor:
        for start in range(0, len(needs), MAX_HEADS):
            if count >= limit:
                break
            keys = needs[start : start + MAX_HEADS]
            values = [value for key in keys for value in (priority, key, key, number, limit)]
            parts = " UNION ALL ".join([part] * len(keys))
            cursor.execute(
                f"SELECT COUNT(*) FROM ({parts} LIMIT %s) AS all_of_them", [*values, limit]
            )
            count += cursor.fetchone()[0]
    return min(count, limit)


# --- Read models of the queue, updated with every event


def project_tally(work: Work, event: Event) -> None:
    """Move the task's count from its old status to its new one."""
    move = MOVES.get(event.kind)
    if move is None or move.to is None:
        return
    task = work.get(Task, event.task_id)
    assert task is not None
    for status, step in ((move.start(event.data), -1), (move.to, 1)):
        if status is not None:
            needs = task.needs if status == Status.QUEUED else ""
            place = {
                "status": status,
                "priority": task.priority,
                "needs": needs,
                "filed_under": filed_under(needs_of(needs)),
            }
            work.increment(Tally, place, count=step)


def project_completion(work: Work, event: Event) -> None:
    if event.kind != "task_complete":
        return
    task = work.get(Task, event.task_id)
    assert task is not None
    work.append(
        Completion(
            seq=event.seq,
            task_id=task.task_id,
            agent_id=task.assigned_to or "",
            description=task.description,
            duration_ms=event.data["duration_ms"],
            tokens_used=event.data["tokens_used"] or 0,
            completed_at=event.at,
        )
    )


def _receipt(task: Task) -> dict[str, Any]:
    return {
        "status": "queued",
        "task_id": task.task_id,
        "priority": task.priority,
        "created_at": millis(task.created_at),
    }
