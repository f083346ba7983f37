"""All about one agent, for its page: its state in words, what it does, did and failed at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db.models.functions import Left

from agentcom import actors
from agentcom.database import consistent_read, millis, now
from agentcom.kinds import kinds
from agentcom.models import Event
from agentcom.redaction import masked_text
from counters.hours import this_hour_of
from dashboard.state.holds import masked_hold
from dashboard.texts import READ_MAX, short
from dashboard.titles import titles_of
from fleet.holds import all_holds
from fleet.models import Agent, AgentState, Scope
from tasks.models import Completion, Task

LIST_MAX = 50  # rows of each list
DURATIONS = 200  # completions of which the durations are summed up
SEARCHED = 5_000  # journal entries; without a bound, an agent that never failed would cost all

ENDED_BADLY = ("task_failed", "task_reclaimed", "task_rejected")
CONNECTIONS = ("agent_joined", "agent_left")

Row = dict[str, Any]

MEANINGS = {
    AgentState.IDLE: "It is free and gets the next task that it can do.",
    AgentState.ASSIGNED: "It got a task and has not accepted it yet.",
    AgentState.WORKING: "It accepted its task and works on it.",
    AgentState.BLOCKED: "It waits for a person before it can go on with its task.",
    AgentState.STOPPING: (
        "Its task was ended without it. It gets no other until it says that its work has ended, "
        "reconnects or signs off."
    ),
    AgentState.UNRESPONSIVE: (
        "It did not accept its last tasks in time. It gets no other until it says anything about a "
        "task or its status, or reconnects."
    ),
}


def profile_of(agent_id: str) -> dict[str, Any] | None:
    """What the agent's page shows, read at one moment; None if the hub does not know the agent.
    Times in ms."""
    with consistent_read():
        agent = Agent.objects.filter(agent_id=agent_id).first()
        return None if agent is None else _profile(agent, now())


def _profile(agent: Agent, moment: datetime) -> dict[str, Any]:
    completed, failed = this_hour_of(agent.agent_id, moment)
    holds = _holds(agent, moment)
    return {
        "agent": agent,
        "now": millis(moment),
        "state": _state(agent, holds),
        "task": _task(agent),
        "holds": holds,
        "this_hour": {"completed": completed, "failed": failed},
        "completions": _completions(agent.agent_id),
        "durations": _durations(agent.agent_id),
        **_journal(agent.agent_id),
    }


def _state(agent: Agent, holds: Sequence[Row]) -> Row:
    return {
        "since": millis(agent.last_state_change),
        "meaning": _meaning(agent, holds),
        "last_seen": millis(agent.last_seen),
        "connected_at": millis(agent.connected_at),
    }


def _meaning(agent: Agent, holds: Sequence[Row]) -> str:
    if agent.fsm_state == AgentState.IDLE and any(h["scope"] != Scope.CAPABILITY for h in holds):
        return "It is free, and gets nothing new while it is on hold."
    if agent.fsm_state != AgentState.OFFLINE:
        if agent.recovering_since is not None:
            return "It reconnected, and has yet to say whether it still works on its task."
        return MEANINGS[AgentState(agent.fsm_state)]
    if agent.signed_off:
        return "It signed off, as an agent does that is stopped on purpose."
    if agent.dropped_by_hub:
        return "Its connection ended with the hub’s process, and it has not come back yet."
    return "Its connection was lost, and it has not come back."


def _task(agent: Agent) -> Row | None:
    """The task that it holds, or that it has yet to stop."""
    if agent.current_task_id is None:
        return None
    task = Task.objects.filter(task_id=agent.current_task_id).first()
    if task is None:
        return None
    is_its = task.assigned_to == agent.agent_id and agent.fsm_state != AgentState.STOPPING
    return {
        "id": task.task_id,
        "title": short(task.description).strip(),
        "since": millis(task.accepted_at or task.assigned_at) if is_its else None,
        "is_accepted": task.accepted_at is not None,
        "cancelled_at": millis(task.cancel_deadline) if is_its else None,
        "cancel_reason": masked_text(task.cancel_reason or ""),
    }


def _holds(agent: Agent, moment: datetime) -> list[Row]:
    """Those that keep tasks from it: its own, the hub's and those on what it can do."""
    return [
        {**masked_hold(hold), "what": _held(hold), "by": actors.in_words(hold["placed_by"])}
        for hold in all_holds(moment)
        if hold["scope"] == Scope.HUB
        or (hold["scope"] == Scope.AGENT and hold["subject"] == agent.agent_id)
        or (hold["scope"] == Scope.CAPABILITY and hold["subject"] in agent.capabilities)
    ]


def _held(hold: Row) -> str:
    match hold["scope"]:
        case Scope.HUB:
            return "The hub"
        case Scope.AGENT:
            return "This agent"
    return f"What needs {hold['subject']}"


# --- What it has done


def _completions(agent_id: str) -> list[Row]:
    """Newest first. Read by the index `completion_agent`."""
    rows = Completion.objects.filter(agent_id=agent_id).order_by("-seq")[:LIST_MAX]
    fields = ("task_id", "duration_ms", "tokens_used", "completed_at")
    return [
        {
            "task_id": task_id,
            "title": short(description).strip(),
            "duration_ms": duration_ms,
            "tokens_used": tokens_used,
            "at": millis(completed_at),
        }
        for task_id, duration_ms, tokens_used, completed_at, description in rows.values_list(
            *fields, Left("description", READ_MAX + 1)
        )
    ]


def _durations(agent_id: str) -> Row:
    """In ms, of its last completions. Read by the index `completion_agent`."""
    newest = Completion.objects.filter(agent_id=agent_id).order_by("-seq")[:DURATIONS]
    durations = sorted(newest.values_list("duration_ms", flat=True))
    return {
        "count": len(durations),
        "median": _not_exceeded_by(0.5, durations),
        "p95": _not_exceeded_by(0.95, durations),
        "longest": _not_exceeded_by(1, durations),
    }


def _not_exceeded_by(share: float, durations: Sequence[int]) -> int | None:
    return durations[math.ceil(share * len(durations)) - 1] if durations else None


def _journal(agent_id: str) -> dict[str, Any]:
    """What went wrong and when it came and went, newest first, and how far back that was searched
    (None: in all that there is)."""
    # read by the index `event_agent`
    newest = Event.objects.filter(agent_id=agent_id).order_by("-seq")
    searched = list(newest.values_list("seq", "kind")[:SEARCHED])
    bad = [seq for seq, kind in searched if kind in ENDED_BADLY][:LIST_MAX]
    connections = [seq for seq, kind in searched if kind in CONNECTIONS][:LIST_MAX]
    oldest = [searched[-1][0]] if len(searched) == SEARCHED else []
    entries = Event.objects.in_bulk([*bad, *connections, *oldest])
    titles = titles_of({entries[seq].task_id or "" for seq in bad})
    return {
        "failures": [_failure(entries[seq], titles) for seq in bad],
        "connections": [_connection(entries[seq]) for seq in connections],
        "searched": SEARCHED,
        "searched_since": millis(entries[oldest[0]].at) if oldest else None,
    }


def _failure(entry: Event, titles: dict[str, str]) -> Row:
    kind = kinds()[entry.kind]
    return {
        "task_id": entry.task_id,
        "title": titles.get(entry.task_id or "") or entry.task_id,
        "what": kind.step,
        "tone": kind.tone,
        "why": short(entry.data.get("error") or entry.data.get("reason")),
        "at": millis(entry.at),
    }


def _connection(entry: Event) -> Row:
    if entry.kind == "agent_joined":
        what, tone = "Connected", ""
    elif entry.data["signed_off"]:
        what, tone = "Signed off", ""
    else:
        what, tone = "Connection lost", "warning"
    return {"what": what, "tone": tone, "at": millis(entry.at)}
