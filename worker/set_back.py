"""Times that lie in the future: they were written before the clock was set back."""

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

# What limits are counted from. Others (when a task was made, what the journal says) stay.
COUNTED: tuple[tuple[type[Model], dict[str, Any], tuple[str, ...]], ...] = (
    (Task, {"status": Status.ASSIGNED}, ("assigned_at", "last_alive_at")),
    (Agent, {"fsm_state": AgentState.OFFLINE}, ("disconnected_at",)),
    (Agent, {}, ("recovering_since",)),
    (Node, {}, ("heartbeat_at",)),
)


@dataclass(frozen=True, slots=True)
class CountFromNow:
    """From now on they count as this moment, else they would not age until the clock is there.

    Inside a commit no time of an earlier one is ahead unless the clock was set back. Gives how
    many rows there were.
    """

    actor = actors.WORKER

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> int:
        work.flush()  # so that the queries see what this group has done so far
        return sum(_count_from_now(work, *counted) for counted in COUNTED)


def _count_from_now(
    work: Work, model: type[Model], among: dict[str, Any], names: tuple[str, ...]
) -> int:
    is_ahead = Q(*((f"{name}__gt", work.now) for name in names), _connector=Q.OR)
    ahead = [work.track(row) for row in model._default_manager.filter(is_ahead, **among)]
    for row in ahead:
        for name in names:
            setattr(row, name, _not_after(getattr(row, name), work.now))
    return len(ahead)


def _not_after(moment: datetime | None, now: datetime) -> datetime | None:
    return moment if moment is None else min(moment, now)
