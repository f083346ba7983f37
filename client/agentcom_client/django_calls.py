"""What a hub's task says of a Django task: the call in its metadata, and the form of an error. The
backend and the workers agree on it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from traceback import format_exception
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.core.signing import BadSignature, Signer
from django.tasks import Task
from django.tasks.base import TaskError

from agentcom_client.info import TaskInfo
from agentcom_client.slot import LONGEST_ERROR

KEY = "django"  # of the metadata, which has all that a worker needs
LONGEST_DESCRIPTION = 500


def call_of(found: TaskInfo) -> dict[str, Any]:
    """What a worker is to call; empty for a task that is not Django's."""
    call = found.metadata.get(KEY)
    return call if isinstance(call, dict) else {}


def description(task: Task, args: list[Any], kwargs: dict[str, Any]) -> str:
    """As a call, for people."""
    arguments = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
    text = f"{task.module_path}({', '.join(arguments)})"
    # What `repr` leaves of control characters and surrogates is not for a hub to store.
    text = text.encode("utf-8", "replace").decode().replace("\0", "�")
    return text if len(text) <= LONGEST_DESCRIPTION else f"{text[: LONGEST_DESCRIPTION - 2]}…)"


def signature(path: str, args: list[Any], kwargs: dict[str, Any]) -> str:
    """Of the project's SECRET_KEY, for `verify`."""
    return _signer().signature(_signed(path, args, kwargs))


def verify(call: Mapping[str, Any]) -> None:
    """That the project itself has enqueued this call: all tokens of a hub may submit. Raises
    `SuspiciousOperation`."""
    arguments = unpacked(call, "arguments")
    text = _signed(call["task"], arguments["args"], arguments["kwargs"])
    try:
        _signer().unsign(f"{text}:{call['signature']}")
    except BadSignature:
        raise SuspiciousOperation(
            f"{call['task']}: was not enqueued with this project's SECRET_KEY."
        ) from None


def _signer() -> Signer:
    return Signer(salt="agentcom_client.django")


def _signed(path: str, args: list[Any], kwargs: dict[str, Any]) -> str:
    return json.dumps([path, args, kwargs], sort_keys=True)


def packed(name: str, value: Any) -> dict[str, Any]:
    """For a hub: as it is, or as text if it has what a hub does not keep exactly."""
    if _is_kept(value):
        return {name: value}
    return {f"{name}_json": json.dumps(value)}


def unpacked(fields: Mapping[str, Any], name: str) -> Any:
    text = fields.get(f"{name}_json")
    return fields.get(name) if text is None else json.loads(text)


def _is_kept(value: Any, depth: int = 0) -> bool:
    """See "Values that cannot be stored" in the hub's protocol."""
    match value:
        case bool() | None:
            return True
        case str():
            return "\0" not in value and not re.search("[\ud800-\udfff]", value)
        case int():
            return -(2**63) <= value < 2**64
        case float():  # PostgreSQL has its own way to write some
            return math.isfinite(value) and "e" not in repr(value) and repr(value) != "-0.0"
        case dict():
            return depth < 90 and all(
                isinstance(key, str) and _is_kept(key) and _is_kept(item, depth + 1)
                for key, item in value.items()
            )
        case list():
            return depth < 90 and all(_is_kept(item, depth + 1) for item in value)
    return False


ERROR = re.compile(r"([A-Za-z_][\w.<>]*)(?:: [^\n]*)?\n\n(.*)", re.DOTALL)
TRACEBACK_BEGINS = 300


def error_text(error: BaseException) -> str:
    """`CLASS_PATH: the message's first line`, an empty line, the traceback: what `error_of` reads,
    and for people what they want to know first. A long traceback loses its middle."""
    kind = type(error)
    said = (str(error).splitlines() or [""])[0][:300]
    head = f"{kind.__module__}.{kind.__qualname__}" + (f": {said}" if said else "")
    trace = "".join(format_exception(error))
    room = LONGEST_ERROR - len(head) - 2
    if len(trace) > room:
        cut = "\n  […]\n"
        end = room - TRACEBACK_BEGINS - len(cut)
        trace = f"{trace[:TRACEBACK_BEGINS]}{cut}{trace[-end:]}"
    return f"{head}\n\n{trace}"


def error_of(text: str) -> TaskError:
    if parts := ERROR.fullmatch(text):
        return TaskError(exception_class_path=parts[1], traceback=parts[2])
    # The hub's own words, such as for a deadline that has passed.
    return TaskError(exception_class_path="agentcom_client.NotCompleted", traceback=text)
