"""The four lanes of the queue: the oldest task of each, and how fast it fills and drains."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Sum

from agentcom.database import millis
from agentcom.models import Event
from agentcom.work import Work
from counters.models import LaneMinute
from tasks.models import Priority, Status, Task
from tasks.moves import MOVES

MINUTES = 5  # over which the rates are averaged: this one and those before it

QUEUED = Status.QUEUED.value


def project_lane(work: Work, event: Event) -> None:
    move = MOVES.get(event.kind)
    if move is None or move.to is None:
        return
    was_queued = move.start(event.data) == QUEUED
    is_queued = move.end(event.data) == QUEUED
    if not (was_queued or is_queued):
        return
    task = work.get(Task, event.task_id)
    assert task is not None
    old_priority = event.data.get("old_priority", task.priority)
    if was_queued and is_queued and old_priority == task.priority:
        return
    start = event.at.replace(second=0, microsecond=0)
    if was_queued:
        work.increment(LaneMinute, {"start": start, "priority": old_priority}, drained=1)
    if is_queued:
        work.increment(LaneMinute, {"start": start, "priority": task.priority}, added=1)


def lanes(now: datetime, queued: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """For each lane ``{"queued", "oldest_at", "added_per_min", "drained_per_min"}``.

    `queued` has the number of tasks in each lane. The rates change only with events and with the
    minute: a value that changes continuously would cause a patch for all viewers each time.
    """
    rates = _rates(now)
    return {
        str(lane): {
            "queued": queued[str(lane)],
            "oldest_at": _oldest_at(lane) if queued[str(lane)] else None,
            "added_per_min": round(rates.get(lane, (0, 0))[0] / MINUTES, 1),
            "drained_per_min": round(rates.get(lane, (0, 0))[1] / MINUTES, 1),
        }
        for lane in Priority.values
    }


def _rates(now: datetime) -> dict[int, tuple[int, int]]:
    since = now.replace(second=0, microsecond=0) - timedelta(minutes=MINUTES - 1)
    sums = (
        LaneMinute.objects.filter(start__gte=since, start__lte=now)
        .values_list("priority")
        .annotate(Sum("added"), Sum("drained"))
        .order_by()
    )
    return {lane: (added, drained) for lane, added, drained in sums}


def _oldest_at(lane: int) -> int | None:
    """When the first task of the lane was submitted, in ms."""
    queued = Task.objects.filter(status=Status.QUEUED, priority=lane).order_by("number")
    return millis(queued.values_list("created_at", flat=True).first())
