"""Tasks, their completions, and how many tasks are in each state.

The transitions on `Task` are pure: they check, change fields in memory, and raise `QueueError` for
an invalid one. Only the Writer writes rows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models

from agentcom.database import from_millis, millis
from agentcom.errors import Refused
from tasks.causes import group_of
from tasks.needs import needs_key


class QueueError(Refused):
    """A transition that the task's state does not allow; `code` names the violated rule."""


class Priority(models.IntegerChoices):
    URGENT = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


class Status(models.TextChoices):
    QUEUED = "queued"
    # it may not start yet; queued when its time has come
    SCHEDULED = "scheduled"
    ASSIGNED = "assigned"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DEAD_LETTER = "dead_letter", "Dead letter"


class OnOverdue(models.TextChoices):
    """What becomes of a task that is not running when its `complete_by` passes."""

    EXPIRE = "expire", "Dead letter"
    RUN = "run", "Run all the same"


MAX_REFUSERS = 20  # agents that are kept from a task because they rejected it


WAITING = (Status.QUEUED, Status.SCHEDULED)


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
    # the one agent that may have it
    assign_to = models.CharField(max_length=128, null=True, blank=True)
    # which agents may have it, as one key, see `tasks.needs`
    needs = models.CharField(max_length=2304, default="", blank=True)
    # it never starts before: as submitted, or until the next attempt
    not_before = models.DateTimeField(null=True, blank=True)
    complete_by = models.DateTimeField(null=True, blank=True)
    on_overdue = models.CharField(max_length=8, choices=OnOverdue, default=OnOverdue.EXPIRE)
    # in s; None: the hub's settings
    retry_backoff_s = models.FloatField(null=True, blank=True)
    idle_timeout_s = models.FloatField(null=True, blank=True)
    run_timeout_s = models.FloatField(null=True, blank=True)
    # the agents that disconnected or fell silent with it, since it was submitted or retried by hand
    lost_agents = models.JSONField(null=True, blank=True)
    max_reclaims = models.IntegerField(default=5)
    rejection_count = models.IntegerField(default=0)
    max_rejections = models.IntegerField(default=20)
    # until when (ms) it is not offered again to agents that rejected it, by agent id
    refusers = models.JSONField(null=True, blank=True)
    cancel_reason = models.TextField(null=True, blank=True)
    # while its agent is asked to stop: when it is cancelled without an answer
    cancel_deadline = models.DateTimeField(null=True, blank=True)
    # when the hub changes it without being asked, see `ActWhenDue`
    due_at = models.DateTimeField(null=True, blank=True)
    assigned_to = models.CharField(max_length=128, null=True, blank=True)
    assigned_at = models.DateTimeField(null=True, blank=True)
    accepted_at = models.DateTimeField(null=True, blank=True)
    blocked_at = models.DateTimeField(null=True, blank=True)
    last_alive_at = models.DateTimeField(null=True, blank=True)
    # fingerprint of the last progress with content, to detect repetitions
    last_said = models.CharField(max_length=16, null=True, blank=True)
    last_error = models.TextField(null=True, blank=True)
    died_at = models.DateTimeField(null=True, blank=True)
    # when it was completed or cancelled
    ended_at = models.DateTimeField(null=True, blank=True)
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
            # read by the worker, which drops the tasks that ended first
            models.Index(
                fields=["ended_at"],
                name="task_ended",
                condition=models.Q(ended_at__isnull=False),
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
            # read by GET /api/tasks and GET /api/tasks/dead-letter with a token that sees its own
            models.Index(fields=["submitted_by", "number"], name="task_submitter"),
            models.Index(
                fields=["submitted_by", "-died_at", "number"],
                name="task_dead_own",
                condition=models.Q(died_at__isnull=False),
            ),
            # read by the admin's date hierarchy
            models.Index(fields=["created_at"], name="task_created"),
            # read by each claim: whether any task waits for a particular agent
            models.Index(
                fields=["assign_to"],
                name="task_for_one",
                condition=models.Q(status="queued", assign_to__isnull=False),
            ),
            # read by the timer: what is due next
            models.Index(
                fields=["due_at"], name="task_due", condition=models.Q(due_at__isnull=False)
            ),
            # read by the worker: tasks that have a deadline and have not ended
            models.Index(
                fields=["complete_by"],
                name="task_overdue",
                condition=models.Q(complete_by__isnull=False, died_at=None, ended_at=None),
            ),
        ]

    def __str__(self) -> str:
        return self.task_id

    @property
    def reclaim_count(self) -> int:
        """How many agents were lost with it."""
        return len(self.lost_agents or ())

    @property
    def in_use(self) -> bool:
        """Whether its next change will come soon: the Writer keeps it in memory."""
        return self.status == Status.ASSIGNED

    @property
    def is_cancelling(self) -> bool:
        return self.cancel_deadline is not None

    def submit(self, now: datetime) -> None:
        self.created_at = self.updated_at = now
        self._wait(now)

    def accept(self, agent_id: str, generation: int | None, now: datetime) -> bool:
        """Returns whether it changed anything: a repeated accept does not."""
        self.check_held(agent_id, generation)
        self.last_alive_at = now
        if self.accepted_at is not None:
            return False
        self.accepted_at = self.updated_at = now
        return True

    def show_life(self, agent_id: str, generation: int | None, now: datetime) -> None:
        self.check_held(agent_id, generation)
        self.last_alive_at = now

    def make_progress(
        self, agent_id: str, generation: int | None, fingerprint: str | None, now: datetime
    ) -> None:
        """A repeated progress is no sign of life: a hung agent may send the same one forever."""
        self.check_held(agent_id, generation)
        if fingerprint is None:
            self.last_alive_at = now
        elif fingerprint != self.last_said:
            self.last_said, self.last_alive_at = fingerprint, now

    def block(self, agent_id: str, generation: int | None, now: datetime) -> bool:
        """Returns whether it changed anything."""
        self.check_held(agent_id, generation)
        self.last_alive_at = now
        if self.blocked_at is not None:
            return False
        self.blocked_at = self.updated_at = now
        return True

    def unblock(self, agent_id: str, generation: int | None, now: datetime) -> bool:
        """Returns whether it changed anything."""
        self.check_held(agent_id, generation)
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
        self.last_said = self.due_at = None

    def is_ended_by(self, status: Status, agent_id: str, generation: int) -> bool:
        """Whether exactly this end is already recorded: then only its ack was lost."""
        return (
            self.status == status and self.assigned_to == agent_id and self.generation == generation
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
        self.check_held(agent_id, generation)
        assert self.assigned_at is not None
        self._end(Status.COMPLETED, now)
        self.cancel_reason = None  # it was done before its agent stopped
        self.result = result
        self.tokens_used = tokens_used
        return max(0, round((now - self.assigned_at).total_seconds() * 1000))

    def fail(
        self,
        agent_id: str,
        generation: int,
        error: str,
        retry_at: datetime | None,
        now: datetime,
    ) -> bool:
        """Spend an attempt. Returns whether there is another one, at `retry_at` (None: there is
        none, whatever the budget), else it is a dead letter."""
        self.check_held(agent_id, generation)
        self.retry_count += 1
        self.last_error = error
        if retry_at is not None and self.retry_count < self.max_retries:
            self._queue_again(now, retry_at)
            return True
        self.die(error, now)
        return False

    def give_back(self, agent_id: str, generation: int | None, now: datetime) -> None:
        """Return the task to its position in its lane without spending an attempt."""
        self.check_held(agent_id, generation)
        self._queue_again(now)

    def reject(
        self, agent_id: str, generation: int | None, pause_until: datetime, now: datetime
    ) -> bool:
        """Returns whether it is queued again, but not for this agent until `pause_until`; else it
        was rejected too often."""
        self.check_held(agent_id, generation)
        self.rejection_count += 1
        kept = self._refusers_after(now)
        kept.pop(agent_id, None)
        if pause_until > now:
            kept[agent_id] = millis(pause_until)
        self.refusers = dict(list(kept.items())[-MAX_REFUSERS:]) or None
        self._queue_again(now)
        return self.rejection_count < self.max_rejections

    def lose_agent(self, agent_id: str, generation: int | None, now: datetime) -> bool:
        """It is taken back from an agent that disconnected or fell silent. Returns whether it may
        have another one."""
        self.check_held(agent_id, generation)
        self.lost_agents = [*(self.lost_agents or ()), agent_id]
        self._queue_again(now)
        return self.reclaim_count < self.max_reclaims

    def die(self, error: str, now: datetime) -> None:
        """It becomes a dead letter."""
        self.status = Status.DEAD_LETTER
        self.last_error = error
        self.blocked_at = self.due_at = self.cancel_deadline = None
        self.died_at = self.updated_at = now
        self.cause = group_of(error)

    def expire(self, error: str, now: datetime) -> None:
        """Its `complete_by` has passed while it waited."""
        if self.status not in WAITING or self.on_overdue != OnOverdue.EXPIRE:
            raise QueueError("invalid_state")
        if self.complete_by is None or self.complete_by > now:
            raise QueueError("invalid_state")
        self.die(error, now)

    def retry(self, now: datetime) -> None:
        """Queue a dead letter or a cancelled task again by hand, with fresh budgets."""
        if self.status not in (Status.DEAD_LETTER, Status.CANCELLED):
            raise QueueError("not_found")
        # a backoff is nothing that whoever retries it waits for
        starts = None if self.retry_count else self.not_before
        self.retry_count = self.rejection_count = 0
        self.lost_agents = self.refusers = self.cancel_reason = None
        self.died_at = self.cause = self.ended_at = None
        if self.complete_by is not None and self.complete_by <= now:
            self.on_overdue = OnOverdue.RUN  # whoever retries it knows that it is late
        self._queue_again(now, starts)

    def set_priority(self, priority: int, now: datetime) -> bool:
        """Returns whether it changed anything."""
        if self.status not in (*WAITING, Status.DEAD_LETTER):
            raise QueueError("too_late")
        if self.priority == priority:
            return False
        self.priority, self.updated_at = priority, now
        return True

    # --- Cancelling

    def ask_to_cancel(self, deadline: datetime, reason: str, now: datetime) -> bool:
        """Of an assigned task. Returns whether it changed anything: a repeated request can only
        bring the deadline forward."""
        if self.status != Status.ASSIGNED:
            raise QueueError("too_late")
        if self.cancel_deadline is not None and self.cancel_deadline <= deadline:
            return False
        self.cancel_deadline = self.due_at = deadline
        self.cancel_reason = self.cancel_reason or reason
        self.updated_at = now
        return True

    def cancel(self, reason: str, now: datetime) -> None:
        """End it without its agent: from now on, whatever the agent says comes too late."""
        if self.status not in (*WAITING, Status.ASSIGNED, Status.DEAD_LETTER):
            raise QueueError("too_late")
        self.cancel_reason = self.cancel_reason or reason
        self.generation += 1
        self._end(Status.CANCELLED, now)

    def confirm_cancel(
        self,
        agent_id: str,
        generation: int | None,
        result: dict[str, Any] | None,
        tokens_used: int | None,
        now: datetime,
    ) -> None:
        """The agent has stopped, as it was asked to."""
        self.check_held(agent_id, generation)
        if not self.is_cancelling:
            raise QueueError("invalid_state")
        self._end(Status.CANCELLED, now)
        self.result, self.tokens_used = result, tokens_used

    # --- What time alone does

    def start_waiting(self, now: datetime) -> None:
        """A scheduled task whose time has come is queued."""
        if self.status != Status.SCHEDULED or (self.not_before and self.not_before > now):
            raise QueueError("invalid_state")
        self.updated_at = now
        self._wait(now)

    def offer_again(self, now: datetime) -> None:
        """Some agents that rejected it may have it again."""
        self._wait(now)

    def end_waits(self) -> None:
        """It may start at once, and go to agents that rejected it."""
        self.not_before = self.refusers = None

    def _refusers_after(self, now: datetime) -> dict[str, int]:
        return {id_: until for id_, until in (self.refusers or {}).items() if until > millis(now)}

    def check_held(self, agent_id: str, generation: int | None) -> None:
        """Fencing. Messages without a generation are checked by owner and state only."""
        if generation is not None and generation != self.generation:
            raise QueueError("stale_generation")
        if self.status != Status.ASSIGNED:
            raise QueueError("invalid_state")
        if self.assigned_to != agent_id:
            raise QueueError("not_yours")

    def _queue_again(self, now: datetime, not_before: datetime | None = None) -> None:
        """The time of what an agent had has come, even if the clock is set back after that."""
        self.generation += 1
        self.not_before = not_before
        self.assigned_to = self.assigned_at = self.accepted_at = None
        self.blocked_at = self.last_alive_at = self.cancel_deadline = None
        self.updated_at = now
        self._wait(now)

    def _wait(self, now: datetime) -> None:
        """It waits for its time, or for an agent."""
        self.refusers = self._refusers_after(now) or None
        self.needs = needs_key(self.needed_capabilities, self.assign_to, self.refusers or ())
        if self.not_before is not None and self.not_before > now:
            self.status, self.due_at = Status.SCHEDULED, self.not_before
        else:
            ends = (self.refusers or {}).values()
            self.status, self.due_at = Status.QUEUED, from_millis(min(ends)) if ends else None

    def _end(self, status: Status, now: datetime) -> None:
        self.status = status
        self.blocked_at = self.due_at = self.cancel_deadline = None
        self.died_at = self.cause = None
        self.ended_at = self.updated_at = now


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
            # read by an agent's page, and by the admin's filter
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
    needs = models.CharField(max_length=2304, default="", blank=True)
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
