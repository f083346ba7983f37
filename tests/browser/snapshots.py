"""Snapshots to show: factories with defaults, each test builds only what differs."""

from __future__ import annotations

from collections import Counter
from typing import Any

NOW = 1_795_346_417_871
MINUTE = 60_000

Row = dict[str, Any]


STATES = ("idle", "assigned", "working", "blocked", "stopping", "unresponsive", "offline")


def by_state(agents: list[Row], offline_agents: list[Row]) -> dict[str, int]:
    states = Counter(agent["fsm_state"] for agent in agents)
    return {**{state: states[state] for state in STATES}, "offline": len(offline_agents)}


def snapshot(**sections: Any) -> Row:
    agents, lost = sections.get("agents", []), sections.get("offline_agents", [])
    return {
        "agents_by_state": by_state(agents, lost),
        "uptime_ms": 2 * 60 * MINUTE,
        "timestamp": NOW,
        "seq": 4711,
        "health": health(),
        "agents": [],
        "offline_agents": [],
        "queue": queue(),
        "dead_letter_tasks": [],
        "recent_completions": [],
        "throughput": {"completed_last_hour": 0, "avg_completion_ms": 0, "total_tokens_hour": 0},
    } | sections


def health(status: str = "ok", *details: Row) -> Row:
    conditions = [detail["message"] for detail in details]
    return {"status": status, "conditions": conditions, "details": list(details)}


def condition(**fields: Any) -> Row:
    return {
        "code": "agent_offline",
        "severity": "warning",
        "message": "1 agent is offline",
        "since": NOW - 3 * MINUTE,
        "subjects": ["writer-1"],
    } | fields


def queue(lanes: tuple[int, int, int, int] = (0, 0, 0, 0), **totals: int) -> Row:
    return {
        "by_status": {
            "queued": sum(lanes),
            "assigned": totals.get("assigned", 0),
            "completed": totals.get("completed", 0),
        },
        "by_priority": {str(lane): waiting for lane, waiting in enumerate(lanes)},
        "dead_letter": totals.get("dead_letter", 0),
    }


def agent(agent_id: str = "writer-1", **fields: Any) -> Row:
    return {
        "agent_id": agent_id,
        "name": agent_id,
        "fsm_state": "idle",
        "current_task_id": None,
        "current_task_title": None,
        "capabilities": ["write"],
        "connected_at": NOW - 90 * MINUTE,
        "last_state_change": NOW - 5 * MINUTE,
    } | fields


def lost_agent(agent_id: str = "writer-9", **fields: Any) -> Row:
    return {
        "agent_id": agent_id,
        "name": agent_id,
        "capabilities": [],
        "last_seen": NOW - 4 * MINUTE,
        "current_task_id": None,
        "current_task_title": None,
    } | fields


def dead_letter(id: str = "task-00000000000000dd", **fields: Any) -> Row:
    return {
        "id": id,
        "description": "translate the release notes",
        "last_error": "Timeout after 30 s",
        "retry_count": 3,
        "created_at": NOW - 60 * MINUTE,
        "failed_at": NOW - 7 * MINUTE,
    } | fields


def completion(task_id: str = "task-00000000000000cc", **fields: Any) -> Row:
    return {
        "task_id": task_id,
        "agent_id": "writer-1",
        "description": "summarise the report",
        "duration_ms": 1234,
        "tokens_used": 1500,
        "completed_at": NOW - 9 * MINUTE,
    } | fields
