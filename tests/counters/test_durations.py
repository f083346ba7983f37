"""The histogram of durations, and the percentiles that it gives."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from counters.durations import bucket_of, last_hour, middle_of, percentile
from counters.models import DurationCount
from tasks.queue import Complete
from tests.shift import Clock
from tests.shown import shown
from tests.tasks.play import again, assigned, do

DURATIONS = st.integers(0, 1000 * 3600 * 24 * 30)


@given(duration_ms=DURATIONS)
def test_a_bucket_tells_a_duration_to_five_per_cent(duration_ms: int) -> None:
    assert abs(middle_of(bucket_of(duration_ms)) - duration_ms) <= 0.05 * duration_ms + 0.5


@given(a=DURATIONS, b=DURATIONS)
def test_longer_ones_are_never_in_a_lower_bucket(a: int, b: int) -> None:
    assert (bucket_of(a) <= bucket_of(b)) or a > b


@example(durations=[34], share=0.5)  # given as 32
@given(durations=st.lists(DURATIONS, min_size=1, max_size=50), share=st.sampled_from([0.5, 0.95]))
def test_a_percentile_is_that_of_the_sorted_durations(durations: list[int], share: float) -> None:
    counts = Counter(map(bucket_of, durations))
    exact = sorted(durations)[-(-int(share * 100) * len(durations) // 100) - 1]
    # half a bucket, and what rounding to whole milliseconds adds to it
    assert abs(percentile(counts, share) - exact) <= 0.05 * exact + 0.5


def test_without_tasks_there_is_none() -> None:
    assert percentile({}, 0.95) == 0


@pytest.mark.django_db
def test_completions_are_counted_by_the_minute_and_for_an_hour(clock: Clock) -> None:
    for seconds in (1, 2, 50):
        task = assigned("a-1")
        clock.advance(seconds)
        complete = Complete(task.task_id, "a-1", task.generation, {})
        do(complete)
        do(complete)  # told again, counted once
    assert again(task).status == "completed"
    assert sum(last_hour(clock.now).values()) == 3
    throughput = shown(clock.now)["throughput"]
    assert throughput["p50_ms"] == pytest.approx(2_000, rel=0.05)
    assert throughput["p95_ms"] == pytest.approx(50_000, rel=0.05)
    assert DurationCount.objects.count() == 3
    hour_later = clock.now + timedelta(minutes=60)
    assert last_hour(hour_later) == {}
    assert shown(hour_later)["throughput"]["p95_ms"] == 0
