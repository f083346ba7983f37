"""The dashboard's socket as JSON Schemas: what viewers may say, and what the hub sends to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from agentcom.asyncapi import Socket
from agentcom.shapes import (
    ACTOR,
    MS,
    TEXT,
    TEXTS,
    Named,
    Shape,
    always,
    array,
    example,
    message,
    nullable,
    one_of,
    shown,
    with_type,
)
from agentcom.sockets import CLOSE_RATE_LIMITED
from dashboard.asking import WINDOW
from dashboard.consumers import ACTS, CLOSE_SESSION_ENDED, Act
from dashboard.shapes import LIGHT, PATCH, SEQ, SNAPSHOT
from fleet.frames import RATE_LIMITED, TOO_MANY
from fleet.shapes import HOLD
from tasks.moves import MOVES
from tasks.shapes import AGENT_ID, DETAILS, TASK_ID

SUBJECTS: dict[str, Shape] = {
    "task_id": shown(TEXT, "task-0123456789abcdef"),
    "agent_id": AGENT_ID,
    "hold_id": shown(TEXT, "hold-0123456789abcdef"),
}

# --- What viewers may say


def said(type: str, act: Act) -> Shape:
    """A message that asks for a change: its subject, and the fields that its command reads."""
    subject = {name: SUBJECTS[name] for name in act.subject}
    shape = with_type(type, act.body)
    if subject:
        needed = [*shape["required"], *subject]
        shape = {**shape, "properties": {**shape["properties"], **subject}, "required": needed}
    about = {name: example(each) for name, each in subject.items()}
    return shown(shape, {"type": type, **about, **example(act.body)})


SAID: dict[str, Shape] = {
    "request_snapshot": message("request_snapshot", {}),
    "subscribe": message("subscribe", {"patches": always(True)}, {"agents": WINDOW}),
    "ping": message("ping", {}),
    **{type: said(type, act) for type, act in ACTS.items()},
}

# --- Events


def event(type: str, fields: Mapping[str, Shape]) -> Shape:
    return message(type, {**fields, "actor": nullable(ACTOR)})


def task_event(kind: str) -> Shape:
    """One of earlier versions may have null in place of a field that it did not know."""
    return event(
        "task_event",
        {
            "task_id": TASK_ID,
            "event": always(kind),
            "agent_id": nullable(AGENT_ID),
            "timestamp": MS,
            **{name: nullable(DETAILS[name]) for name in MOVES[kind].shows},
        },
    )


ABOUT_AGENT: dict[str, Shape] = {"agent_id": AGENT_ID}
ABOUT_HOLD: dict[str, Shape] = {"agent_id": shown(nullable(TEXT), None), "hold": HOLD}
EVENTS: tuple[Shape, ...] = (
    *(task_event(kind) for kind in MOVES),
    event("agent_joined", {**ABOUT_AGENT, "name": TEXT, "capabilities": TEXTS}),
    event("agent_left", ABOUT_AGENT),
    event("agent_forgotten", ABOUT_AGENT),
    event("status_changed", {**ABOUT_AGENT, "status": shown(TEXT, "reading")}),
    event("hold_placed", ABOUT_HOLD),
    event("hold_lifted", ABOUT_HOLD),
    event("health_changed", {"status": LIGHT, "conditions": TEXTS}),
)

# --- What the hub sends


def answers_to(act: Act) -> list[Shape]:
    """What became of it, or why it was refused."""
    about = {name: SUBJECTS[name] for name in act.subject}
    refusals = [*act.refusals, "unavailable"]
    return [
        *(
            message(act.answer, {**about, "status": always(status), **more})
            for status, more in act.statuses.items()
        ),
        message(act.answer, {**about, "status": one_of(refusals)}),
        message(act.answer, {**about, "status": one_of(["invalid", "forbidden"]), "detail": TEXT}),
    ]


def _results() -> dict[str, Shape]:
    found = defaultdict[str, list[Shape]](list)
    for act in ACTS.values():
        found[act.answer] += answers_to(act)
    return {type: {"anyOf": shapes} for type, shapes in found.items()}


FRAMES: dict[str, Shape] = {
    "snapshot": message("snapshot", {"data": SNAPSHOT}),
    "events": message(
        "events",
        {"seq": SEQ, "data": array(Named("Event", {"anyOf": EVENTS}), minItems=1)},
    ),
    "patch": message("patch", {"seq": SEQ, "data": PATCH}),
    "subscribe_result": message("subscribe_result", {"status": always("invalid"), "detail": TEXT}),
    "pong": message("pong", {"timestamp": MS}),
    "rate_limited": RATE_LIMITED,
    "session_ended": message("session_ended", {}),
    **_results(),
}
ANSWERS = {
    "request_snapshot": ("snapshot",),
    "subscribe": ("subscribe_result",),
    "ping": ("pong",),
    **{type: (act.answer,) for type, act in ACTS.items()},
}
CLOSES = {
    1009: "a frame of more than 256 KiB",
    1012: "the hub stops; its reason says within how many seconds to reconnect",
    CLOSE_SESSION_ENDED: "the login has ended, or lost the permissions to look",
    CLOSE_RATE_LIMITED: f"{TOO_MANY}; or too many viewers with this address",
}

SOCKET = Socket(
    name="dashboard",
    address="/ws/dashboard",
    about="The socket on which viewers follow the fleet. It begins with a `snapshot`; messages "
    "that are not understood are ignored.",
    messages=SAID,
    frames=FRAMES,
    answers=ANSWERS,
    closes=CLOSES,
)
