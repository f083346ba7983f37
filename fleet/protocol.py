"""The agent protocol: which frames agents may send, and the frames that the hub sends. No I/O.

Each message type lists its fields with a check from `agentcom.fields`. A message that reports the
outcome of an attempt is accepted with minor flaws as long as it can be understood: the flaw is
repaired visibly and noted in the answer. Otherwise a detail would leave the task assigned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from agentcom import __version__
from agentcom.database import millis
from agentcom.fields import Check, flag, mapping, percent, seconds, takes, text, texts, whole
from agentcom.texts import cut, is_blank
from agentcom.wire import MAX_DEPTH, decode, fault, sanitized
from fleet.models import Agent
from fleet.names import MAX_ID, check_agent_id, check_slot
from tasks.models import Task

Frame = dict[str, Any]

MAX_TEXT = 16_384  # characters
MAX_TOKENS = 10**12  # of one task; sums stay far below a database's largest integer
MAX_RETRY_S = 7 * 24 * 3600
MAX_CAPABILITIES = 64

# How the sockets of agents and of submitters are closed.
EARLY_ERRORS = 10  # refused messages before `identify`, until the socket is closed
CLOSE_NOT_IDENTIFIED = 4400
CLOSE_WRONG_TOKEN = 4401
CLOSE_SILENT = 4408
CLOSE_REPLACED = 4409


class ProtocolError(Exception):
    """A frame that cannot be understood; the socket stays open. `code`: see docs/protocol."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Field:
    check: Check
    required: bool = False
    # another place where the value may be: the path of keys to it
    also: tuple[str, ...] = ()
    # part of an outcome: characters and values that cannot be stored are replaced
    outcome: bool = False
    # repairs an outcome's value that fails the check: gives what is kept and a note of what was
    # done, or raises ValueError
    mend: Callable[[Any], tuple[Any, str]] | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A well-formed frame. A field that was left out or null is None."""

    type: str
    fields: Mapping[str, Any]
    # sentences about what was changed or left out
    notes: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


def parse(text: str, messages: Mapping[str, Mapping[str, Field]] | None = None) -> Message:
    """`messages` are those that the socket knows; by default, the ones of agents.

    Raises `ProtocolError`: invalid_json, unknown_message_type or invalid_message."""
    frame = _decoded(text)
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise ProtocolError("invalid_message", "a JSON object with a type is expected")
    fields = (MESSAGES if messages is None else messages).get(frame["type"])
    if fields is None:
        raise ProtocolError("unknown_message_type")
    notes: list[str] = []
    if (wrong := fault(frame)) is not None:
        if frame["type"] not in OUTCOMES:
            raise _unstorable("it", wrong)
        frame = _storable(frame, fields, notes)
    values = {name: _read(frame, name, field, notes) for name, field in fields.items()}
    return Message(frame["type"], values, notes)


def _decoded(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:  # also NaN, and nesting without end
        pass
    try:
        return decode(text)
    except ValueError:
        raise ProtocolError("invalid_json") from None


def _storable(frame: Frame, fields: Mapping[str, Field], notes: list[str]) -> Frame:
    """Only the known fields, in a form that can be stored."""
    kept = {"type": frame["type"]}
    for name in fields.keys() & frame.keys():
        value = kept[name] = frame[name]
        if (wrong := fault(value, MAX_DEPTH - 1)) is None:
            continue
        if not fields[name].outcome:
            raise _unstorable(f"{name}:", wrong)
        kept[name] = sanitized(value, MAX_DEPTH - 1)
        notes.append(f"{name}: {wrong}; that was replaced")
    return kept


def _unstorable(what: str, wrong: str) -> ProtocolError:
    if "surrogate" in wrong:  # a lone surrogate cannot be encoded, so this is not JSON
        return ProtocolError("invalid_json")
    return ProtocolError("invalid_message", f"{what} {wrong}")


def _read(frame: Frame, name: str, field: Field, notes: list[str]) -> Any:
    value = frame.get(name)
    if value is None and field.also and (value := _at(frame, field.also)) is not None:
        name = ".".join(field.also)
    if value is None:
        if field.required:
            raise ProtocolError("invalid_message", f"{name}: is required")
        return None
    try:
        return field.check(value)
    except ValueError as error:
        return _mended(name, value, field, error, notes)


def _mended(name: str, value: Any, field: Field, error: ValueError, notes: list[str]) -> Any:
    sentence = f"{name}: {error}"
    if field.mend is None:
        raise ProtocolError("invalid_message", sentence)
    try:
        kept, done = field.mend(value)
    except ValueError:
        raise ProtocolError("invalid_message", sentence) from None
    if (note := f"{sentence}; {done}") not in notes:
        notes.append(note)
    return kept


def _at(frame: Frame, path: tuple[str, ...]) -> Any:
    value: Any = frame
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


# --- Checks


def shown(check: Check) -> Check:
    """For a text that people read; one without any visible character counts as empty."""

    @takes(check.shape)
    def check_shown(value: Any) -> str:
        said: str = check(value)
        return "" if is_blank(said) else said

    return check_shown


@takes(whole(MAX_TOKENS).shape)
def tokens(value: Any) -> int:
    return int(whole(MAX_TOKENS)(value))


def _cut(value: Any) -> tuple[str, str]:
    if not isinstance(value, str):
        raise ValueError
    return cut(value, MAX_TEXT), "it was cut"


def _ignore(value: Any) -> tuple[None, str]:
    return None, "it was ignored"


def _omit(value: Any) -> tuple[None, str]:
    return None, "it was not counted"


TASK = {"task_id": Field(text(MAX_ID, min_length=1), required=True)}
HELD = {**TASK, "generation": Field(whole(2**31 - 1))}
FENCED = {**TASK, "generation": Field(whole(2**31 - 1), required=True)}
OUTCOME_TEXT = Field(text(MAX_TEXT), outcome=True, mend=_cut)

MESSAGES: dict[str, dict[str, Field]] = {
    "identify": {
        "agent_id": Field(check_agent_id),
        "slot": Field(check_slot),
        "token": Field(text(512), required=True),
        "name": Field(shown(text(200))),
        "status": Field(shown(text(500))),
        "capabilities": Field(texts(MAX_CAPABILITIES, text(64, min_length=1))),
        "presence": Field(flag),
        "accepts": Field(texts(MAX_CAPABILITIES, text(64, min_length=1))),
    },
    "task_accepted": HELD,
    "task_progress": {**HELD, "progress": Field(percent), "message": OUTCOME_TEXT},
    "task_complete": {
        **FENCED,
        "result": Field(mapping, required=True, outcome=True),
        "tokens_used": Field(tokens, also=("result", "tokens_used"), outcome=True, mend=_omit),
    },
    "task_failed": {
        **FENCED,
        "error": replace(OUTCOME_TEXT, required=True, also=("reason",)),
        "reason": OUTCOME_TEXT,
        "retryable": Field(flag, outcome=True, mend=_ignore),
        "retry_after_s": Field(seconds(MAX_RETRY_S), outcome=True, mend=_ignore),
    },
    "task_cancelled": {
        **FENCED,
        "result": Field(mapping, outcome=True),
        "tokens_used": Field(tokens, also=("result", "tokens_used"), outcome=True, mend=_omit),
    },
    "task_rejected": {**HELD, "reason": OUTCOME_TEXT},
    "task_blocked": {**HELD, "reason": OUTCOME_TEXT},
    "task_unblocked": HELD,
    "task_recovering": TASK,
    "status": {"status": Field(shown(text(500)), required=True)},
    "list_agents": {},
    "ping": {},
    "sign_off": {},
}
OUTCOMES = {
    type for type, fields in MESSAGES.items() if any(field.outcome for field in fields.values())
}


# --- Frames from the hub


def error(code: str, **more: Any) -> Frame:
    return {"type": "error", "error": code, **more}


def identified(agent_id: str) -> Frame:
    """`version` is the hub's."""
    return {"type": "identified", "agent_id": agent_id, "version": __version__}


def task_assign(task: Task) -> Frame:
    return {
        "type": "task_assign",
        "task_id": task.task_id,
        "description": task.description,
        "metadata": task.metadata,
        "generation": task.generation,
        "assigned_at": millis(task.assigned_at),
    }


def task_cancel(task_id: str, generation: int, reason: str | None, deadline: int | None) -> Frame:
    """`deadline` in ms."""
    return {
        "type": "task_cancel",
        "task_id": task_id,
        "generation": generation,
        "reason": reason or "",
        "deadline": deadline,
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
