"""Agents and holds as clients send and read them, as JSON Schemas."""

from __future__ import annotations

from typing import Any

from agentcom import __version__
from agentcom.fields import fields
from agentcom.rights import TokenKind
from agentcom.shapes import (
    ACTOR,
    COUNT,
    FLAG,
    MS,
    TEXT,
    TEXTS,
    Named,
    Shape,
    always,
    array,
    nullable,
    one_of,
    record,
    shown,
)
from fleet.holds import HOLD_FIELDS, HOLD_NEEDED, SUBJECTS
from fleet.models import AgentState, Scope
from fleet.waiting import REASONS
from tasks.shapes import AGENT_ID, HISTORY, TASK_ID, TASK_PARTS

# --- Holds

HOLD_ID: Shape = {
    "type": "string",
    "pattern": "^hold-[0-9a-f]{16}$",
    "examples": ["hold-0123456789abcdef"],
}
# as a caller gave it
HOLD_ID_SAID: Shape = shown(TEXT, "hold-0123456789abcdef")


def _new_hold() -> Shape:
    """What is held decides which subjects there are."""
    every = fields(HOLD_FIELDS, required=HOLD_NEEDED)

    def on(scope: Scope, subject: Shape, *more: str) -> dict[str, Any]:
        parts = {**every["properties"], "scope": always(scope.value), "subject": subject}
        return {**every, "properties": parts, "required": [*HOLD_NEEDED, *more]}

    return {
        "anyOf": [
            *(on(scope, check.shape, "subject") for scope, check in SUBJECTS.items()),
            on(Scope.HUB, {"type": "null"}),
        ]
    }


NEW_HOLD = Named(
    "NewHold",
    shown(
        _new_hold(),
        {
            "scope": "capability",
            "subject": "gpu",
            "reason": "new drivers",
            "until": "2030-01-31T12:00:00Z",
        },
    ),
)
HOLD = Named(
    "Hold",
    record(
        {
            "id": HOLD_ID,
            "scope": shown(one_of(Scope.values), "capability"),
            "subject": shown(nullable(TEXT), "gpu", description="Null for the hub."),
            "reason": shown(TEXT, "new drivers"),
            "placed_by": ACTOR,
            "placed_at": MS,
            "until": nullable(shown(MS, 1896091200000)),
        }
    ),
)
HOLDS = Named("Holds", record({"holds": array(HOLD)}))
LIFTED = Named("Lifted", record({"status": always("lifted"), "hold_id": HOLD_ID}))

# --- Agents

STATE: Shape = shown(one_of(AgentState.values), "working")
AGENT_PARTS: dict[str, Shape] = {
    "agent_id": AGENT_ID,
    "name": shown(TEXT, "Reviewer"),
    "status": shown(TEXT, "reading"),
    "capabilities": shown(TEXTS, ["review"]),
    "connected_at": nullable(MS),
    "fsm_state": STATE,
}
AGENT = Named("Agent", record(AGENT_PARTS))
AGENTS = Named("Agents", record({"agents": array(AGENT)}))
AGENT_STATE = Named(
    "AgentState",
    record(
        {
            **AGENT_PARTS,
            "current_task_id": nullable(TASK_ID),
            "flags": shown(array(one_of(["awaiting_recovery"])), []),
            "accepts": shown(TEXTS, ["cancel"]),
            "last_state_change": nullable(MS),
            "last_seen": nullable(MS),
            "disconnected_at": shown(nullable(MS), None),
            "signed_off": shown(FLAG, False),
        }
    ),
)
AGENT_STATES = Named("AgentStates", record({"agents": array(AGENT_STATE)}))

WHOAMI = Named(
    "WhoAmI",
    record(
        {
            "name": AGENT_ID,
            "kind": one_of(TokenKind.values),
            "version": shown(TEXT, __version__),
            "timestamp": MS,
        }
    ),
)

# --- One task

WAITING = Named(
    "Waiting",
    record(
        {
            "reason": shown(one_of(REASONS), "nobody_capable"),
            "message": shown(TEXT, "No connected agent can do this: nobody has gpu."),
            "missing": shown(TEXTS, ["gpu"]),
            "ahead": nullable(COUNT),
            "until": shown(nullable(MS), None),
            "hold": shown(nullable(HOLD), None),
        }
    ),
)
FULL_TASK = Named(
    "FullTask",
    record({**TASK_PARTS, "history": HISTORY, "waiting": shown(nullable(WAITING), None)}),
)

# --- Health

SERVICE: dict[str, Shape] = {"service": always("agentcom")}
HEALTHY = Named(
    "Healthy",
    record({"status": always("ok"), **SERVICE, "agents_connected": shown(COUNT, 3)}),
)
ALIVE = Named("Alive", record({"status": always("ok"), **SERVICE}))
UNHEALTHY = Named(
    "Unhealthy",
    record(
        {
            "status": always("unavailable"),
            **SERVICE,
            "detail": shown(TEXT, "the database does not answer"),
        }
    ),
)
