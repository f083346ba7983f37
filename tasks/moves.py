"""What each kind of event does to a task and to its agent.

Derived from this table: the tally and the lanes' counters, which agents are free and which tasks
are queued, the agents' states, what the dashboards show, and the words for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentcom.kinds import Kind
from tasks.models import Status


@dataclass(frozen=True, slots=True)
class By:
    """The status that a task came from, where a field of the entry determines it."""

    field: str
    statuses: Mapping[Any, Status]


@dataclass(frozen=True, kw_only=True, slots=True)
class Move(Kind):
    """An event of a task. Without `to` its status does not change."""

    came_from: Status | By | None = None  # None: the task is new
    to: Status | None = None
    # the agent's state afterwards, a value of `fleet.models.AgentState`; "idle" frees the agent
    agent: str | None = None
    by_agent: bool = False  # sent by the agent, and so a sign of life
    counts: Literal["completed", "failed"] | None = None  # which counter it increments

    @property
    def queues(self) -> bool:
        return self.to == Status.QUEUED

    @property
    def takes(self) -> bool:
        """Whether it takes the task out of the queue."""
        return self.to is not None and self.came_from == Status.QUEUED

    @property
    def frees(self) -> bool:
        """Whether it frees the agent for its next task."""
        return self.agent == "idle"

    def start(self, data: Mapping[str, Any]) -> Status | None:
        """The task's status before an entry with this data."""
        if isinstance(self.came_from, By):
            return self.came_from.statuses[data[self.came_from.field]]
        return self.came_from


# In the order of a task's life cycle.
MOVES: dict[str, Move] = {
    "task_submitted": Move(
        step="Submitted",
        was="was submitted",
        shows=("title",),
        keeps=("priority",),
        to=Status.QUEUED,
    ),
    "task_assigned": Move(
        step="Assigned",
        did="got",
        shows=("title",),
        keeps=("generation",),
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
        shows=("by_hand",),
        came_from=By("by_hand", {False: Status.ASSIGNED, True: Status.DEAD_LETTER}),
        to=Status.QUEUED,
    ),
    "task_rejected": Move(
        step="Refused",
        did="refused",
        tone="warning",
        shows=("reason",),
        came_from=Status.ASSIGNED,
        to=Status.QUEUED,
        agent="idle",
        by_agent=True,
    ),
    "task_reclaimed": Move(
        step="Taken back",
        was="was taken back",
        tone="warning",
        shows=("reason",),
        came_from=Status.ASSIGNED,
        to=Status.QUEUED,
        agent="idle",
    ),
    "task_dead_letter": Move(
        step="Dead letter",
        was="went to the dead letter",
        tone="critical",
        shows=("error",),
        came_from=Status.ASSIGNED,
        to=Status.DEAD_LETTER,
    ),
}
