"""The submitter's socket as JSON Schemas: what programs may say, and what the hub sends to them."""

from __future__ import annotations

from agentcom.asyncapi import Socket
from agentcom.shapes import COUNT, MS, TEXT, Shape, message, one_of, shown
from agentcom.sockets import CLOSE_RATE_LIMITED
from fleet.frames import RATE_LIMITED, TOO_MANY, VERSION, with_example
from fleet.outcomes import ENDED, MAX_WATCHED, MESSAGES
from fleet.protocol import CLOSE_NOT_IDENTIFIED, CLOSE_SILENT, CLOSE_WRONG_TOKEN
from tasks.shapes import AGENT_ID, TASK

CODES = (
    *("invalid_json", "invalid_message", "unknown_message_type", "not_identified"),
    *("invalid_token", "unavailable", "too_many_tasks"),
)
SAID = {type: with_example(type, fields) for type, fields in MESSAGES.items()}
FRAMES: dict[str, Shape] = {
    "identified": message("identified", {"name": AGENT_ID, "version": VERSION}),
    "watching": message("watching", {"count": {**COUNT, "maximum": MAX_WATCHED}}),
    "task_ended": message("task_ended", {"task": TASK}),
    "task_unknown": message("task_unknown", {"task_id": shown(TEXT, "task-0123456789abcdef")}),
    "pong": message("pong", {"timestamp": MS}),
    "rate_limited": RATE_LIMITED,
    "error": message(
        "error",
        {"error": shown(one_of(CODES), "too_many_tasks")},
        {"detail": shown(TEXT, f"a socket waits for at most {MAX_WATCHED:,} tasks")},
    ),
}
ANSWERS = {
    "identify": ("identified", "error"),
    "watch": ("watching", "error"),
    "unwatch": ("watching", "error"),
    "ping": ("pong", "error"),
}
CLOSES = {
    1009: "a frame of more than 256 KiB",
    1012: "the hub stops or restarts; its reason says within how many seconds to reconnect",
    CLOSE_NOT_IDENTIFIED: "ten messages before `identify` that could not be accepted",
    CLOSE_WRONG_TOKEN: "the token was revoked",
    CLOSE_SILENT: "not identified in time",
    CLOSE_RATE_LIMITED: TOO_MANY,
}
SOCKET = Socket(
    name="submitters",
    address="/ws/tasks",
    about="The socket that tells programs when their tasks have ended. The first message is "
    f"`identify`; a task has ended when it is {', '.join(ENDED[:-1])} or {ENDED[-1]}.",
    messages=SAID,
    frames=FRAMES,
    answers=ANSWERS,
    closes=CLOSES,
)
