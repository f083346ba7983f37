from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db.models import Model

from agentcom.models import Event
from counters.durations import minute_of
from counters.models import AgentHour, DurationCount, LaneMinute, Minute
from tasks.models import Completion, Status, Submission, Tally
from tests.shift import Clock, Shift
from tests.tasks.play import agent, claim, do, submit
from worker import pruning
from worker.models import HealthReport, QueueSample

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
OLD: list[tuple[type[Model], str, float, list[dict[str, Any]]]] = [
    (Event, "at", 7, [{"seq": n, "kind": "task_progress"} for n in (1, 2, 3)]),
    (HealthReport, "created_at", 7, [{"status": "ok", "reported_at": NOON}] * 3),
    (
        Completion,
        "completed_at",
        30,
        [{"seq": n, "task_id": f"t-{n}", "agent_id": "a-1", "duration_ms": 1} for n in (1, 2, 3)],
    ),
    (Minute, "start", 8, [{}] * 3),
    (QueueSample, "at", 1, [{"depth": 1}] * 3),
    (LaneMinute, "start", 1, [{"priority": 2}] * 3),
    (AgentHour, "start", 1, [{"agent_id": "a-1"}] * 3),
    (Submission, "created_at", 1, [{"key": f"k-{n}", "task_ids": []} for n in (1, 2, 3)]),
    (Session, "expire_date", 0, [{"session_key": f"s-{n}"} for n in (1, 2, 3)]),
]


@pytest.mark.parametrize(
    ("model", "moment", "days", "rows"), OLD, ids=lambda v: getattr(v, "__name__", "")
)
def test_the_old_goes_and_the_young_stays(
    model: type[Model], moment: str, days: float, rows: list[dict[str, Any]], clock: Clock
):
    hours = (days * 24 + 2, days * 24 + 1, days * 24 - 1)
    for row, age in zip(rows, hours, strict=True):
        model._default_manager.create(**row, **{moment: clock.now - timedelta(hours=age)})
    [pruned] = [
        do(step) for step in pruning.steps(clock.now) if getattr(step, "model", None) is model
    ]
    assert pruned == 2
    [young] = model._default_manager.all()
    assert getattr(young, moment) == clock.now - timedelta(hours=hours[-1])


def test_the_newest_event_and_report_stay_however_old(shift: Shift, clock: Clock):
    shift.tick()
    submit()
    newest = Event.objects.first()
    clock.advance(365 * 24 * 3600)
    for step in pruning.steps(clock.now):
        do(step)
    assert Event.objects.get() == newest
    assert HealthReport.objects.count() == 1
    submit()
    assert [event.seq for event in Event.objects.all()] == [newest.seq + 1, newest.seq]


def test_pruning_takes_small_steps_until_all_is_done(
    shift: Shift, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.pruning.STEP", 2)
    for _ in range(5):
        submit()
    clock.advance(8 * 24 * 3600)
    with monkeypatch.context() as hurry:
        hurry.setattr("worker.tick.PRUNE_S", 0)
        assert shift.tick().pruned == 2
    assert shift.tick().pruned == 3


def test_pruning_comes_once_a_minute(shift: Shift, clock: Clock):
    shift.tick()
    Submission.objects.create(key="k-1", task_ids=[], created_at=clock.now - timedelta(days=2))
    Submission.objects.create(key="k-2", task_ids=[], created_at=clock.now - timedelta(days=2))
    assert shift.tick(59).pruned == 0
    assert shift.tick(1).pruned == 1


def test_needs_that_nobody_waits_for_are_forgotten(clock: Clock):
    submit(needed_capabilities=["cooking"])
    cook = agent(capabilities=["cooking"])
    submit(needed_capabilities=["singing"])
    claim(cook)
    assert do(pruning.PruneTallies()) == 1
    assert [t.needs for t in Tally.objects.filter(status=Status.QUEUED)] == ['["singing"]']


def test_durations_are_kept_as_long_as_the_history_shows_them(clock: Clock):
    now = minute_of(clock.now)
    for age in (1600, 1501, 1500, 1440, 0):
        DurationCount.objects.create(minute=now - age, bucket=7)
    for step in pruning.steps(clock.now):
        do(step)
    assert {now - row.minute for row in DurationCount.objects.all()} == {1500, 1440, 0}
