"""Reading tasks: pages of them, one with its history, and their counts.

Pages follow a key (the task's number, or when it became a dead letter), never an offset: page
10,000 costs the same as page 1, and tasks that are added or removed meanwhile shift nothing.
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from django.db.models import Q, QuerySet, Sum, Value
from django.db.models.functions import Coalesce
from orjson import Fragment

from agentcom.database import consistent_read, millis
from agentcom.models import Event
from agentcom.redaction import masked
from agentcom.wire import encode
from tasks.models import Priority, Status, Tally, Task

HISTORY = 1_000  # entries; there is no limit to an agent's progress reports
PAGE_BYTES = 4 * 1024 * 1024  # of JSON in one page, or in one history
STEP = 20  # tasks read at once
HISTORY_STEP = 100  # journal entries read at once
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MAX_KEY = 250_000_000_000_000_000  # µs until the year 9892; also more than any task's number


Key = tuple[int, ...]  # a task's position in a list; its number comes last


@dataclass(frozen=True, slots=True)
class Page:
    """The tasks as JSON, and where the next page begins."""

    tasks: list[Fragment]
    next_cursor: str | None

    def json(self) -> dict[str, Any]:
        return {"tasks": self.tasks, "count": len(self.tasks), "next_cursor": self.next_cursor}


def newest(filters: Mapping[str, Any], limit: int, cursor: Key | None) -> Page:
    """Tasks by number, newest first. `filters`: any of status, priority, assigned_to,
    submitted_by."""
    with consistent_read():
        numbers = newest_numbers(filters, limit + 1, cursor)
        return filled([(number,) for number in numbers], limit, task_json)


def filled(
    keys: Sequence[Key], limit: int, to_json: Callable[[Task], Any], without: Sequence[str] = ()
) -> Page:
    """The first `limit` of these tasks, or as many as fit into `PAGE_BYTES`, but at least one.

    `keys` has one more than `limit` if there are more tasks. `without` names columns to leave out.
    """
    rows: list[bytes] = []
    room = PAGE_BYTES
    for task in _in_steps([key[-1] for key in keys[:limit]], without):
        row = encode(to_json(task))
        room -= len(row)
        if rows and room < 0:
            break
        rows.append(row)
    more = len(keys) > len(rows)
    return Page(list(map(Fragment, rows)), write_cursor(*keys[len(rows) - 1]) if more else None)


def _in_steps(numbers: Sequence[int], without: Sequence[str]) -> Iterator[Task]:
    """In steps, so that no more large tasks are read than fit into a page."""
    for start in range(0, len(numbers), STEP):
        step = numbers[start : start + STEP]
        found = Task.objects.defer(*without).in_bulk(step)
        yield from (found[number] for number in step)


def newest_numbers(filters: Mapping[str, Any], limit: int, cursor: Key | None = None) -> list[int]:
    """The numbers of these tasks, newest first."""
    ranges = (_numbers(part, limit, cursor) for part in _parts(filters))
    return heapq.nlargest(limit, chain.from_iterable(ranges))


def _parts(filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The filters, split so that each part is one range of one index, however few tasks match.

    Otherwise SQLite scans all tasks of a lane to find the one that an agent holds.
    """
    if "assigned_to" not in filters:
        return [dict(filters)]
    held = (Status.ASSIGNED, Status.COMPLETED, Status.CANCELLED, Status.DEAD_LETTER)
    return [
        {"status": status, "priority": priority, **filters}
        for status in ([filters["status"]] if "status" in filters else held)
        for priority in ([filters["priority"]] if "priority" in filters else Priority.values)
    ]


def _numbers(filters: Mapping[str, Any], limit: int, cursor: Key | None) -> Iterable[int]:
    tasks = _filtered(filters).order_by("-number")
    if cursor is not None:
        tasks = tasks.filter(number__lt=cursor[0])
    return tasks.values_list("number", flat=True)[:limit]


def submitter(task_id: str) -> str | None:
    """The name of the token that submitted the task; None if there is no such task."""
    return Task.objects.filter(task_id=task_id).values_list("submitted_by", flat=True).first()


def _filtered(filters: Mapping[str, Any]) -> QuerySet[Task]:
    submitter, others = filters.get("submitted_by"), dict(filters)
    if submitter is None or "assigned_to" in filters:
        return Task.objects.filter(**others)
    # The other conditions as expressions, or SQLite might take an index of theirs and go through
    # everybody's tasks.
    del others["submitted_by"]
    plain = {f"plain_{name}": Coalesce(name, Value(value)) for name, value in others.items()}
    wanted = {f"plain_{name}": value for name, value in others.items()}
    return Task.objects.filter(submitted_by=submitter).alias(**plain).filter(**wanted)


def dead_letters(
    limit: int,
    cursor: Key | None,
    filters: Mapping[str, Any] | None = None,
    to_json: Callable[[Task], Any] | None = None,
    without: Sequence[str] = (),
) -> Page:
    """The dead letters, the newest first. `filters`: any of cause, submitted_by."""
    tasks = newest_dead().filter(**(filters or {}))
    if cursor is not None:
        died_at, number = EPOCH + cursor[0] * MICROSECOND, cursor[1]
        # only the first condition can be used as a range of the index
        tasks = tasks.filter(Q(died_at__lte=died_at), Q(died_at__lt=died_at) | Q(number__gt=number))
    with consistent_read():
        found = tasks.values_list("died_at", "number")[: limit + 1]
        keys = [((died_at - EPOCH) // MICROSECOND, number) for died_at, number in found if died_at]
        return filled(keys, limit, to_json or task_json, without)


def newest_dead() -> QuerySet[Task]:
    """The dead letters in the order of their index."""
    return Task.objects.filter(died_at__isnull=False).order_by("-died_at", "number")


def queued(
    limit: int, cursor: Key | None, to_json: Callable[[Task], Any], without: Sequence[str]
) -> Page:
    """The queued tasks in the order of dispatch: by lane, then by number.

    One range of an index for each lane; with a single condition, SQLite would scan the whole lane.
    """
    lane, number = cursor or (0, 0)
    keys: list[Key] = []
    for priority in Priority.values:
        if priority >= lane and len(keys) <= limit:
            tasks = Task.objects.filter(status=Status.QUEUED, priority=priority).order_by("number")
            after = tasks.filter(number__gt=number if priority == lane else 0)
            keys += after.values_list("priority", "number")[: limit + 1 - len(keys)]
    return filled(keys, limit, to_json, without)


def history(task: Task) -> list[dict[str, Any]]:
    """Oldest first: the newest `HISTORY` entries, or as many as fit into `PAGE_BYTES`."""
    entries: list[dict[str, Any]] = []
    room = PAGE_BYTES
    newest = Event.objects.filter(task_id=task.task_id).order_by("-seq")
    for start in range(0, HISTORY, HISTORY_STEP):
        for event in (step := newest[start : min(start + HISTORY_STEP, HISTORY)]):
            entry = _history_json(event)
            room -= len(encode(entry))
            if room < 0:
                return entries[::-1]
            entries.append(entry)
        if len(step) < HISTORY_STEP:
            break
    return entries[::-1]


def counts() -> dict[str, Any]:
    """The number of tasks: ``{"by_status", "by_priority", "dead_letter"}``.

    `by_priority` counts only queued tasks.
    """
    tallies = Tally.objects.values_list("status", "priority").annotate(count=Sum("count"))
    return counts_of({(status, priority): count for status, priority, count in tallies})


def counts_of(sums: Mapping[tuple[str, int], int]) -> dict[str, Any]:
    """The same from the number of tasks by status and lane."""

    def of(status: Status) -> int:
        return sum(sums.get((status, lane), 0) for lane in Priority.values)

    shown = [status for status in Status if status != Status.DEAD_LETTER]
    return {
        "by_status": {status.value: of(status) for status in shown},
        "by_priority": {str(lane): sums.get((Status.QUEUED, lane), 0) for lane in Priority.values},
        "dead_letter": of(Status.DEAD_LETTER),
    }


def task_json(task: Task) -> dict[str, Any]:
    return {
        "id": task.task_id,
        "description": task.description,
        "metadata": task.metadata,
        "priority": task.priority,
        "status": task.status,
        "assigned_to": task.assigned_to,
        "assigned_at": millis(task.assigned_at),
        "generation": task.generation,
        "retry_count": task.retry_count,
        "max_retries": task.max_retries,
        "reclaim_count": task.reclaim_count,
        "max_reclaims": task.max_reclaims,
        "rejection_count": task.rejection_count,
        "max_rejections": task.max_rejections,
        "retry_backoff_s": task.retry_backoff_s,
        "idle_timeout_s": task.idle_timeout_s,
        "run_timeout_s": task.run_timeout_s,
        "needed_capabilities": task.needed_capabilities,
        "assign_to": task.assign_to,
        "last_error": task.last_error,
        "cancel_reason": task.cancel_reason,
        "cancel_deadline": millis(task.cancel_deadline),
        "not_before": millis(task.not_before),
        "complete_by": millis(task.complete_by),
        "on_overdue": task.on_overdue,
        "result": task.result,
        "tokens_used": task.tokens_used,
        "submitted_by": task.submitted_by,
        "created_at": millis(task.created_at),
        "updated_at": millis(task.updated_at),
    }


# What agents and submitters write. The rest of a task are ids, words and numbers of the hub.
_WRITTEN = (
    *("description", "metadata", "result", "last_error", "cancel_reason", "history", "waiting"),
)


def without_secrets(task: dict[str, Any]) -> dict[str, Any]:
    """A task in JSON for people to look at, see `redaction.py`."""
    return task | {name: masked(task[name]) for name in _WRITTEN if name in task}


def _history_json(event: Event) -> dict[str, Any]:
    return {
        "event": event.kind,
        "timestamp": millis(event.at),
        "agent_id": event.agent_id,
        "actor": event.actor,
        "details": event.data,
    }


def write_cursor(*key: int) -> str:
    return base64.urlsafe_b64encode("-".join(map(str, key)).encode()).decode().rstrip("=")


def read_cursor(cursor: str, parts: int) -> tuple[int, ...]:
    """Raises ValueError for a cursor that `write_cursor` cannot have written."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except ValueError:
        raise ValueError("is not a cursor of this list") from None
    key = text.split("-")
    if len(key) != parts or not all(part.isdecimal() and len(part) <= 19 for part in key):
        raise ValueError("is not a cursor of this list")
    return tuple(min(int(part), MAX_KEY) for part in key)
