"""What the charts show."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcom.database import millis
from dashboard import history as history_module
from dashboard.history import MAX_MINUTES, MAX_POINTS, history
from tasks.queue import Complete
from tests.shift import Clock
from tests.tasks.play import assigned, dead, do
from worker.models import QueueSample

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def now(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "now", clock)


def points(minutes: int = 60) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = history(minutes)["points"]
    return found


def complete(clock: Clock, after_s: float) -> None:
    task = assigned("a-1")
    clock.advance(after_s)
    do(Complete(task.task_id, "a-1", task.generation))


def test_gaps_are_zeros_and_the_last_minute_is_the_one_that_runs(clock: Clock) -> None:
    found = history(60)
    assert (found["minutes"], found["step_s"]) == (60, 60)
    times = [point["at"] for point in found["points"]]
    assert times == list(range(times[0], times[0] + 60 * 60_000, 60_000))
    assert times[-1] == millis(clock.now.replace(second=0))
    empty = {"completed": 0, "failed": 0, "depth": None, "p95_ms": 0}
    assert all({**point, "at": 0} == {"at": 0, **empty} for point in found["points"])


def test_each_thing_is_in_the_minute_in_which_it_happened(clock: Clock) -> None:
    complete(clock, 2)
    dead("a-1")
    clock.advance(60)
    complete(clock, 4)
    clock.advance(60)
    *_, first, second, third = points()
    assert [(p["completed"], p["failed"]) for p in (first, second, third)] == [
        (1, 1),
        (1, 0),
        (0, 0),
    ]
    assert first["p95_ms"] == pytest.approx(2_000, rel=0.05)
    assert second["p95_ms"] == pytest.approx(4_000, rel=0.05)
    assert third["p95_ms"] == 0


def test_a_longer_view_sums_up_and_has_the_p95_of_the_step(clock: Clock) -> None:
    clock.now = clock.now.replace(minute=30, second=0)
    for seconds in (1, 1, 100):
        complete(clock, seconds)
    clock.advance(120)
    step = history(MAX_MINUTES)
    assert step["step_s"] == 300
    last = step["points"][-1]
    assert last["completed"] == 3
    assert last["p95_ms"] == pytest.approx(100_000, rel=0.05)
    assert sum(point["completed"] for point in step["points"][:-1]) == 0


def test_the_depth_is_the_last_sample_and_one_that_is_late_leaves_no_hole(clock: Clock) -> None:
    minute = clock.now.replace(second=0)
    for seconds, depth in ((-298, 1), (-250, 2), (-179, 4), (0, 7)):
        QueueSample.objects.create(at=minute + timedelta(seconds=seconds), depth=depth)
    assert [point["depth"] for point in points()[-6:]] == [2, 2, 4, 4, None, 7]


@given(minutes=st.integers(1, MAX_MINUTES))
def test_there_are_never_many_points_and_they_reach_back_far_enough(minutes: int) -> None:
    found = history(minutes)
    count, step = len(found["points"]), found["step_s"] // 60
    assert count <= MAX_POINTS
    assert minutes <= count * step < minutes + step
    assert all(point["at"] % (step * 60_000) == 0 for point in found["points"])
