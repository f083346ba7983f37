"""Endpoints of programs that rely on webhooks, what is to be delivered to them, and each attempt.

Only the Writer writes these rows.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from django.db import models

from agentcom import actors


class Endpoint(models.Model):
    """A URL that hears of events, from the moment at which it was added."""

    endpoint_id = models.CharField(primary_key=True, max_length=32)
    url = models.TextField()
    description = models.CharField(max_length=500, blank=True, default="")
    # the filter; an empty list of lanes or capabilities leaves nothing out
    types = models.JSONField(default=list)  # values of `webhooks.kinds.TYPES`
    lanes = models.JSONField(default=list)  # their names
    capabilities = models.JSONField(default=list)  # the task needs at least one of them
    # raised with each change of the filter, and whenever it is switched on or off: what was read
    # from the journal before that is read again
    revision = models.IntegerField(default=0)
    # `whsec_…`; the older one signs too until its time is over
    secret = models.CharField(max_length=128)
    old_secret = models.CharField(max_length=128, blank=True, default="")
    old_secret_until = models.DateTimeField(null=True, blank=True)
    enabled = models.BooleanField(default=True)
    off_reason = models.CharField(max_length=500, blank=True, default="")
    off_at = models.DateTimeField(null=True, blank=True)
    # whether the hub switched it off itself, because of what it answered
    off_by_failure = models.BooleanField(default=False)
    # all entries of the journal up to this one have been turned into deliveries, or filtered out
    seq = models.BigIntegerField()
    # since when every attempt has failed; null: the last one succeeded, or there was none
    failing_since = models.DateTimeField(null=True, blank=True)
    failed_at = models.DateTimeField(null=True, blank=True)  # the last of them
    # for how long (s) it was tried in this time, see `webhooks.deliveries`
    failing_s = models.FloatField(default=0)
    # when the failures began after which it has succeeded again, until what failed meanwhile has
    # been hastened
    recovered_from = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=actors.MAX_LENGTH)

    key_field = "endpoint_id"

    class Meta:
        ordering = ["created_at", "endpoint_id"]
        verbose_name = "webhook"

    def __str__(self) -> str:
        return self.description or self.host

    def succeed(self) -> None:
        if self.failing_since is not None:
            self.recovered_from = min(self.recovered_from or self.failing_since, self.failing_since)
        self.failing_since = self.failed_at = None
        self.failing_s = 0.0

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def in_words(self) -> str:
        """For people, who may have several at one host."""
        return f"{self} ({self.endpoint_id})"


class State(models.TextChoices):
    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


class Delivery(models.Model):
    """One event for one endpoint, until it is delivered or dead."""

    number = models.BigAutoField(primary_key=True)
    message_id = models.CharField(max_length=40, unique=True)  # the header `webhook-id`
    endpoint_id = models.CharField(max_length=32)
    # of the journal entry; null: a test event
    seq = models.BigIntegerField(null=True, blank=True)
    task_id = models.CharField(max_length=32, null=True, blank=True)
    type = models.CharField(max_length=32)
    happened_at = models.DateTimeField()
    state = models.CharField(max_length=12, choices=State, default=State.WAITING)
    # The next attempt. Null if there is none, and while an earlier event of the same task waits.
    due_at = models.DateTimeField(null=True, blank=True)
    attempts = models.IntegerField(default=0)
    tries = models.IntegerField(default=0)  # attempts since it was added or last replayed
    failed_since = models.DateTimeField(null=True, blank=True)  # the first of them that failed
    # of the last attempt
    status_code = models.IntegerField(null=True, blank=True)
    error = models.CharField(max_length=500, blank=True, default="")
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)  # null as long as it waits

    key_field = "message_id"

    class Meta:
        ordering = ["-number"]
        verbose_name_plural = "deliveries"
        indexes = [
            # read by the sender: what is due at an endpoint
            models.Index(
                fields=["endpoint_id", "due_at"],
                name="delivery_due",
                condition=models.Q(due_at__isnull=False),
            ),
            # read when a delivery is added or ends: what waits of the same task
            models.Index(
                fields=["endpoint_id", "task_id", "seq"],
                name="delivery_of_task",
                condition=models.Q(ended_at__isnull=True),
            ),
            # read by the health light: the oldest that waits
            models.Index(
                fields=["endpoint_id", "happened_at"],
                name="delivery_oldest",
                condition=models.Q(ended_at__isnull=True),
            ),
            # read by the worker, which drops what was delivered first
            models.Index(fields=["state", "ended_at"], name="delivery_ended"),
            # read by the admin, by replays, and by the worker for endpoints that were removed
            models.Index(fields=["endpoint_id", "number"], name="delivery_endpoint"),
            models.Index(fields=["task_id", "number"], name="delivery_task"),
            # read by the admin's date hierarchy
            models.Index(fields=["created_at"], name="delivery_created"),
        ]

    def __str__(self) -> str:
        return self.message_id


class Message(models.Model):
    """The body of a delivery, the same in each attempt. In a table of its own, because a delivery
    is written at each attempt."""

    message_id = models.CharField(primary_key=True, max_length=40)
    body = models.TextField()

    key_field = "message_id"

    def __str__(self) -> str:
        return self.message_id


class Attempt(models.Model):
    """One request of a delivery, and what came of it."""

    message_id = models.CharField(max_length=40, db_index=True)  # read by the delivery's page
    at = models.DateTimeField()  # when it was over
    duration_ms = models.IntegerField()
    status_code = models.IntegerField(null=True, blank=True)  # null: there was no answer
    answer = models.TextField(blank=True, default="")  # its beginning
    error = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.message_id} at {self.at:%H:%M:%S}"
