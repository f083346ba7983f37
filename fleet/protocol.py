"""The agents' language: what a frame may say, and the frames that the hub says. No I/O.

Each message type lists its fields with a check; a check takes the value and gives it back (perhaps
in a tidier form) or raises ValueError with the rest of a sentence that began with the field's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from agentcom.database import millis
from agentcom.wire import fault
from fleet.models import Agent
from tasks.models import Task

Check = Callable[[Any], Any]
Frame = dict[str, Any]

MAX_ID = 128  # characters
MAX_TEXT = 16_384  # characters
MAX_WHOLE = 2**53  # beyond it JSON numbers are no longer exact everywhere
MAX_CAPABILITIES = 64


class ProtocolError(Exception):
    """A frame that is not understood; the socket stays open. `code` as in the contract."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Field:
    check: Check
    required: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A well-formed frame. A field that was left out or null is None."""

    type: str
    fields: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


def parse(text: str) -> Message:
    """Raises `ProtocolError`: invalid_json, unknown_message_type or invalid_message."""
    try:
        frame = orjson.loads(text)
    except ValueError:  # also lone surrogates, NaN, and nesting without end
        raise ProtocolError("invalid_json") from None
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise ProtocolError("invalid_message", "a JSON object with a type is expected")
    fields = MESSAGES.get(frame["type"])
    if fields is None:
        raise ProtocolError("unknown_message_type")
    if (wrong := fault(frame)) is not None:
        raise ProtocolError("invalid_message", f"it {wrong}")
    return Message(frame["type"], {n: _read(frame, n, field) for n, field in fields.items()})


def _read(frame: dict[str, Any], name: str, field: Field) -> Any:
    value = frame.get(name)
    if value is None:
        if field.required:
            raise ProtocolError("invalid_message", f"{name}: is required")
        return None
    try:
        return field.check(value)
    except ValueError as error:
        raise ProtocolError("invalid_message", f"{name}: {error}") from None


# --- Checks


def text(most: int, least: int = 0) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("must be a string")
        if not least <= len(value) <= most:
            raise ValueError(f"must have {least} to {most} characters")
        return value

    return check


def whole(most: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not 0 <= value <= most:
            raise ValueError(f"must be a whole number from 0 to {most}")
        return value

    return check


def percent(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise ValueError("must be a number from 0 to 100")
    return value


def mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def capabilities(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_CAPABILITIES:
        raise ValueError(f"must be a list of at most {MAX_CAPABILITIES} strings")
    return tuple(CAPABILITY(item) for item in value)


def check_agent_id(value: Any) -> str:
    """1 to 128 printable characters, no space at the ends. Raises ValueError with a sentence."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID:
        raise ValueError(f"must be a string of 1 to {MAX_ID} characters")
    if not value.isprintable() or value != value.strip():
        raise ValueError("must be printable, without spaces at the ends")
    return value


CAPABILITY = text(64, least=1)
TASK = {"task_id": Field(text(MAX_ID, least=1), required=True)}
HELD = {**TASK, "generation": Field(whole(2**31 - 1))}
FENCED = {**TASK, "generation": Field(whole(2**31 - 1), required=True)}

MESSAGES: dict[str, dict[str, Field]] = {
    "identify": {
        "agent_id": Field(check_agent_id, required=True),
        "token": Field(text(512), required=True),
        "name": Field(text(200)),
        "status": Field(text(500)),
        "capabilities": Field(capabilities),
        "presence": Field(flag),
    },
    "task_accepted": HELD,
    "task_progress": {**HELD, "progress": Field(percent), "message": Field(text(MAX_TEXT))},
    "task_complete": {
        **FENCED,
        "result": Field(mapping, required=True),
        "tokens_used": Field(whole(MAX_WHOLE)),
    },
    "task_failed": {**FENCED, "error": Field(text(MAX_TEXT)), "reason": Field(text(MAX_TEXT))},
    "task_rejected": {**HELD, "reason": Field(text(MAX_TEXT))},
    "task_blocked": {**HELD, "reason": Field(text(MAX_TEXT))},
    "task_unblocked": HELD,
    "task_recovering": TASK,
    "status": {"status": Field(text(500), required=True)},
    "list_agents": {},
    "ping": {},
    "sign_off": {},
}


def tokens_of(message: Message) -> int | None:
    """The tokens of a completion, beside its result or inside."""
    if message["tokens_used"] is not None:
        return int(message["tokens_used"])
    inside = message["result"].get("tokens_used")
    if inside is None:
        return None
    try:
        return int(whole(MAX_WHOLE)(inside))
    except ValueError as error:
        raise ProtocolError("invalid_message", f"result.tokens_used: {error}") from None


def error_of(message: Message) -> str:
    """Why a task failed, under either name."""
    error = message["error"] if message["error"] is not None else message["reason"]
    if error is None:
        raise ProtocolError("invalid_message", "error: is required")
    return str(error)


# --- What the hub says


def error(code: str, **more: Any) -> Frame:
    return {"type": "error", "error": code, **more}


def task_assign(task: Task) -> Frame:
    return {
        "type": "task_assign",
        "task_id": task.task_id,
        "description": task.description,
        "metadata": task.metadata,
        "generation": task.generation,
        "assigned_at": millis(task.assigned_at),
    }


def agent_json(agent: Agent) -> dict[str, Any]:
    """An agent as others see it; `connected_at` in ms."""
    return {
        "agent_id": agent.agent_id,
        "name": agent.name,
        "status": agent.status,
        "capabilities": agent.capabilities,
        "connected_at": millis(agent.connected_at),
        "fsm_state": agent.fsm_state,
    }
