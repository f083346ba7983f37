"""What was completed in the last hour, and how long it took."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any, Self

from agentcom.models import Event
from agentcom.rows import COUNTER_MAX
from counters.durations import bucket_of, minute_of, percentile
from counters.models import DurationCount, Minute
from counters.throughput import SUM_MAX
from dashboard.state.part import Part

WINDOW = 60  # minutes: the current one and those before it
COLUMNS = ("completed", "failed", "duration_ms", "tokens")
MOST = tuple(COUNTER_MAX[Minute._meta.get_field(name).get_internal_type()] for name in COLUMNS)
NOTHING = (0, 0, 0, 0)


class Throughput(Part):
    kinds = frozenset({"task_complete", "task_failed"})

    def __init__(self) -> None:
        super().__init__()
        # by minute since the epoch
        self._sums: dict[int, list[int]] = defaultdict(lambda: list(NOTHING))
        self._durations: dict[int, Counter[int]] = defaultdict(Counter)
        # the sum of `_durations` in the window that ends with this minute
        self._last: int | None = None
        self._merged: Counter[int] = Counter()

    @classmethod
    def read(cls, now: datetime) -> Self:
        part, first = cls(), minute_of(now) - WINDOW  # the clock that shows it may be a bit behind
        start = datetime.fromtimestamp(first * 60, UTC)
        rows = Minute.objects.filter(start__gte=start).order_by()
        for begun, *sums in rows.values_list("start", *COLUMNS):
            part._sums[minute_of(begun)] = sums
        counts = DurationCount.objects.filter(minute__gte=first).order_by()
        for minute, bucket, count in counts.values_list("minute", "bucket", "count"):
            part._durations[minute][bucket] = count
        return part

    def apply(self, event: Event) -> None:
        minute = minute_of(event.at)
        if event.kind == "task_failed":
            self._add(minute, 0, 1, 0, 0)
            return
        duration_ms = event.data["duration_ms"]
        self._add(minute, 1, 0, duration_ms, event.data["tokens_used"] or 0)
        bucket = bucket_of(duration_ms)
        self._durations[minute][bucket] += 1
        if self._last is not None and self._last - WINDOW < minute <= self._last:
            self._merged[bucket] += 1

    def _add(self, minute: int, *amounts: int) -> None:
        """Counters stay at their maximum, as in the database."""
        sums = zip(self._sums[minute], amounts, MOST, strict=True)
        self._sums[minute] = [min(old + more, most) for old, more, most in sums]

    def section(self, now: datetime) -> dict[str, Any]:
        last = minute_of(now)
        if last != self._last:
            self._move_to(last)
        shown = [sums for minute, sums in self._sums.items() if last - WINDOW < minute <= last]
        # limited to whole numbers that every JSON parser can represent
        totals = [min(sum(column), SUM_MAX) for column in zip(*shown, strict=True)]
        completed, failed, duration_ms, tokens = totals or NOTHING
        return {
            "completed_last_hour": completed,
            "failed_last_hour": failed,
            "avg_completion_ms": round(duration_ms / completed) if completed else 0,
            "p50_ms": percentile(self._merged, 0.5),
            "p95_ms": percentile(self._merged, 0.95),
            "total_tokens_hour": tokens,
        }

    def _move_to(self, last: int) -> None:
        """Another minute has begun. Those before the window are dropped; later ones exist if the
        clock was set back."""
        for kept in (self._sums, self._durations):
            for minute in [minute for minute in kept if minute <= last - WINDOW - 1]:
                del kept[minute]
        self._last = last
        self._merged = Counter()
        for minute, counts in self._durations.items():
            if last - WINDOW < minute <= last:
                self._merged.update(counts)
