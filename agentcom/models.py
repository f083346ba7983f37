"""What all rooms share: the journal, the running processes, and leases."""

from typing import Any

from django.db import models

from agentcom import actors


class Event(models.Model):
    """One thing that happened. Append-only: task history and source of every push.

    The Writer assigns `seq` under its lock, so the numbers have no gaps and their order is the
    order of commits. For what each kind carries in `data` see `agentcom.kinds`.
    """

    seq = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=24)
    task_id = models.CharField(max_length=32, null=True)
    agent_id = models.CharField(max_length=128, null=True)
    at = models.DateTimeField()
    data = models.JSONField(default=dict)
    # who did it, see `agentcom.actors`; null: unknown, an entry of an older version
    actor = models.CharField(max_length=actors.MAX_LENGTH, null=True)

    # What never changes of its task, for readers in memory: `tasks.facts.Facts`. Not stored.
    facts: Any = None

    class Meta:
        indexes = [
            # read by a task's history
            models.Index(
                fields=["task_id", "seq"],
                name="event_task",
                condition=models.Q(task_id__isnull=False),
            ),
            # read by an agent's page, on the dashboard and in the admin
            models.Index(
                fields=["agent_id", "seq"],
                name="event_agent",
                condition=models.Q(agent_id__isnull=False),
            ),
            # read by the admin's date hierarchy
            models.Index(fields=["at"], name="event_at"),
        ]
        ordering = ["-seq"]

    def __str__(self) -> str:
        return f"{self.seq} {self.kind}"


class Outcome(models.TextChoices):
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"  # it could not be committed; or was, after its caller had given up


class AuditEntry(models.Model):
    """What a person, an operator or the command line did, or tried to do: see `agentcom.audit`.

    Append-only: triggers refuse to change a row, and to delete one that is younger than a day. On
    SQLite they are lost when a migration copies the table, and have to be made again.
    """

    MAX_SUBJECT = 200  # characters
    MAX_TEXT = 500  # characters

    # of the command that adds it, so that a repeated commit adds it once
    key = models.CharField(max_length=16, unique=True)
    at = models.DateTimeField()
    actor = models.CharField(max_length=actors.MAX_LENGTH)
    address = models.CharField(max_length=64)
    what = models.CharField(max_length=32)  # `agentcom.audit.entries.What`
    subject = models.CharField(max_length=MAX_SUBJECT)
    reason = models.CharField(max_length=MAX_TEXT)
    outcome = models.CharField(max_length=8, choices=Outcome)
    detail = models.CharField(max_length=MAX_TEXT)
    count = models.IntegerField(default=1)  # how often, within a minute

    key_field = "key"

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "audit entries"
        indexes = [
            # read by the admin's search, and by logins: has this person logged in from there?
            models.Index(fields=["actor", "address"], name="audit_actor"),
            # read by the admin's search
            models.Index(fields=["subject"], name="audit_subject"),
            models.Index(fields=["address"], name="audit_address"),
            # read by the admin's date hierarchy, by the export and by pruning
            models.Index(fields=["at"], name="audit_at"),
        ]

    def __str__(self) -> str:
        return f"{self.what} {self.subject}".strip()


class Node(models.Model):
    """A process with agents' sockets. Its heartbeat shows that it is alive."""

    id = models.CharField(primary_key=True, max_length=32)
    host = models.CharField(max_length=255)
    pid = models.IntegerField()
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()
    # the process's limit of open files if it is nearly reached, else 0
    scarce_files = models.IntegerField(default=0)

    key_field = "id"

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class Lease(models.Model):
    """The right of one process to do what only one may do, until it expires."""

    name = models.CharField(primary_key=True, max_length=32)
    holder = models.CharField(max_length=32)
    expires_at = models.DateTimeField()

    key_field = "name"

    def __str__(self) -> str:
        return f"{self.name} held by {self.holder}"
