"""Repairs times in the future, which were written before the clock was set back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Model, Q

from agentcom import actors
from agentcom.models import Node
from agentcom.work import Wanted, Work
from fleet.models import Agent, AgentState
from tasks.models import Status, Task
from webhooks.deliveries import reset_late

# Times from which limits are measured. Others (a task's creation, the journal) stay as they are.
COUNTED: tuple[tuple[type[Model], dict[str, Any], tuple[str, ...]], ...] = (
    (Task, {"status": Status.ASSIGNED}, ("assigned_at", "accepted_at", "last_alive_at")),
    (Agent, {"fsm_state": AgentState.OFFLINE}, ("disconnected_at",)),
    (Agent, {}, ("recovering_since",)),
    (Node, {}, ("heartbeat_at",)),
)


@dataclass(frozen=True, slots=True)
class ResetFutureTimes:
    """Set times in the future to now; otherwise no limit would run until the clock reaches them.

    Inside a commit, a time from an earlier commit is in the future only if the clock was set back.
    Gives how many rows had one.
    """

    actor = actors.WORKER

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> int:
        work.flush()  # so that the queries see the earlier commands of this group
        ahead = sum(_reset(work, *counted) for counted in COUNTED) + reset_late(work)
        if ahead:
            work.emit("times_reset", rows=ahead)
        return ahead


def _reset(work: Work, model: type[Model], among: dict[str, Any], names: tuple[str, ...]) -> int:
    is_ahead = Q(*((f"{name}__gt", work.now) for name in names), _connector=Q.OR)
    ahead = [work.track(row) for row in model._default_manager.filter(is_ahead, **among)]
    for row in ahead:
        for name in names:
            setattr(row, name, _not_after(getattr(row, name), work.now))
    return len(ahead)


def _not_after(moment: datetime | None, now: datetime) -> datetime | None:
    return moment if moment is None else min(moment, now)
