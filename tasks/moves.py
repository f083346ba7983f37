"""What each kind of event does to a task and to its agent.

Derived from this table: the tally and the lanes' counters, which agents are free and which tasks
are queued, the agents' states, what the dashboards show, and the words for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from agentcom.kinds import Kind
from tasks.models import Status


class InEntry(Enum):
    """Said by each entry itself, in the field `was`, `status` or `agent`."""

    IN_ENTRY = ""


IN_ENTRY = InEntry.IN_ENTRY


@dataclass(frozen=True, kw_only=True, slots=True)
class Move(Kind):
    """An event of a task. Without `to` its status does not change."""

    came_from: Status | InEntry | None = None  # None: the task is new
    to: Status | InEntry | None = None
    # the agent's state afterwards, a value of `fleet.models.AgentState`; "idle" frees the agent
    agent: str | InEntry | None = None
    by_agent: bool = False  # sent by the agent, and so a sign of life
    counts: Literal["completed", "failed"] | None = None  # which counter it increments

    def start(self, data: Mapping[str, Any]) -> str | None:
        """The task's status before an entry with this data."""
        return data["was"] if self.came_from is IN_ENTRY else self.came_from

    def end(self, data: Mapping[str, Any]) -> str | None:
        """The task's status after an entry with this data; None if it does not change."""
        return data["status"] if self.to is IN_ENTRY else self.to

    def agent_after(self, data: Mapping[str, Any]) -> str | None:
        """The agent's state after an entry with this data; None if it does not change."""
        return (data["agent"] or None) if self.agent is IN_ENTRY else self.agent

    def queues(self, data: Mapping[str, Any]) -> bool:
        """Whether an agent may get the task from now on that could not get it before."""
        return self.end(data) == Status.QUEUED

    def frees(self, data: Mapping[str, Any]) -> bool:
        """Whether it frees the agent for its next task."""
        return self.agent_after(data) == "idle"


# In the order of a task's life cycle.
MOVES: dict[str, Move] = {
    "task_submitted": Move(
        step="Submitted",
        was="was submitted",
        shows=("title", "until"),
        keeps=("priority", "status"),
        to=IN_ENTRY,
    ),
    # a scheduled task whose time has come
    "task_due": Move(
        step="Due",
        was="is due",
        keeps=("until",),
        hides=("priority",),
        came_from=Status.SCHEDULED,
        to=Status.QUEUED,
    ),
    "task_assigned": Move(
        step="Assigned",
        did="got",
        shows=("title",),
        keeps=("generation",),
        hides=("priority",),
        came_from=Status.QUEUED,
        to=Status.ASSIGNED,
        agent="assigned",
    ),
    "task_accepted": Move(
        step="Started",
        did="started",
        keeps=("generation",),
        agent="working",
        by_agent=True,
    ),
    "task_progress": Move(
        step="Progress",
        did="is working on",
        shows=("progress", "message"),
        by_agent=True,
    ),
    "task_blocked": Move(
        step="Blocked",
        did="waits for a person with",
        tone="warning",
        shows=("reason",),
        agent="blocked",
        by_agent=True,
    ),
    "task_unblocked": Move(
        step="Unblocked",
        did="resumed",
        agent="working",
        by_agent=True,
    ),
    "task_complete": Move(
        step="Completed",
        did="completed",
        tone="ok",
        shows=("duration_ms", "tokens_used"),
        keeps=("generation",),
        hides=("priority",),
        came_from=Status.ASSIGNED,
        to=Status.COMPLETED,
        agent="idle",
        by_agent=True,
        counts="completed",
    ),
    # ends the attempt; the next entry, task_retried or task_dead_letter, changes the task's status
    "task_failed": Move(
        step="Failed",
        did="failed at",
        tone="critical",
        shows=("error",),
        keeps=("generation",),
        agent="idle",
        by_agent=True,
        counts="failed",
    ),
    "task_retried": Move(
        step="Back in the queue",
        was="went back to the queue",
        shows=("by_hand", "until"),
        keeps=("was", "status"),
        hides=("priority",),
        came_from=IN_ENTRY,
        to=IN_ENTRY,
    ),
    "task_rejected": Move(
        step="Refused",
        did="refused",
        tone="warning",
        shows=("reason",),
        keeps=("status", "until"),
        hides=("priority",),
        came_from=Status.ASSIGNED,
        to=IN_ENTRY,
        agent="idle",
        by_agent=True,
    ),
    # the agents that rejected it may have it again
    "task_reoffered": Move(
        step="Offered again",
        was="is offered again to agents that refused it",
        keeps=("old_needs", "until"),
        hides=("priority",),
        came_from=Status.QUEUED,
        to=Status.QUEUED,
    ),
    "task_reclaimed": Move(
        step="Taken back",
        was="was taken back",
        tone="warning",
        shows=("reason",),
        keeps=("why", "status", "agent", "generation"),
        hides=("priority",),
        came_from=Status.ASSIGNED,
        to=IN_ENTRY,
        agent=IN_ENTRY,
    ),
    "task_dead_letter": Move(
        step="Dead letter",
        was="went to the dead letter",
        tone="critical",
        shows=("error",),
        keeps=("was",),
        hides=("priority", "retry_count", "assigned_to"),
        came_from=IN_ENTRY,
        to=Status.DEAD_LETTER,
    ),
    "task_reprioritized": Move(
        step="Priority changed",
        was="got another priority",
        shows=("priority",),
        keeps=("old_priority", "was", "status"),
        came_from=IN_ENTRY,
        to=IN_ENTRY,
    ),
    "task_cancel_requested": Move(
        step="To be cancelled",
        was="is to be cancelled",
        tone="warning",
        shows=("reason", "deadline"),
        keeps=("generation",),
    ),
    "task_cancelled": Move(
        step="Cancelled",
        was="was cancelled",
        tone="warning",
        shows=("reason", "message"),
        keeps=("was", "agent", "generation", "tokens_used"),
        hides=("priority",),
        came_from=IN_ENTRY,
        to=Status.CANCELLED,
        agent=IN_ENTRY,
    ),
    # what an agent said about a task that it no longer holds, and for which the hub waited
    "task_late": Move(
        step="Too late",
        did="said too late of",
        tone="warning",
        shows=("message",),
        keeps=("said", "generation", "tokens_used"),
        agent="idle",
        by_agent=True,
    ),
}
