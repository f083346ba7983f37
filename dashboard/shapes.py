"""What viewers read, as JSON Schemas."""

from __future__ import annotations

from agentcom.shapes import (
    COUNT,
    MS,
    NUMBER,
    TEXT,
    TEXTS,
    Named,
    Shape,
    array,
    nullable,
    one_of,
    record,
    shown,
)
from dashboard.asking import SORTING
from dashboard.health import ADVICE
from dashboard.state.whole import LISTS
from fleet.models import AgentState
from fleet.shapes import AGENT_PARTS, HOLD, WAITING
from tasks.models import Priority
from tasks.shapes import AGENT_ID, COUNTS_PARTS, LANE, TASK_ID, TITLE, page

SEQ: Shape = shown(COUNT, 4711)
GROUP: Shape = {
    "type": "string",
    "pattern": "^[0-9a-f]{16}$",
    "examples": ["6e6e98dc5ade92da"],
}

# --- Health

LIGHT: Shape = shown(one_of(["ok", "warning", "critical"]), "ok")
DETAIL = Named(
    "Condition",
    record(
        {
            "code": shown(one_of(ADVICE), "agent_offline"),
            "severity": one_of(["warning", "critical"]),
            "message": shown(TEXT, "1 agent is offline: writer-2"),
            "since": MS,
            "subjects": shown(TEXTS, ["writer-2"]),
            "advice": shown(TEXT, ADVICE["agent_offline"]),
        }
    ),
)
HEALTH = Named(
    "Health",
    record({"status": LIGHT, "conditions": shown(TEXTS, []), "details": shown(array(DETAIL), [])}),
)

# --- The snapshot

TITLED: dict[str, Shape] = {
    "current_task_id": nullable(TASK_ID),
    "current_task_title": nullable(TITLE),
}
THIS_HOUR: dict[str, Shape] = {
    "completed_this_hour": shown(COUNT, 12),
    "failed_this_hour": shown(COUNT, 1),
}
CONNECTED = Named(
    "ConnectedAgent",
    record(
        {
            **AGENT_PARTS,
            **TITLED,
            "accepts": shown(TEXTS, ["cancel"]),
            "last_state_change": nullable(MS),
            "last_seen": nullable(MS),
            **THIS_HOUR,
        }
    ),
)
LOST = Named(
    "OfflineAgent",
    record(
        {
            "agent_id": AGENT_ID,
            "name": shown(TEXT, "Reviewer"),
            "capabilities": shown(TEXTS, ["review"]),
            **TITLED,
            "last_seen": nullable(MS),
            **THIS_HOUR,
        }
    ),
)
DEAD_LETTER = Named(
    "DeadLetter",
    record(
        {
            "id": TASK_ID,
            "description": TITLE,
            "last_error": shown(TEXT, "context too long"),
            "retry_count": shown(COUNT, 3),
            "created_at": MS,
            "failed_at": MS,
            "agent_id": nullable(AGENT_ID),
        }
    ),
)
COMPLETION = Named(
    "Completion",
    record(
        {
            "task_id": TASK_ID,
            "agent_id": AGENT_ID,
            "description": TITLE,
            "duration_ms": shown(COUNT, 2100),
            "tokens_used": shown(COUNT, 1200),
            "completed_at": MS,
        }
    ),
)
QUEUE_LANE = Named(
    "Lane",
    record(
        {
            "queued": COUNT,
            "oldest_at": nullable(MS),
            "added_per_min": shown(NUMBER, 1.4),
            "drained_per_min": shown(NUMBER, 1.2),
        }
    ),
)
QUEUE: Shape = record(
    {**COUNTS_PARTS, "lanes": record(dict.fromkeys(map(str, Priority.values), QUEUE_LANE))}
)
THROUGHPUT: Shape = record(
    dict.fromkeys(
        (
            *("completed_last_hour", "failed_last_hour", "avg_completion_ms"),
            *("p50_ms", "p95_ms", "total_tokens_hour"),
        ),
        COUNT,
    )
)
ROWS: dict[str, Shape] = {
    "agents": CONNECTED,
    "offline_agents": LOST,
    "dead_letter_tasks": DEAD_LETTER,
    "recent_completions": COMPLETION,
}
WHOLE_PARTS: dict[str, Shape] = {
    "seq": SEQ,
    "health": HEALTH,
    "agents_by_state": record(dict.fromkeys(AgentState.values, COUNT)),
    "queue": QUEUE,
    "holds": array(HOLD),
    "throughput": THROUGHPUT,
}
WINDOW_OF_AGENTS = Named(
    "AgentsWindow",
    record(
        {
            "sort": SORTING,
            "filter": TEXT,
            "from": COUNT,
            "count": COUNT,
            "total": COUNT,
            "matching": COUNT,
            "ids": array(AGENT_ID),
            "rows": array({"anyOf": [CONNECTED, LOST]}),
        }
    ),
)
SNAPSHOT = Named(
    "Snapshot",
    record(
        {
            "uptime_ms": shown(COUNT, 12345),
            "timestamp": MS,
            **WHOLE_PARTS,
            **{name: array(row) for name, row in ROWS.items()},
        },
        {"agents_window": WINDOW_OF_AGENTS},
    ),
)
PATCH = Named(
    "Patch",
    record(
        {},
        {
            **WHOLE_PARTS,
            "agents_window": WINDOW_OF_AGENTS,
            **{
                name: record({"upsert": array(ROWS[name]), "remove": array(TEXT)}) for name in LISTS
            },
        },
    ),
)

# --- What else the page asks for

HISTORY = Named(
    "History",
    record(
        {
            "minutes": shown(COUNT, 60),
            "step_s": shown(one_of([60, 120, 300]), 60),
            "points": array(
                record(
                    {
                        "at": MS,
                        "completed": shown(COUNT, 4),
                        "failed": shown(COUNT, 1),
                        "depth": shown(nullable(COUNT), 3),
                        "p95_ms": shown(COUNT, 6138),
                    }
                )
            ),
        }
    ),
)
QUEUED = Named(
    "QueuePage",
    page(
        record(
            {
                "id": TASK_ID,
                "description": TITLE,
                "priority": LANE,
                "needed_capabilities": shown(TEXTS, ["review"]),
                "created_at": MS,
                "generation": COUNT,
                "waiting": WAITING,
            }
        )
    ),
)
CAUSES = Named(
    "Causes",
    record(
        {
            "groups": array(
                record(
                    {
                        "group": GROUP,
                        "error": shown(TEXT, "no answer within … s"),
                        "count": shown(COUNT, 12),
                        "first_at": MS,
                        "last_at": MS,
                        "agents": shown(TEXTS, ["writer-2"]),
                        "agent_count": shown(COUNT, 1),
                    }
                )
            ),
            "total": shown(COUNT, 14),
        }
    ),
)
DEAD_LETTERS = Named("DeadLetterPage", page(DEAD_LETTER))
CAUSES_OR_LETTERS: Shape = {"anyOf": [CAUSES, DEAD_LETTERS]}
