"""Tasks as programs send and read them, as JSON Schemas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentcom.fields import fields
from agentcom.shapes import (
    ACTOR,
    COUNT,
    FLAG,
    MS,
    NUMBER,
    OBJECT,
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
from tasks.models import OnOverdue, Priority, Status
from tasks.moves import MOVES
from tasks.queue import NewTask, Why
from tasks.serializers import MAX_TASKS, TASK_FIELDS

TASK_ID: Shape = {
    "type": "string",
    "pattern": "^task-[0-9a-f]{16}$",
    "examples": ["task-0123456789abcdef"],
}
# as a caller gave it
TASK_ID_SAID: Shape = shown(TEXT, "task-0123456789abcdef")
LANE: Shape = shown(one_of(Priority.values), 1)
STATUS: Shape = one_of(Status.values)
AGENT_ID: Shape = shown(TEXT, "reviewer-1")
TITLE: Shape = shown(TEXT, "Review the change")

# --- What programs send


_UNSAID = NewTask("")
# Where the hub's settings decide, there is none.
DEFAULTS: dict[str, Any] = {
    name: getattr(_UNSAID, name)
    for name in TASK_FIELDS
    if name != "description" and getattr(_UNSAID, name) is not None
} | {
    "priority": Priority(_UNSAID.priority).name.lower(),
    "on_overdue": str(_UNSAID.on_overdue),
    "needed_capabilities": list(_UNSAID.needed_capabilities),
}

NEW_TASK = Named(
    "NewTask",
    shown(
        fields(TASK_FIELDS, required=["description"], defaults=DEFAULTS),
        {
            "description": "Review the change",
            "priority": "high",
            "metadata": {"pull_request": 12},
            "needed_capabilities": ["review"],
            "max_retries": 5,
        },
        description="not_before must be before complete_by.",
    ),
)
NEW_TASKS: Shape = {"anyOf": [NEW_TASK, array(NEW_TASK, minItems=1, maxItems=MAX_TASKS)]}

# --- What programs read

RECEIPT = Named(
    "Receipt",
    record({"status": always("queued"), "task_id": TASK_ID, "priority": LANE, "created_at": MS}),
)
RECEIPTS = Named("Receipts", record({"tasks": array(RECEIPT), "count": shown(COUNT, 1)}))

RECEIVED: Shape = {"anyOf": [RECEIPT, RECEIPTS]}

TASK_PARTS: dict[str, Shape] = {
    "id": TASK_ID,
    "description": TITLE,
    "metadata": OBJECT,
    "priority": LANE,
    "status": shown(STATUS, "assigned"),
    "assigned_to": nullable(AGENT_ID),
    "assigned_at": nullable(shown(MS, 1795346417901)),
    "generation": shown(COUNT, 1),
    "retry_count": COUNT,
    "max_retries": shown(COUNT, 5),
    "reclaim_count": COUNT,
    "max_reclaims": shown(COUNT, 5),
    "rejection_count": COUNT,
    "max_rejections": shown(COUNT, 20),
    "retry_backoff_s": nullable(NUMBER),
    "idle_timeout_s": nullable(NUMBER),
    "run_timeout_s": nullable(NUMBER),
    "needed_capabilities": shown(TEXTS, ["review"]),
    "assign_to": nullable(TEXT),
    "last_error": nullable(TEXT),
    "cancel_reason": nullable(TEXT),
    "cancel_deadline": nullable(shown(MS, None)),
    "not_before": nullable(shown(MS, None)),
    "complete_by": nullable(shown(MS, None)),
    "on_overdue": one_of(OnOverdue.values),
    "result": nullable(OBJECT),
    "tokens_used": nullable(COUNT),
    "submitted_by": shown(TEXT, "my-agent"),
    "created_at": MS,
    "updated_at": shown(MS, 1795346417901),
}
TASK = Named("Task", record(TASK_PARTS))


def page(rows: Shape) -> Shape:
    """One page of a list."""
    return record(
        {
            "tasks": array(rows),
            "count": shown(COUNT, 1, description="Of the tasks on this page."),
            "next_cursor": shown(
                nullable(TEXT), None, description="The cursor of the next page; null on the last."
            ),
        }
    )


TASKS = Named("TaskPage", page(TASK))

_SHOWN = [status for status in Status.values if status != Status.DEAD_LETTER]
COUNTS_PARTS: dict[str, Shape] = {
    "by_status": record(dict.fromkeys(_SHOWN, COUNT)),
    "by_priority": record(dict.fromkeys(map(str, Priority.values), COUNT)),
    "dead_letter": COUNT,
}
COUNTS = Named("Counts", record(COUNTS_PARTS))


def steered(status: Iterable[str], **more: Shape) -> Shape:
    """The answer to a person's command."""
    return record({"status": one_of(status), "task_id": TASK_ID, **more})


RETRIED = Named("Retried", steered(["requeued"], priority=LANE))
CANCELLED = Named("Cancelled", steered(["cancelled"]))
CANCELLING = Named("Cancelling", steered(["cancelling"], deadline=shown(MS, 1795346447871)))
MOVED = Named("Moved", steered(Status.values, priority=LANE))

# --- What the journal keeps of tasks

# Each detail is the same wherever it occurs.
DETAILS: dict[str, Shape] = {
    "title": TITLE,
    "priority": LANE,
    "old_priority": LANE,
    "old_needs": TEXT,
    "status": STATUS,
    "was": STATUS,
    "until": nullable(shown(MS, None)),
    "deadline": shown(MS, 1795346447871),
    "generation": shown(COUNT, 1),
    "progress": nullable(NUMBER),
    "message": nullable(TEXT),
    "reason": nullable(TEXT),
    "error": TEXT,
    "duration_ms": shown(COUNT, 2100),
    "tokens_used": nullable(COUNT),
    "by_hand": FLAG,
    "why": one_of(why.value for why in Why),
    "agent": nullable(TEXT),
    "said": TEXT,
    "retry_count": COUNT,
    "assigned_to": nullable(AGENT_ID),
}


def entry(kind: str) -> Shape:
    """An entry of a task's history. Those of earlier versions may have fewer details."""
    move = MOVES[kind]
    carries = {name: DETAILS[name] for name in (*move.shows, *move.keeps, *move.hides)}
    return record(
        {
            "event": always(kind),
            "timestamp": MS,
            "agent_id": nullable(AGENT_ID),
            "actor": nullable(ACTOR),
            "details": record({}, carries),
        }
    )


HISTORY: Shape = array(Named("HistoryEntry", {"anyOf": [entry(kind) for kind in MOVES]}))
