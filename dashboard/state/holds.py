"""The holds in force."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from agentcom.database import millis
from agentcom.models import Event
from agentcom.redaction import masked_text
from dashboard.state.part import Part
from fleet.holds import all_holds


def masked_hold(hold: dict[str, Any]) -> dict[str, Any]:
    reason = hold.get("reason")
    return {**hold, "reason": masked_text(reason)} if reason else hold


class Holds(Part):
    kinds = frozenset({"hold_placed", "hold_lifted"})

    def __init__(self) -> None:
        super().__init__()
        self._holds: dict[str, dict[str, Any]] = {}  # by id

    @classmethod
    def read(cls, now: datetime) -> Self:
        part = cls()
        part._holds = {hold["id"]: masked_hold(hold) for hold in all_holds(now)}
        return part

    def apply(self, event: Event) -> None:
        hold = masked_hold(event.data["hold"])
        if event.kind == "hold_placed":
            self._holds[hold["id"]] = hold
        else:
            self._holds.pop(hold["id"], None)

    def section(self, now: datetime) -> list[dict[str, Any]]:
        """The newest first. One whose time is over is no longer shown, although it exists until
        the worker ends it."""
        moment = millis(now)
        held = (h for h in self._holds.values() if h["until"] is None or h["until"] > moment)
        return sorted(held, key=lambda hold: (-hold["placed_at"], hold["id"]))
