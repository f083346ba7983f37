"""Checks of new tasks: exact types, and errors that name the field."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from agentcom import wire
from agentcom.api import BadInput, refuse_unknown
from agentcom.clock import clock
from agentcom.fields import Check, as_whole, mapping, seconds, takes, text, texts, visible, whole
from agentcom.shapes import STORABLE, Shape, one_of, shown
from tasks.models import OnOverdue, Priority
from tasks.needs import needs_key
from tasks.queue import NewTask

MAX_DESCRIPTION = 16_384  # characters
MAX_METADATA = 64 * 1024  # bytes, encoded
MAX_RETRIES = 100
DAY_S, YEAR_S = 24 * 3600, 366 * 24 * 3600
MAX_AGENT_ID = 128  # characters
MAX_CAPABILITIES = 32
MAX_CAPABILITY = 64  # characters
MAX_NEEDS = 2_000  # bytes, encoded; PostgreSQL cannot index more
MAX_TASKS = 1_000  # in an array

PRIORITIES: dict[Any, int] = {priority.name.lower(): int(priority) for priority in Priority}


@takes(one_of([*PRIORITIES, *PRIORITIES.values()]))
def check_priority(value: Any) -> int:
    """A priority's name or number."""
    if isinstance(value, str) and value in PRIORITIES:
        return PRIORITIES[value]
    number = as_whole(value)
    if type(number) is int and number in Priority.values:
        return number
    raise ValueError("must be urgent, high, normal, low or 0 to 3")


@takes(shown(mapping.shape, description=f"At most {MAX_METADATA:,} bytes as JSON."))
def check_metadata(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = mapping(value)
    if found and len(wire.encode(found)) > MAX_METADATA:
        raise ValueError(f"must not be larger than {MAX_METADATA:,} bytes")
    return found


@takes(one_of(OnOverdue.values))
def check_on_overdue(value: Any) -> str:
    if value not in OnOverdue.values:
        raise ValueError(f"must be {' or '.join(OnOverdue.values)}")
    return str(value)


# From the first to the last moment that a datetime can be.
MOMENT: Shape = {
    "anyOf": [
        {
            "type": "integer",
            "minimum": -62_135_596_800_000,
            "maximum": 253_402_300_799_999,
            "description": "Milliseconds since 1970-01-01 UTC.",
        },
        {
            "type": "string",
            "format": "date-time",
            "pattern": STORABLE,
            "description": "ISO 8601; UTC if it names no zone.",
        },
    ]
}


@takes(MOMENT)
def check_moment(value: Any) -> datetime:
    """ms since the epoch, or ISO 8601; a time without a zone is UTC."""
    try:
        return _moment(value)
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            "must be milliseconds since 1970 or a time in ISO 8601, as 2030-01-31T12:00:00Z"
        ) from None


@takes(shown(MOMENT, description="In the future."))
def check_deadline(value: Any) -> datetime:
    moment: datetime = check_moment(value)
    if moment <= clock.now():
        raise ValueError("must be in the future")
    return moment


def _moment(value: Any) -> datetime:
    if type(number := as_whole(value)) is int:
        return datetime.fromtimestamp(number / 1000, UTC)
    if not isinstance(value, str):
        raise ValueError
    moment = datetime.fromisoformat(value)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


_NEEDS = texts(MAX_CAPABILITIES, visible(text(MAX_CAPABILITY, min_length=1)))


@takes(shown(_NEEDS.shape, description=f"At most {MAX_NEEDS:,} bytes as JSON."))
def check_needs(value: Any) -> list[str]:
    found: list[str] = _NEEDS(value)
    if len(needs_key(found).encode()) > MAX_NEEDS:
        raise ValueError(f"must not be larger than {MAX_NEEDS:,} bytes")
    return found


# A field that is null counts as absent; unknown ones are refused. In the order in which faults are
# told. A table rather than REST framework's serializer, which takes a time for each field that is
# not there, and that is most of them.
TASK_FIELDS: dict[str, Check] = {
    "description": visible(text(MAX_DESCRIPTION, min_length=1)),
    "priority": check_priority,
    "metadata": check_metadata,
    "max_retries": whole(MAX_RETRIES),
    "max_reclaims": whole(MAX_RETRIES),
    "max_rejections": whole(MAX_RETRIES),
    "retry_backoff_s": seconds(DAY_S),
    "idle_timeout_s": seconds(YEAR_S, minimum=1),
    "run_timeout_s": seconds(YEAR_S, minimum=1),
    "not_before": check_moment,
    "complete_by": check_deadline,
    "on_overdue": check_on_overdue,
    "needed_capabilities": check_needs,
    "assign_to": visible(text(MAX_AGENT_ID, min_length=1)),
}
FIELDS = tuple(TASK_FIELDS)


def new_task(data: Any, **place: int) -> NewTask:
    """Returns the task to be queued. Raises `BadInput`, with `place` in its answer."""
    if not isinstance(data, dict):
        raise BadInput("task", "must be an object", **place)
    refuse_unknown(data, FIELDS, **place)
    given = {name: data[name] for name in FIELDS if data.get(name) is not None}
    if wire.fault(given) is not None:
        _refuse_unstorable(given, place)
    values, faults = _checked(given)
    if faults:
        name, sentence = next(iter(faults.items()))
        raise BadInput(name, sentence, **place)
    return NewTask(**values)


def faults_of(data: dict[str, Any]) -> dict[str, str]:
    """What is wrong with each field, as the rest of a sentence; empty if they make a task."""
    unstorable = {
        name: wrong
        for name, value in data.items()
        if (wrong := wire.fault(value, wire.MAX_DEPTH)) is not None
    }
    _, faults = _checked({n: v for n, v in data.items() if n not in unstorable})
    return faults | unstorable


def _checked(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The checked values, and what is wrong with each of the others."""
    values: dict[str, Any] = {}
    faults = {} if "description" in given else {"description": "is required"}
    for name, value in given.items():
        try:
            values[name] = TASK_FIELDS[name](value)
        except ValueError as error:
            faults[name] = str(error)
    start, end = values.get("not_before"), values.get("complete_by")
    if not faults and start is not None and end is not None and start >= end:
        faults["not_before"] = "must be before complete_by"
    return values, faults


def _refuse_unstorable(given: dict[str, Any], place: dict[str, int]) -> None:
    for name, value in given.items():
        if (wrong := wire.fault(value, wire.MAX_DEPTH)) is not None:
            raise BadInput(name, wrong, **place)


def new_tasks(data: Any) -> Iterable[NewTask]:
    """Yields the tasks of an array. Raises `BadInput` with the index of the first invalid one."""
    if not 1 <= len(data) <= MAX_TASKS:
        raise BadInput("tasks", f"must be 1 to {MAX_TASKS:,}")
    for index, item in enumerate(data):
        yield new_task(item, index=index)
