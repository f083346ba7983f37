"""Journal entries as the dashboards see them."""

from __future__ import annotations

from typing import Any

from agentcom.database import millis
from agentcom.models import Event
from dashboard.texts import short

SAID_MAX = 300  # characters of an error, a reason or a message; the task's history has all of it

# What a `task_event` carries of the entry's data, so that a feed can name things.
TOLD: dict[str, tuple[str, ...]] = {
    "task_submitted": ("title",),
    "task_assigned": ("title",),
    "task_accepted": (),
    "task_progress": ("progress", "message"),
    "task_blocked": ("reason",),
    "task_unblocked": (),
    "task_complete": ("duration_ms", "tokens_used"),
    "task_failed": ("error",),
    "task_retried": ("by_hand",),
    "task_rejected": ("reason",),
    "task_reclaimed": ("reason",),
    "task_dead_letter": ("error",),
}


def to_wire(event: Event) -> dict[str, Any] | None:
    """None for what is not the dashboards'."""
    if event.kind in TOLD:
        return _task_event(event)
    match event.kind:
        case "agent_joined":
            agent = event.data["agent"]
            about = {"name": agent["name"], "capabilities": agent["capabilities"]}
            return {"type": event.kind, "agent_id": event.agent_id, **about}
        case "agent_left" | "agent_forgotten":
            return {"type": event.kind, "agent_id": event.agent_id}
        case "status_changed":
            status = event.data["agent"]["status"]
            return {"type": event.kind, "agent_id": event.agent_id, "status": status}
        case "health_changed":
            return health_changed(event.data["status"], event.data["conditions"])
    return None


def health_changed(status: str, conditions: list[str]) -> dict[str, Any]:
    return {"type": "health_changed", "status": status, "conditions": conditions}


def _task_event(event: Event) -> dict[str, Any]:
    return {
        "type": "task_event",
        "task_id": event.task_id,
        "event": event.kind,
        "agent_id": event.agent_id,
        "timestamp": millis(event.at),
        # `get`: entries of older versions carry less
        **{name: _said(event.data.get(name)) for name in TOLD[event.kind]},
    }


def _said(value: Any) -> Any:
    return short(value, SAID_MAX) if isinstance(value, str) else value
