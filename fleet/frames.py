"""The agents' socket as JSON Schemas: what agents may say, and what the hub sends to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentcom import __version__
from agentcom.asyncapi import Socket
from agentcom.shapes import (
    COUNT,
    MS,
    OBJECT,
    TEXT,
    Shape,
    always,
    array,
    message,
    nullable,
    one_of,
    shown,
)
from agentcom.sockets import CLOSE_RATE_LIMITED
from fleet.consumers import VERBS
from fleet.protocol import (
    CLOSE_NOT_IDENTIFIED,
    CLOSE_REPLACED,
    CLOSE_SILENT,
    CLOSE_WRONG_TOKEN,
    MESSAGES,
    Field,
)
from fleet.shapes import AGENT
from tasks.shapes import AGENT_ID, TASK_ID, TITLE

# --- What agents may say


def said(type: str, fields: Mapping[str, Field]) -> Shape:
    """A message. One that is not required may be null, which counts as absent."""
    needed = [name for name, field in fields.items() if field.required and not field.also]
    return {
        "type": "object",
        "properties": {
            "type": always(type),
            **{name: _part(field, name in needed) for name, field in fields.items()},
        },
        "required": ["type", *needed],
        **_one_of_two(fields),
    }


def _part(field: Field, is_needed: bool) -> Shape:
    shape = field.check.shape if is_needed else nullable(field.check.shape)
    if field.mend is None:
        return shape
    told = "What does not fit is cut, left out or ignored, and the ack says so."
    return shown(shape, description=told)


def _one_of_two(fields: Mapping[str, Field]) -> dict[str, Any]:
    """A required value that may be in one field or in another."""
    for name, field in fields.items():
        if field.required and len(field.also) == 1:
            given = [
                {"properties": {place: field.check.shape}, "required": [place]}
                for place in (name, *field.also)
            ]
            return {"anyOf": given}
    return {}


EXAMPLES: dict[str, Any] = {
    "agent_id": "reviewer-1",
    "task_ids": ["task-0123456789abcdef"],
    "token": "…",
    "name": "Reviewer",
    "capabilities": ["review", "code"],
    "accepts": ["cancel"],
    "task_id": "task-0123456789abcdef",
    "generation": 1,
    "progress": 50,
    "message": "reading",
    "result": {"verdict": "fine"},
    "tokens_used": 1200,
    "error": "context too long",
    "reason": "May I push to main?",
    "status": "reading",
}


def with_example(type: str, fields: Mapping[str, Field]) -> Shape:
    given = {name: EXAMPLES[name] for name in fields if name in EXAMPLES}
    return shown(said(type, fields), {"type": type, **given})


SAID = {type: with_example(type, fields) for type, fields in MESSAGES.items()}

# --- What the hub sends

ACKS = (
    *("accepted", "complete", "retried", "dead_letter", "cancelled", "requeued", "blocked"),
    "working",
)
REASONS = ("not_found", "stale_generation", "invalid_state", "not_yours")
CODES = (
    *("invalid_json", "invalid_message", "unknown_message_type", "not_identified"),
    *("invalid_token", "token_agent_mismatch", "unavailable"),
    *(f"{verb.refused}: {reason}" for verb in VERBS.values() for reason in REASONS),
)
# also on the other sockets
RATE_LIMITED = message("rate_limited", {"retry_after_ms": shown(COUNT, 100)})
TOO_MANY = "too many messages for more than 30 s"
GENERATION: Shape = shown(COUNT, 1)
VERSION: Shape = shown(TEXT, __version__, description="The hub's.")
ABOUT_TASK: dict[str, Shape] = {"task_id": TASK_ID}
FRAMES: dict[str, Shape] = {
    "identified": message("identified", {"agent_id": AGENT_ID, "version": VERSION}),
    "task_assign": message(
        "task_assign",
        {
            **ABOUT_TASK,
            "description": TITLE,
            "metadata": OBJECT,
            "generation": GENERATION,
            "assigned_at": shown(MS, 1795346417901),
        },
    ),
    "task_cancel": message(
        "task_cancel",
        {
            **ABOUT_TASK,
            "generation": GENERATION,
            "reason": shown(TEXT, "wrong customer"),
            "deadline": shown(MS, 1795346450000),
        },
    ),
    "task_ack": message(
        "task_ack",
        {"task_id": shown(TEXT, "task-0123456789abcdef"), "status": one_of(ACKS)},
        {"detail": shown(TEXT, "error: must have 0 to 16,384 characters; it was cut")},
    ),
    "task_continue": message("task_continue", {**ABOUT_TASK, "generation": GENERATION}),
    "task_reassign": message("task_reassign", {"task_id": shown(TEXT, "task-0123456789abcdef")}),
    "status_updated": message("status_updated", {}),
    "agents": message("agents", {"agents": array(AGENT)}),
    "pong": message("pong", {"timestamp": MS}),
    "rate_limited": RATE_LIMITED,
    "signed_off": message("signed_off", {}),
    "agent_joined": message("agent_joined", {"agent": AGENT}),
    "agent_left": message("agent_left", {"agent_id": AGENT_ID}),
    "status_changed": message("status_changed", {"agent": AGENT}),
    "error": message(
        "error",
        {"error": shown(one_of(CODES), "invalid_message")},
        {
            "task_id": shown(TEXT, "task-0123456789abcdef"),
            "detail": shown(TEXT, "generation: is required"),
        },
    ),
}
ANSWERS = {
    **dict.fromkeys(VERBS, ("task_ack", "error")),
    "task_progress": ("error",),
    "identify": ("identified", "error"),
    "task_recovering": ("task_continue", "task_reassign", "error"),
    "status": ("status_updated", "error"),
    "list_agents": ("agents", "error"),
    "ping": ("pong", "error"),
    "sign_off": ("signed_off", "error"),
}
CLOSES = {
    1000: "after `sign_off`",
    1009: "a frame of more than 256 KiB",
    1012: "the hub stops or restarts, or presumed this process dead; its reason says within how "
    "many seconds to reconnect",
    CLOSE_NOT_IDENTIFIED: "ten messages before `identify` that could not be accepted",
    CLOSE_WRONG_TOKEN: "three wrong tokens, or the token was revoked",
    CLOSE_SILENT: "not identified in time",
    CLOSE_REPLACED: "the same agent identified on a newer socket",
    CLOSE_RATE_LIMITED: TOO_MANY,
}

SOCKET = Socket(
    name="agents",
    address="/ws",
    about="The socket on which agents receive tasks and report outcomes. The first message is "
    "`identify`; messages are processed in order.",
    messages=SAID,
    frames=FRAMES,
    answers=ANSWERS,
    closes=CLOSES,
)
