"""A task as a hub describes it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from agentcom_client.errors import NotCompleted

ENDED = frozenset({"completed", "cancelled", "dead_letter"})


@dataclass(frozen=True)
class TaskInfo:
    """Times are in ms since the epoch, durations in s. docs/protocol of the hub explains the
    fields; `raw` has them all as the hub sent them, also those of later versions.

    `history` and `waiting` are only there when one task was asked for, see `Hub.show`.
    """

    id: str
    description: str
    status: str  # queued, scheduled, assigned, completed, cancelled or dead_letter
    priority: int = 2  # 0 (urgent) to 3 (low)
    metadata: dict[str, Any] = field(default_factory=dict)
    assigned_to: str | None = None
    generation: int = 0
    retry_count: int = 0
    max_retries: int = 0
    result: dict[str, Any] | None = None
    last_error: str | None = None
    tokens_used: int | None = None
    needed_capabilities: list[str] = field(default_factory=list)
    assign_to: str | None = None
    cancel_reason: str | None = None
    not_before: int | None = None
    complete_by: int | None = None
    submitted_by: str | None = None
    created_at: int = 0
    updated_at: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    waiting: dict[str, Any] | None = None
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, raw: dict[str, Any]) -> TaskInfo:
        known = {name: raw[name] for name in _NAMES if name in raw}
        return cls(**known, raw=raw)

    @property
    def is_ended(self) -> bool:
        return self.status in ENDED

    def outcome(self) -> dict[str, Any]:
        """The result. Raises `NotCompleted` when there is none."""
        if self.status != "completed":
            raise NotCompleted(self)
        return self.result or {}


_NAMES = [each.name for each in fields(TaskInfo) if each.name != "raw"]
