"""What a client may say about a new task: exact types, and an error that names the field."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rest_framework import serializers
from rest_framework.fields import SkipField, empty

from agentcom import wire
from agentcom.api import BadInput, refuse_misspelt
from agentcom.clock import clock
from tasks.models import Priority
from tasks.queue import NewTask, needs_key

MAX_DESCRIPTION = 16_384  # characters
MAX_METADATA = 64 * 1024  # bytes, encoded
MAX_RETRIES = 100
MAX_CAPABILITIES = 32
MAX_CAPABILITY = 64  # characters
MAX_NEEDS = 2_000  # bytes, encoded; more than that no index of PostgreSQL takes
MAX_TASKS = 1_000  # in an array

PRIORITIES: dict[Any, int] = {priority.name.lower(): int(priority) for priority in Priority}


def check_text(value: Any, most: int) -> str:
    """Raises ValidationError with the rest of a sentence that began with the field's name."""
    if not isinstance(value, str):
        raise serializers.ValidationError("must be a string")
    if not 1 <= len(value) <= most:
        raise serializers.ValidationError(f"must have 1 to {most:,} characters")
    if (fault := wire.fault(value)) is not None:
        raise serializers.ValidationError(fault)
    return value


def check_priority(value: Any) -> int:
    """A priority's name or number. Raises ValidationError."""
    if isinstance(value, str) and value in PRIORITIES:
        return PRIORITIES[value]
    if type(value) is int and value in Priority.values:
        return value
    raise serializers.ValidationError("must be urgent, high, normal, low or 0 to 3")


def sentence_of(error: serializers.ValidationError) -> str:
    """The first thing that was wrong."""
    detail: Any = error.detail
    while not isinstance(detail, str):
        detail = next(iter(detail.values() if isinstance(detail, dict) else detail))
    return str(detail)


class StrictField(serializers.Field):
    """Takes what has the right type already: nothing is guessed from strings or truth values."""

    def run_validation(self, data: Any = empty) -> Any:
        if data is empty:
            if self.required:
                raise serializers.ValidationError("is required")
            raise SkipField
        return self.to_internal_value(data)


class Description(StrictField):
    def to_internal_value(self, data: Any) -> str:
        text = check_text(data, MAX_DESCRIPTION)
        if text.isspace():
            raise serializers.ValidationError("must not be blank")
        return text


class PriorityField(StrictField):
    def to_internal_value(self, data: Any) -> int:
        return check_priority(data)


class Metadata(StrictField):
    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise serializers.ValidationError("must be an object")
        if (fault := wire.fault(data)) is not None:
            raise serializers.ValidationError(fault)
        if data and len(wire.encode(data)) > MAX_METADATA:
            raise serializers.ValidationError(f"must not be larger than {MAX_METADATA:,} bytes")
        return data


class Retries(StrictField):
    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int or not 0 <= data <= MAX_RETRIES:
            raise serializers.ValidationError(f"must be a whole number from 0 to {MAX_RETRIES}")
        return data


class Deadline(StrictField):
    """ms since the epoch, or ISO 8601; a time without a zone is UTC."""

    def to_internal_value(self, data: Any) -> datetime:
        try:
            moment = self._moment(data)
        except (ValueError, OverflowError, OSError):
            raise serializers.ValidationError(
                "must be milliseconds since 1970 or a time in ISO 8601, as 2030-01-31T12:00:00Z"
            ) from None
        if moment <= clock.now():
            raise serializers.ValidationError("must be in the future")
        return moment

    def _moment(self, data: Any) -> datetime:
        if type(data) is int:
            return datetime.fromtimestamp(data / 1000, UTC)
        if not isinstance(data, str):
            raise ValueError
        moment = datetime.fromisoformat(data)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Capabilities(StrictField):
    def to_internal_value(self, data: Any) -> list[str]:
        if not isinstance(data, list):
            raise serializers.ValidationError("must be a list of strings")
        if len(data) > MAX_CAPABILITIES:
            raise serializers.ValidationError(f"must not be more than {MAX_CAPABILITIES}")
        for item in data:
            check_text(item, MAX_CAPABILITY)
        if len(needs_key(data).encode()) > MAX_NEEDS:
            raise serializers.ValidationError(f"must not be larger than {MAX_NEEDS:,} bytes")
        return data


class TaskInput(serializers.Serializer):
    """A task as it is submitted. `null` counts as left out; extra fields are ignored."""

    description = Description()
    priority = PriorityField(required=False)
    metadata = Metadata(required=False)
    max_retries = Retries(required=False)
    complete_by = Deadline(required=False)
    needed_capabilities = Capabilities(required=False)


task_input = TaskInput()
FIELDS = tuple(task_input.fields)


def new_task(data: Any, **place: int) -> NewTask:
    """Give the task to be queued. Raises `BadInput`, with `place` in its answer."""
    if not isinstance(data, dict):
        raise BadInput("task", "must be an object", **place)
    refuse_misspelt(data, FIELDS, **place)
    given = {name: value for name, value in data.items() if value is not None}
    try:
        return NewTask(**task_input.run_validation(given))
    except serializers.ValidationError as error:
        raise BadInput(str(next(iter(error.detail))), sentence_of(error), **place) from None


def new_tasks(data: Any) -> Iterable[NewTask]:
    """Give the tasks of an array one by one. Raises `BadInput` with the first bad one's index."""
    if not 1 <= len(data) <= MAX_TASKS:
        raise BadInput("tasks", f"must be 1 to {MAX_TASKS:,}")
    for index, item in enumerate(data):
        yield new_task(item, index=index)
