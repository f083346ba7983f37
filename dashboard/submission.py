"""The form of a new task: its fields as they are typed, and the task that they make.

What is typed becomes the JSON that programs submit, and is checked as theirs is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.conf import settings

from agentcom import wire
from agentcom.api import BadInput
from agentcom.database import now
from agentcom.redaction import MASK, masked, masked_text
from tasks.api import TASK_ID
from tasks.models import Priority, Task
from tasks.queue import NewTask
from tasks.serializers import faults_of, new_task

KEY = re.compile(r"[0-9a-f]{32}")
DEFAULTS = {field.name: field.default for field in dataclasses.fields(NewTask)}

Typed = dict[str, str]


class NotATask(Exception):
    """What is typed makes no task; `faults` has a sentence for each field that is wrong."""

    def __init__(self, faults: dict[str, str]) -> None:
        super().__init__(faults)
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    label: str
    hint: str
    read: Callable[[str], Any]  # from what is typed to JSON; raises ValueError with a sentence
    kind: str = "text"  # which control it has, see the template
    choices: tuple[tuple[str, str], ...] = ()


# --- From what is typed to JSON


def _lines(typed: str) -> str:
    return typed.replace("\r\n", "\n")  # forms send their own line ends


def _json(typed: str) -> Any:
    try:
        return wire.decode(typed)
    except ValueError as error:
        raise ValueError(f"is {error}") from None


def _names(typed: str) -> Any:
    """Separated by commas; or a JSON list, for names that have commas themselves."""
    if typed.lstrip().startswith("["):
        return _json(typed)
    return [name.strip() for name in typed.split(",") if name.strip()]


def _number(typed: str) -> Any:
    """As JSON has it; anything else stays a text, which the check refuses in its own words."""
    try:
        return wire.decode(typed)
    except ValueError:
        return typed


def _choice(value: str) -> str:
    return value


LANES = tuple((lane.name.lower(), lane.name.capitalize()) for lane in Priority)

FIELDS = (
    Field(
        "description",
        "Description",
        "What is to be done. Lists show its beginning.",
        _lines,
        kind="area",
    ),
    Field(
        "priority", "Lane", "A lane waits until those above it are empty.", _choice, "choice", LANES
    ),
    Field(
        "needed_capabilities",
        "Needed capabilities",
        "Separated by commas. Only an agent that has all of them gets the task.",
        _names,
    ),
    Field("assign_to", "Only for", "The id of the one agent that may have it.", str.strip),
    Field(
        "metadata",
        "Metadata",
        'A JSON object that the agent gets with the task, as {"pull_request": 12}.',
        _json,
        kind="json",
    ),
)


def _rare() -> tuple[Field, ...]:
    first_s, silent_s = settings.AGENTCOM_RETRY_BACKOFF_S, settings.AGENTCOM_RECLAIM_AFTER_S
    return (
        Field("not_before", "Not before (UTC)", "It is not handed out earlier.", _choice, "moment"),
        Field("complete_by", "Complete by (UTC)", "Its deadline.", _choice, "moment"),
        Field(
            "on_overdue",
            "If it still waits at its deadline",
            "",
            _choice,
            "choice",
            (("expire", "It becomes a dead letter"), ("run", "It runs late")),
        ),
        Field("max_retries", "Attempts in all", _otherwise("max_retries"), _number, "number"),
        Field(
            "retry_backoff_s",
            "Seconds before the first retry",
            f"Doubled after each further failure. {first_s:,g} if left empty.",
            _number,
            "number",
        ),
        Field(
            "max_reclaims",
            "Dead letter after so many lost agents",
            _otherwise("max_reclaims"),
            _number,
            "number",
        ),
        Field(
            "max_rejections",
            "Dead letter after so many rejections",
            _otherwise("max_rejections"),
            _number,
            "number",
        ),
        Field(
            "idle_timeout_s",
            "Seconds without a sign of life",
            f"Then it is taken back from its agent. {silent_s:,g} if left empty.",
            _number,
            "number",
        ),
        Field(
            "run_timeout_s",
            "Seconds that it may run",
            "Then it is taken back from its agent. Without end if left empty.",
            _number,
            "number",
        ),
    )


def _otherwise(name: str) -> str:
    return f"{DEFAULTS[name]} if left empty."


RARE = _rare()
ALL = (*FIELDS, *RARE)
UNTOUCHED: Typed = {"priority": "normal", "on_overdue": "expire"}


# --- The task


def read_typed(form: Mapping[str, str]) -> Typed:
    return {field.name: form.get(field.name, "") for field in ALL}


def task_of(typed: Typed) -> NewTask:
    """Raises `NotATask`."""
    data, faults = {}, {}
    for field in ALL:
        if not (text := typed[field.name]).strip():
            continue
        try:
            if MASK in text:
                raise ValueError(f"has {MASK} where a secret was: write that, or take it out")
            data[field.name] = field.read(text)
        except ValueError as error:
            faults[field.name] = str(error)
    found = faults_of(data)
    if faults or found:
        raise NotATask({**found, **faults})
    try:
        return new_task(data)
    except BadInput as error:  # its deadline has just passed
        raise NotATask({error.answer["field"]: str(error.detail)}) from None


def new_key() -> str:
    """Makes a form one that submits a task once, however often it is sent."""
    return secrets.token_hex(16)


def read_key(form: Mapping[str, str]) -> str:
    key = form.get("key", "")
    return key if KEY.fullmatch(key) else new_key()


def once(key: str, actor: str, typed: Typed) -> str:
    """The idempotency key. Whoever goes back to a form and changes it submits another task."""
    content = json.dumps([key, actor, typed])
    return f"form:{hashlib.sha256(content.encode()).hexdigest()}"


# --- A copy of another task


def typed_as(task_id: str) -> Typed | None:
    """What one types for a task like this one; None if the hub does not know it."""
    task = Task.objects.filter(task_id=task_id).first() if TASK_ID.fullmatch(task_id) else None
    return None if task is None else _typed_as(task, now())


def _typed_as(task: Task, moment: datetime) -> Typed:
    starts = None if task.retry_count else task.not_before
    numbers = ("max_retries", "max_reclaims", "max_rejections")
    seconds = ("retry_backoff_s", "idle_timeout_s", "run_timeout_s")
    return {
        "description": masked_text(task.description),
        "priority": Priority(task.priority).name.lower(),
        "needed_capabilities": _as_names(task.needed_capabilities),
        "assign_to": task.assign_to or "",
        "metadata": json.dumps(masked(task.metadata), indent=2, ensure_ascii=False)
        if task.metadata
        else "",
        "not_before": _ahead(starts, moment),
        "complete_by": _ahead(task.complete_by, moment),
        "on_overdue": task.on_overdue,
        **{n: "" if (v := getattr(task, n)) == DEFAULTS[n] else str(v) for n in numbers},
        **{n: "" if (v := getattr(task, n)) is None else f"{v:g}" for n in seconds},
    }


def _as_names(names: list[str]) -> str:
    text = ", ".join(names)
    is_plain = not text.startswith("[") and _names(text) == names
    return text if is_plain else json.dumps(names, ensure_ascii=False)


def _ahead(then: datetime | None, moment: datetime) -> str:
    """For the control of a moment; empty if it has passed."""
    if then is None or then <= moment:
        return ""
    return then.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
