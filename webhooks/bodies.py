"""What a receiver gets: the event as JSON, with what it needs to know of the task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agentcom.database import millis
from agentcom.models import Event
from agentcom.texts import cut
from agentcom.wire import encode
from tasks.models import Status, Task
from tasks.moves import MOVES
from tasks.queue import title_of
from webhooks.kinds import TEST, TYPES

BODY_MAX = 256 * 1024  # bytes
TEXT_MAX = 10_000  # characters of an error, a reason or a message, once a body is too large
READ_AT_ONCE = 20  # results; a result may have a megabyte


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What a filter and a body need of a task, besides its result."""

    title: str
    priority: int
    capabilities: list[str]
    json: Mapping[str, Any]


def read_facts(task_ids: Iterable[str]) -> dict[str, TaskFacts]:
    """By task id; a task that was deleted has none."""
    without = Task.objects.defer("result", "last_error")
    found = without.filter(task_id__in=set(task_ids)).order_by()
    return {task.task_id: _facts_of(task) for task in found.iterator(READ_AT_ONCE)}


def _facts_of(task: Task) -> TaskFacts:
    return TaskFacts(
        title=title_of(task),
        priority=task.priority,
        capabilities=task.needed_capabilities,
        json={
            "id": task.task_id,
            "title": title_of(task),
            "priority": task.priority,
            "generation": task.generation,
            "needed_capabilities": task.needed_capabilities,
            "metadata": task.metadata,
            "submitted_by": task.submitted_by,
            "created_at": millis(task.created_at),
        },
    )


def read_results(task_ids: Iterable[str]) -> dict[str, Any]:
    """Of completed tasks, which never change again; a task that was deleted has none."""
    found = Task.objects.filter(task_id__in=set(task_ids), status=Status.COMPLETED).order_by()
    return dict(found.values_list("task_id", "result"))


def body_of(event: Event, facts: TaskFacts | None, result: Any) -> str:
    """At most `BODY_MAX` bytes. What does not fit is left out and named in `cut`."""
    data = _data(event, facts, result)
    for shorten in (_nothing, _without_result, _without_metadata, _with_short_texts):
        shorten(data)
        body = encode({"type": TYPES[event.kind], "timestamp": _rfc3339(event.at), "data": data})
        if len(body) <= BODY_MAX:
            break
    return body.decode()


def sample_body(endpoint_id: str, now: datetime) -> str:
    data = {"webhook": endpoint_id, "message": "A test, as somebody asked for it."}
    return encode({"type": TEST, "timestamp": _rfc3339(now), "data": data}).decode()


def _data(event: Event, facts: TaskFacts | None, result: Any) -> dict[str, Any]:
    move = MOVES[event.kind]
    task = dict(facts.json) if facts is not None else {"id": event.task_id}
    # As it was at that moment, as far as the entry says it; the row may be ahead of it. An event
    # that does not change the status is about a task that an agent has.
    task["status"] = move.end(event.data) or Status.ASSIGNED.value
    for name in ("priority", "generation"):
        if event.data.get(name) is not None:
            task[name] = event.data[name]
    told = {name: event.data.get(name) for name in move.shows if name not in ("title", "priority")}
    return {
        "seq": event.seq,
        "kind": event.kind,
        "agent_id": event.agent_id,
        "actor": event.actor,
        "task": task,
        "result": result,
        "error": None,
        **told,
        "cut": [],
    }


def _nothing(data: dict[str, Any]) -> None:
    pass


def _without_result(data: dict[str, Any]) -> None:
    if data["result"] is not None:
        data["result"] = None
        data["cut"].append("result")


def _without_metadata(data: dict[str, Any]) -> None:
    if data["task"].pop("metadata", None):
        data["task"]["metadata"] = None
        data["cut"].append("task.metadata")


def _with_short_texts(data: dict[str, Any]) -> None:
    for name, value in data.items():
        if isinstance(value, str) and len(value) > TEXT_MAX:
            data[name] = cut(value, TEXT_MAX)
            data["cut"].append(name)


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
