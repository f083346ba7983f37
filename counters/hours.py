"""What each agent has done in each clock hour, updated with the events."""

from __future__ import annotations

from datetime import datetime

from agentcom.models import Event
from agentcom.work import Work
from counters.models import AgentHour
from tasks.moves import MOVES

COUNTERS = {kind: move.counts for kind, move in MOVES.items() if move.counts}


def project_agent_hour(work: Work, event: Event) -> None:
    counter = COUNTERS.get(event.kind)
    if counter is not None and event.agent_id is not None:
        place = {"start": hour_of(event.at), "agent_id": event.agent_id}
        work.increment(AgentHour, place, **{counter: 1})


def this_hour(now: datetime) -> dict[str, tuple[int, int]]:
    """Completed tasks and failed attempts of the current hour, by agent."""
    rows = AgentHour.objects.filter(start=hour_of(now)).order_by()
    return {
        agent_id: (completed, failed)
        for agent_id, completed, failed in rows.values_list("agent_id", "completed", "failed")
    }


def this_hour_of(agent_id: str, now: datetime) -> tuple[int, int]:
    """Completed tasks and failed attempts of one agent in the current hour."""
    rows = AgentHour.objects.filter(start=hour_of(now), agent_id=agent_id)
    return rows.values_list("completed", "failed").first() or (0, 0)


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
