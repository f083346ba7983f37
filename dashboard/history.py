"""What the charts show: the last minutes or the last day, always a bounded number of points."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import F, Sum

from agentcom.database import consistent_read, now
from counters.durations import minute_of, percentile
from counters.models import DurationCount, Minute
from worker.models import QueueSample

MAX_MINUTES = 1440
MAX_POINTS = 300
STEPS = (1, 2, 5)  # minutes


def history(minutes: int) -> dict[str, Any]:
    """``{"minutes", "step_s", "points": [{"at", "completed", "failed", "depth", "p95_ms"}]}``.

    Oldest first; `at` is when a step begins, in ms; the last step is not over yet. Steps begin at
    whole multiples of their length, so that points do not move between two requests.
    """
    step = next(step for step in STEPS if minutes <= step * MAX_POINTS)
    count = math.ceil(minutes / step)
    with consistent_read():
        moment = now()
        first = (minute_of(moment) // step - count + 1) * step
        completed, failed = _outcomes(first, step)
        depths, slow = _depths(first, step), _p95s(first, step)
    points = [
        {
            "at": (first + index * step) * 60_000,
            "completed": completed[index],
            "failed": failed[index],
            # a sample that is a little late leaves no gap
            "depth": depths.get(index, depths.get(index - 1)),
            "p95_ms": slow.get(index, 0),
        }
        for index in range(count)
    ]
    return {"minutes": minutes, "step_s": step * 60, "points": points}


def _outcomes(first: int, step: int) -> tuple[Counter[int], Counter[int]]:
    completed, failed = Counter[int](), Counter[int]()
    rows = Minute.objects.filter(start__gte=_moment(first))
    for start, done, broken in rows.values_list("start", "completed", "failed"):
        index = (minute_of(start) - first) // step
        completed[index] += done
        failed[index] += broken
    return completed, failed


def _depths(first: int, step: int) -> dict[int, int]:
    """The last sample of each step, and of the one before the first."""
    samples = QueueSample.objects.filter(at__gte=_moment(first - step)).order_by("at")
    return {
        (minute_of(at) - first) // step: depth for at, depth in samples.values_list("at", "depth")
    }


def _p95s(first: int, step: int) -> dict[int, int]:
    counts: dict[int, dict[int, int]] = defaultdict(dict)
    rows = (
        DurationCount.objects.filter(minute__gte=first)
        .order_by()
        .annotate(index=(F("minute") - first) / step)  # integer division
        .values_list("index", "bucket")
        .annotate(Sum("count"))
    )
    for index, bucket, count in rows:
        counts[index][bucket] = count
    return {index: percentile(buckets, 0.95) for index, buckets in counts.items()}


def _moment(minute: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(minutes=minute)
