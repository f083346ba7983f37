"""Journal entries in the form that dashboards receive."""

from __future__ import annotations

from typing import Any

from agentcom.database import millis
from agentcom.models import Event
from agentcom.redaction import masked_text
from dashboard.state.holds import masked_hold
from dashboard.texts import short
from tasks.moves import MOVES

EVENT_TEXT_MAX = 300  # characters of an error, a reason or a message; the history has all of it


def to_wire(event: Event) -> dict[str, Any] | None:
    """None for entries that dashboards do not get. `actor` is who did it; None: unknown."""
    frame = _about(event)
    if frame is not None:
        frame["actor"] = event.actor
    return frame


def _about(event: Event) -> dict[str, Any] | None:
    if event.kind in MOVES:
        return _task_event(event)
    match event.kind:
        case "agent_joined":
            agent = event.data["agent"]
            about = {"name": agent["name"], "capabilities": agent["capabilities"]}
            return {"type": event.kind, "agent_id": event.agent_id, **about}
        case "agent_left" | "agent_forgotten":
            return {"type": event.kind, "agent_id": event.agent_id}
        case "status_changed":
            status = masked_text(event.data["agent"]["status"])
            return {"type": event.kind, "agent_id": event.agent_id, "status": status}
        case "hold_placed" | "hold_lifted":
            return {
                "type": event.kind,
                "agent_id": event.agent_id,
                "hold": masked_hold(event.data["hold"]),
            }
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
        # `get`: entries of older versions have fewer fields
        **{name: _shortened(event.data.get(name)) for name in MOVES[event.kind].shows},
    }


def _shortened(value: Any) -> Any:
    return short(value, EVENT_TEXT_MAX) if isinstance(value, str) else value
