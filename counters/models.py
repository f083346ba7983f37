"""Counters that are updated with the events: a row for each minute or hour."""

from __future__ import annotations

from django.db import models


class Minute(models.Model):
    """What happened in one minute, so that sums over a time need no scan of the completions."""

    start = models.DateTimeField(primary_key=True)
    completed = models.IntegerField(default=0)
    failed = models.IntegerField(default=0)
    duration_ms = models.BigIntegerField(default=0)
    tokens = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["-start"]

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M}"


class LaneMinute(models.Model):
    """How many tasks entered and left a lane of the queue in one minute."""

    start = models.DateTimeField()
    priority = models.SmallIntegerField()
    added = models.IntegerField(default=0)
    drained = models.IntegerField(default=0)

    class Meta:
        constraints = [
            # read by the snapshot and by pruning, by `start`
            models.UniqueConstraint(fields=["start", "priority"], name="lane_minute"),
        ]

    def __str__(self) -> str:
        return f"lane {self.priority} at {self.start:%Y-%m-%d %H:%M}"


class AgentHour(models.Model):
    """What one agent did in one clock hour."""

    start = models.DateTimeField()
    agent_id = models.CharField(max_length=128)
    completed = models.IntegerField(default=0)
    failed = models.IntegerField(default=0)

    class Meta:
        constraints = [
            # read by the snapshot and by pruning, by `start`; by an agent's page, by both
            models.UniqueConstraint(fields=["start", "agent_id"], name="agent_hour"),
        ]

    def __str__(self) -> str:
        return f"{self.agent_id} at {self.start:%Y-%m-%d %H}:00"


class DurationCount(models.Model):
    """How many tasks of one minute are in one bucket of durations, see `counters.durations`."""

    # minutes since the epoch: a whole number, so that any database can group by longer steps
    minute = models.IntegerField()
    bucket = models.SmallIntegerField()
    count = models.IntegerField(default=0)

    class Meta:
        constraints = [
            # read by the snapshot, the history and by pruning, by `minute`
            models.UniqueConstraint(fields=["minute", "bucket"], name="duration_count"),
        ]

    def __str__(self) -> str:
        return f"{self.count} in bucket {self.bucket}"
