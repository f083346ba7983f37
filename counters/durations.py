"""How long tasks take: a histogram for each minute, updated with the events, and its percentiles.

Each bucket is a tenth wider than the one before, and a percentile is the middle of its bucket,
rounded to a millisecond. So its error is at most 5 % plus half a millisecond, and it costs the same
for ten tasks as for a million.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from django.db.models import Sum

from agentcom.models import Event
from agentcom.work import Work
from counters.models import DurationCount

GROWTH = 1.1


def bucket_of(duration_ms: int) -> int:
    """Bucket 0 is for durations below 1 ms; bucket n begins at 1.1 to the power of n - 1."""
    return 0 if duration_ms < 1 else 1 + int(math.log(duration_ms, GROWTH))


def middle_of(bucket: int) -> int:
    """The middle of the bucket in ms."""
    return 0 if bucket == 0 else round(GROWTH ** (bucket - 0.5))


def percentile(counts: Mapping[int, int], share: float) -> int:
    """The duration in ms that this share of the tasks did not exceed; 0 if there are none."""
    rank = math.ceil(share * sum(counts.values()))
    for bucket in sorted(counts):
        rank -= counts[bucket]
        if rank <= 0:
            return middle_of(bucket)
    return 0


def minute_of(moment: datetime) -> int:
    """Minutes since the epoch."""
    return int(moment.timestamp()) // 60


def project_duration(work: Work, event: Event) -> None:
    if event.kind == "task_complete":
        place = {
            "minute": minute_of(event.at),
            "bucket": bucket_of(event.data["duration_ms"]),
        }
        work.increment(DurationCount, place, count=1)


def last_hour(now: datetime) -> dict[int, int]:
    """The number of tasks in each bucket, for this minute and the 59 before it."""
    minute = minute_of(now)
    recent = DurationCount.objects.filter(minute__gt=minute - 60, minute__lte=minute)
    return dict(recent.order_by().values_list("bucket").annotate(Sum("count")))
