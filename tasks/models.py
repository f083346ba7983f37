"""Tasks, their completions, and how many tasks are in each state.

The transitions on `Task` are pure: they check, change fields in memory, and raise `QueueError` for
an invalid one. Only the Writer writes rows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models

from agentcom.errors import Refused
from tasks.causes import group_of


class QueueError(Refused):
    """A transition that the task's state does not allow; `code` names the violated rule."""


class Priority(models.IntegerChoices):
    URGENT = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


class Status(models.TextChoices):
    QUEUED = "queued"
    ASSIGNED = "assigned"
    COMPLETED = "completed"
    DEAD_LETTER = "dead_letter", "Dead letter"


class Task(models.Model):
    # The `seq` of the task's submission. In each lane, ascending numbers are first in, first out,
    # and a task that returns to the queue gets its old position.
    number = models.BigAutoField(primary_key=True)
    task_id = models.CharField(max_length=32, unique=True)
    description = models.TextField()
    metadata = models.JSONField(default=dict)
    priority = models.SmallIntegerField(choices=Priority, default=Priority.NORMAL)
    status = models.CharField(max_length=12, choices=Status, default=Status.QUEUED)
    generation = models.IntegerField(default=0)
    retry_count = models.IntegerField(default=0)
    max_retries = models.IntegerField(default=3)
    needed_capabilities = models.JSONField(default=list)
    # the needed capabilities as one sorted key, see `needs_key`
    needs = models.CharField(max_length=2048, default="", blank=True)
    complete_by = models.DateTimeField(null=True, blank=True)
    assigned_to = models.CharField(max_length=128, null=True, blank=True)
    assigned_at = models.DateTimeField(null=True, blank=True)
    accepted_at = models.DateTimeField(null=True, blank=True)
    blocked_at = models.DateTimeField(null=True, blank=True)
    last_alive_at = models.DateTimeField(null=True, blank=True)
    # fingerprint of the last progress with content, to detect repetitions
    last_said = models.CharField(max_length=16, null=True, blank=True)
    last_error = models.TextField(null=True, blank=True)
    died_at = models.DateTimeField(null=True, blank=True)
    # of a dead letter: the key of the group with the same cause, see `tasks.causes`
    cause = models.CharField(max_length=16, null=True, blank=True)
    result = models.JSONField(null=True, blank=True)
    tokens_used = models.BigIntegerField(null=True, blank=True)
    submitted_by = models.CharField(max_length=128, blank=True, default="")
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    key_field = "task_id"

    class Meta:
        ordering = ["-number"]
        indexes = [
            # read by the claim: the head of each (lane, needs). Without the status, because
            # PostgreSQL ignores an indexed status that the condition already fixes.
            models.Index(
                fields=["priority", "needs", "number"],
                name="task_queue",
                condition=models.Q(status="queued"),
            ),
            # read by the snapshot and the API: newest dead letters first. Only they have
            # `died_at`; a condition on the status would need queries with the status as a literal.
            models.Index(
                fields=["-died_at", "number"],
                name="task_dead",
                condition=models.Q(died_at__isnull=False),
            ),
            # read by the dashboard: how many tasks and which agents each cause has, and the tasks
            # of one cause, newest first
            models.Index(
                fields=["cause", "assigned_to", "died_at"],
                name="task_cause",
                condition=models.Q(died_at__isnull=False),
            ),
            models.Index(
                fields=["cause", "-died_at", "number"],
                name="task_dead_of",
                condition=models.Q(died_at__isnull=False),
            ),
            # read by GET /api/tasks and the admin's filters, page by page; the worker uses the
            # first one to find the assigned tasks
            models.Index(fields=["status", "number"], name="task_status"),
            models.Index(fields=["priority", "number"], name="task_priority"),
            models.Index(fields=["status", "priority", "number"], name="task_lane"),
            # read by GET /api/tasks and the admin's search for an agent, as one range for each
            # status and lane, see `listing.newest`
            models.Index(
                fields=["assigned_to", "status", "priority", "number"], name="task_holder"
            ),
            # read by the admin's date hierarchy
            models.Index(fields=["created_at"], name="task_created"),
        ]

    def __str__(self) -> str:
        return self.task_id

    def accept(self, agent_id: str, generation: int | None, now: datetime) -> bool:
        """Returns whether it changed anything: a repeated accept does not."""
        self._check_held(agent_id, generation)
        self.last_alive_at = now
        if self.accepted_at is not None:
            return False
        self.accepted_at = self.updated_at = now
        return True

    def show_life(self, agent_id: str, generation: int | None, now: datetime) -> None:
        self._check_held(agent_id, generation)
        self.last_alive_at = now

    def make_progress(
        self, agent_id: str, generation: int | None, fingerprint: str | None, now: datetime
    ) -> None:
        """A repeated progress is no sign of life: a hung agent may send the same one forever."""
        self._check_held(agent_id, generation)
        if fingerprint is None:
            self.last_alive_at = now
        elif fingerprint != self.last_said:
            self.last_said, self.last_alive_at = fingerprint, now

    def block(self, agent_id: str, generation: int | None, now: datetime) -> bool:
        """Returns whether it changed anything."""
        self._check_held(agent_id, generation)
        self.last_alive_at = now
        if self.blocked_at is not None:
            return False
        self.blocked_at = self.updated_at = now
        return True

    def unblock(self, agent_id: str, generation: int | None, now: datetime) -> bool:
        """Returns whether it changed anything."""
        self._check_held(agent_id, generation)
        self.last_alive_at = now
        if self.blocked_at is None:
            return False
        self.blocked_at = None
        self.updated_at = now
        return True

    def assign(self, agent_id: str, now: datetime) -> None:
        if self.status != Status.QUEUED:
            raise QueueError("invalid_state")
        self.status = Status.ASSIGNED
        self.generation += 1
        self.assigned_to = agent_id
        self.assigned_at = self.last_alive_at = self.updated_at = now
        self.last_said = None

    def is_done_by(self, agent_id: str, generation: int) -> bool:
        """Whether exactly this completion is already recorded: then only its ack was lost."""
        return (
            self.status == Status.COMPLETED
            and self.assigned_to == agent_id
            and self.generation == generation
        )

    def complete(
        self,
        agent_id: str,
        generation: int,
        result: dict[str, Any],
        tokens_used: int | None,
        now: datetime,
    ) -> int:
        """Returns the time from assignment to completion in ms."""
        self._check_held(agent_id, generation)
        assert self.assigned_at is not None
        self.status = Status.COMPLETED
        self.result = result
        self.tokens_used = tokens_used
        self.blocked_at = None
        self.updated_at = now
        return max(0, round((now - self.assigned_at).total_seconds() * 1000))

    def fail(self, agent_id: str, generation: int, error: str, now: datetime) -> bool:
        """Spend an attempt. Returns whether the task is queued again, else it is a dead letter."""
        self._check_held(agent_id, generation)
        self.retry_count += 1
        self.last_error = error
        if self.retry_count < self.max_retries:
            self._queue_again(now)
            return True
        self.status = Status.DEAD_LETTER
        self.blocked_at = None
        self.died_at = self.updated_at = now
        self.cause = group_of(error)
        return False

    def give_back(self, agent_id: str, generation: int | None, now: datetime) -> None:
        """Return the task to its position in its lane without spending an attempt."""
        self._check_held(agent_id, generation)
        self._queue_again(now)

    def retry(self, now: datetime) -> None:
        """Queue a dead letter again by hand, with a fresh retry budget."""
        if self.status != Status.DEAD_LETTER:
            raise QueueError("not_found")
        self.retry_count = 0
        self.died_at = self.cause = None
        self._queue_again(now)

    def _check_held(self, agent_id: str, generation: int | None) -> None:
        """Fencing. Messages without a generation are checked by owner and state only."""
        if generation is not None and generation != self.generation:
            raise QueueError("stale_generation")
        if self.status != Status.ASSIGNED:
            raise QueueError("invalid_state")
        if self.assigned_to != agent_id:
            raise QueueError("not_yours")

    def _queue_again(self, now: datetime) -> None:
        self.status = Status.QUEUED
        self.generation += 1
        self.assigned_to = self.assigned_at = self.accepted_at = None
        self.blocked_at = self.last_alive_at = None
        self.updated_at = now


class Completion(models.Model):
    """A completed task, kept for the configured retention."""

    # the `seq` of the task's completion
    seq = models.BigAutoField(primary_key=True)
    task_id = models.CharField(max_length=32, unique=True)
    agent_id = models.CharField(max_length=128)
    description = models.TextField()
    duration_ms = models.BigIntegerField()
    tokens_used = models.BigIntegerField(default=0)
    completed_at = models.DateTimeField()

    class Meta:
        ordering = ["-seq"]
        indexes = [
            # read by the admin's date hierarchy and by pruning
            models.Index(fields=["completed_at"], name="completion_at"),
            # read by the admin's filter
            models.Index(fields=["agent_id", "seq"], name="completion_agent"),
        ]

    def __str__(self) -> str:
        return f"{self.task_id} by {self.agent_id}"


class Tally(models.Model):
    """How many tasks are in each state, updated with every transition so that no rows are counted.

    Queued tasks are counted by lane and needs, which also shows the claim which needs are waiting.
    The other states have one row for each lane, with empty needs.
    """

    status = models.CharField(max_length=12, choices=Status)
    priority = models.SmallIntegerField(choices=Priority)
    needs = models.CharField(max_length=2048, default="", blank=True)
    # the need by which a claim finds the row, see `filed_under`; derived from `needs`
    filed_under = models.CharField(max_length=128, default="", blank=True)
    count = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            # read by every claim: the tasks that wait for idle agents
            models.UniqueConstraint(
                fields=["status", "filed_under", "priority", "needs"], name="tally_place"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.count} {self.status}"


class Submission(models.Model):
    """The first answer to an Idempotency-Key, for 24 hours."""

    # the token's hash and the client's key
    key = models.CharField(primary_key=True, max_length=200)
    task_ids = models.JSONField()
    created_at = models.DateTimeField(db_index=True)  # read by pruning

    key_field = "key"

    def __str__(self) -> str:
        return self.key
