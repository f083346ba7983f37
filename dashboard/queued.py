"""The queued tasks in the order of dispatch, and why each one is not running."""

from __future__ import annotations

from typing import Any

from agentcom.database import consistent_read, millis
from agentcom.redaction import masked
from dashboard.texts import short
from fleet.waiting import FleetState
from tasks import listing
from tasks.models import Task

UNSHOWN = ("metadata", "result", "last_error")  # which may be large


def queued_page(limit: int, cursor: tuple[int, ...] | None) -> dict[str, Any]:
    """``{"tasks", "count", "next_cursor"}``."""
    with consistent_read():
        fleet = FleetState.now()

        def row(task: Task) -> dict[str, Any]:
            return {
                "id": task.task_id,
                "description": short(task.description),
                "priority": task.priority,
                "needed_capabilities": task.needed_capabilities,
                "created_at": millis(task.created_at),
                "generation": task.generation,
                "waiting": masked(fleet.explain(task)),
            }

        return listing.queued(limit, cursor, row, UNSHOWN).json()
