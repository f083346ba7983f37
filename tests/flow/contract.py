"""The shapes that clients rely on."""

from __future__ import annotations

from types import NoneType
from typing import Any

import httpx

Shape = Any  # a type, some types, or a dict of shapes by key

TASK: Shape = {
    "id": str,
    "description": str,
    "metadata": dict,
    "priority": int,
    "status": str,
    "assigned_to": (str, NoneType),
    "assigned_at": (int, NoneType),
    "generation": int,
    "retry_count": int,
    "max_retries": int,
    "reclaim_count": int,
    "max_reclaims": int,
    "rejection_count": int,
    "max_rejections": int,
    "retry_backoff_s": (float, NoneType),
    "idle_timeout_s": (float, NoneType),
    "run_timeout_s": (float, NoneType),
    "needed_capabilities": list,
    "assign_to": (str, NoneType),
    "last_error": (str, NoneType),
    "cancel_reason": (str, NoneType),
    "cancel_deadline": (int, NoneType),
    "not_before": (int, NoneType),
    "complete_by": (int, NoneType),
    "on_overdue": str,
    "result": (dict, NoneType),
    "tokens_used": (int, NoneType),
    "submitted_by": str,
    "created_at": int,
    "updated_at": int,
}
AGENT_STATE: Shape = {
    "agent_id": str,
    "name": str,
    "status": str,
    "capabilities": list,
    "connected_at": (int, NoneType),
    "fsm_state": str,
    "current_task_id": (str, NoneType),
    "flags": list,
    "accepts": list,
    "last_state_change": int,
}
SNAPSHOT: Shape = {
    "uptime_ms": int,
    "timestamp": int,
    "seq": int,
    "health": {"status": str, "conditions": list, "details": list},
    "agents_by_state": dict,
    "agents": list,
    "offline_agents": list,
    "queue": {
        "by_status": dict.fromkeys(
            ("queued", "scheduled", "assigned", "completed", "cancelled"), int
        ),
        "by_priority": {"0": int, "1": int, "2": int, "3": int},
        "dead_letter": int,
        "lanes": {
            str(lane): {
                "queued": int,
                "oldest_at": (int, NoneType),
                "added_per_min": float,
                "drained_per_min": float,
            }
            for lane in range(4)
        },
    },
    "holds": list,
    "dead_letter_tasks": list,
    "recent_completions": list,
    "throughput": {
        "completed_last_hour": int,
        "avg_completion_ms": int,
        "p50_ms": int,
        "p95_ms": int,
        "total_tokens_hour": int,
    },
}
SNAPSHOT_ROWS: Shape = {
    "agents": {
        "agent_id": str,
        "name": str,
        "fsm_state": str,
        "current_task_id": (str, NoneType),
        "current_task_title": (str, NoneType),
        "capabilities": list,
        "accepts": list,
        "connected_at": int,
        "last_state_change": int,
        "completed_this_hour": int,
        "failed_this_hour": int,
    },
    "offline_agents": {
        "agent_id": str,
        "current_task_id": (str, NoneType),
        "current_task_title": (str, NoneType),
        "last_seen": int,
        "completed_this_hour": int,
        "failed_this_hour": int,
    },
    "holds": {
        "id": str,
        "scope": str,
        "subject": (str, NoneType),
        "reason": str,
        "placed_by": str,
        "placed_at": int,
        "until": (int, NoneType),
    },
    "dead_letter_tasks": {
        "id": str,
        "description": str,
        "last_error": str,
        "retry_count": int,
        "created_at": int,
    },
    "recent_completions": {
        "task_id": str,
        "agent_id": str,
        "description": str,
        "duration_ms": int,
        "tokens_used": int,
        "completed_at": int,
    },
}
HEALTH_DETAIL: Shape = {
    "code": str,
    "severity": str,
    "message": str,
    "since": int,
    "subjects": list,
    "advice": str,
}


def assert_shape(value: Any, shape: Shape, place: str = "it") -> None:
    """Every key is there with its type; there may be more."""
    if not isinstance(shape, dict):
        types = shape if isinstance(shape, tuple) else (shape,)
        assert type(value) in types, f"{place} is {value!r}"
        return
    for key, inner in shape.items():
        assert key in value, f"{place} lacks {key}"
        assert_shape(value[key], inner, f"{place}.{key}")


def is_json(answer: httpx.Response) -> bool:
    return answer.headers["Content-Type"].startswith("application/json")
