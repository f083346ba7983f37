"""What the worker records: samples of the queue's depth, and its health reports."""

from __future__ import annotations

from django.db import models


class QueueSample(models.Model):
    """The queue's depth at one moment, taken by the worker."""

    at = models.DateTimeField(primary_key=True)
    depth = models.IntegerField()

    class Meta:
        ordering = ["-at"]

    def __str__(self) -> str:
        return f"{self.depth} at {self.at:%H:%M:%S}"


class HealthReport(models.Model):
    """The worker's verdict. A new row when it changes; the newest is refreshed at every tick."""

    status = models.CharField(max_length=8)
    # [{"code", "severity", "message", "since" (ms), "subjects"}]
    details = models.JSONField(default=list)
    created_at = models.DateTimeField(db_index=True)  # used by the admin's date hierarchy
    reported_at = models.DateTimeField()

    key_field = "id"

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.status
