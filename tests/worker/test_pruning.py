from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import Model
from django.test.utils import CaptureQueriesContext

from agentcom.models import Event
from agentcom.writer import writer
from counters.durations import minute_of
from counters.models import AgentHour, DurationCount, LaneMinute, Minute
from tasks.listing import counts
from tasks.models import Completion, Priority, QueueError, Status, Submission, Tally, Task
from tasks.queue import Complete, FirstAnswer, NewTask, Submit
from tasks.steering import Retry
from tests.shift import Clock, Shift
from tests.tasks.play import (
    again,
    agent,
    assigned,
    claim,
    counted,
    dead,
    do,
    nothing_changes,
    recounted,
    submit,
)
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
    monkeypatch.setattr("worker.tick.PRUNE_S", 60)
    assert shift.tick().pruned == 3


def test_pruning_comes_once_a_minute(shift: Shift, clock: Clock):
    shift.tick()
    Submission.objects.create(key="k-1", task_ids=[], created_at=clock.now - timedelta(days=2))
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


# --- Tasks

DAY = 24 * 3600


def completed(agent_id: str = "a-1", **fields: Any) -> Task:
    task = assigned(agent_id, **fields)
    do(Complete(task.task_id, agent_id, task.generation, result={"done": True}))
    return again(task)


def prune(clock: Clock) -> int:
    """The steps of one pass as one group, as the worker commits them. Give how many tasks went."""
    steps = pruning.steps(clock.now)
    outcomes = zip(steps, writer.commit(steps), strict=True)
    return sum(int(dropped) for step, dropped in outcomes if isinstance(step, pruning.PruneTasks))


def test_a_step_of_large_tasks_is_shorter(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """Or nothing else could be committed for seconds."""
    monkeypatch.setattr(pruning, "STEP_BYTES", 10_000)
    for _ in range(5):
        # PostgreSQL would compress what repeats itself
        task = assigned(metadata={"text": secrets.token_hex(3_000)})
        do(Complete(task.task_id, "a-1", 1))
    clock.advance(91 * 24 * 3600)
    assert [prune_tasks(clock) for _ in range(4)] == [2, 2, 1, 0]
    assert Task.objects.count() == 0
    assert counted() == recounted()


def prune_tasks(clock: Clock) -> int:
    return int(do(pruning.PruneTasks(clock.now)))


def order(*descriptions: str) -> Submit:
    """One that may be repeated."""
    return Submit([NewTask(text) for text in descriptions], "boss", idempotency_key="order")


def ids() -> set[str]:
    return set(Task.objects.values_list("task_id", flat=True))


def test_a_task_is_dropped_90_days_after_its_end(shift: Shift, clock: Clock):
    shift.tick()
    first = completed()
    clock.advance(DAY)
    second = completed()
    clock.advance(89 * DAY - 1)
    shift.tick()
    assert ids() == {first.task_id, second.task_id}
    shift.tick(60)
    assert ids() == {second.task_id}
    assert counted() == recounted()


def test_what_has_not_ended_stays(clock: Clock):
    held = assigned("a-1")
    letter, again_queued = dead("a-2"), dead("a-3")
    do(Retry(again_queued.task_id, "user:boss"))
    waiting = submit()
    clock.advance(36_000 * DAY)
    with nothing_changes():
        assert prune_tasks(clock) == 0
    assert ids() == {task.task_id for task in (held, letter, again_queued, waiting)}


def test_tasks_are_kept_for_good_with_a_retention_of_0(clock: Clock, settings: Any):
    completed()
    clock.advance(36_000 * DAY)
    settings.AGENTCOM_TASK_RETENTION_DAYS = 0
    prune(clock)
    assert len(ids()) == 1
    settings.AGENTCOM_TASK_RETENTION_DAYS = 0.5
    prune(clock)
    assert not ids()


def test_the_counts_follow_the_dropped_tasks_in_each_lane(clock: Clock):
    for priority in (Priority.URGENT, Priority.URGENT, Priority.LOW):
        completed(priority=priority, needed_capabilities=[])
    agent("a-2", capabilities=["cooking"])
    completed("a-2", needed_capabilities=["cooking"])
    clock.advance(DAY)
    kept = completed(priority=Priority.URGENT)
    clock.advance(1)
    assert do(pruning.PruneTasks(clock.now - timedelta(hours=12))) == 4
    assert ids() == {kept.task_id}
    assert counted() == recounted() == {("completed", Priority.URGENT, ""): 1}
    by_status = {status: n for status, n in counts()["by_status"].items() if n}
    assert by_status == {"completed": 1}


def test_those_that_ended_first_are_dropped_first_in_small_steps(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.pruning.STEP", 2)
    early, late = assigned("a-1"), assigned("a-2")
    clock.advance(1)
    do(Complete(late.task_id, "a-2", late.generation))
    clock.advance(1)
    middle = completed("a-3")
    clock.advance(1)
    do(Complete(early.task_id, "a-1", early.generation))
    clock.advance(1)
    assert prune_tasks(clock) == 2
    assert ids() == {early.task_id} != {middle.task_id}
    assert counted() == recounted()
    assert prune_tasks(clock) == 1
    assert not ids()
    assert counted() == recounted() == {}


def test_a_step_that_is_not_committed_drops_nothing(clock: Clock):
    completed()
    clock.advance(DAY)

    class Broken(pruning.PruneTasks):
        def apply(self, work: Any) -> int:
            super().apply(work)
            raise ZeroDivisionError

    with nothing_changes(), pytest.raises(ZeroDivisionError):
        do(Broken(clock.now))


def test_two_steps_in_one_group_count_each_task_once(clock: Clock):
    """As when the first one was given up because the database did not answer in time."""
    completed()
    clock.advance(DAY)
    assert writer.commit([pruning.PruneTasks(clock.now)] * 2) == [1, 0]
    assert counted() == recounted() == {}


def test_a_task_that_is_completed_in_the_same_group_is_dropped_whole(clock: Clock):
    task = assigned()
    complete = Complete(task.task_id, "a-1", task.generation)
    soon = pruning.PruneTasks(clock.now + timedelta(seconds=1))
    late = writer.commit([complete, soon, complete])[-1]
    assert isinstance(late, QueueError)
    assert late.code == "not_found"
    assert not ids()
    assert counted() == recounted() == {}
    assert Completion.objects.count() == 1


def test_a_late_completion_of_a_dropped_task_is_refused_and_changes_nothing(clock: Clock):
    task = completed()
    clock.advance(DAY)
    prune_tasks(clock)
    with nothing_changes(), pytest.raises(QueueError, match="not_found"):
        do(Complete(task.task_id, "a-1", task.generation))
    with nothing_changes(), pytest.raises(QueueError, match="not_found"):
        do(Retry(task.task_id, "user:boss"))


def test_completions_are_kept_for_as_long_as_their_own_retention(clock: Clock):
    task = completed()
    clock.advance(DAY)
    prune_tasks(clock)
    assert Completion.objects.get().task_id == task.task_id


def test_a_task_stays_while_its_key_may_be_repeated(clock: Clock, settings: Any):
    settings.AGENTCOM_TASK_RETENTION_DAYS = 0.1
    holder = agent()
    receipts = do(order("a", "b"))
    for receipt in receipts:
        claim(holder)
        do(Complete(receipt["task_id"], "a-1", 1))
    clock.advance(DAY - 1)
    assert prune(clock) == 0
    assert do(order("a", "b")) == receipts
    clock.advance(2)
    prune(clock)  # the key
    prune(clock)
    assert not ids()
    assert counted() == recounted() == {}
    assert do(FirstAnswer("order", "token:boss")) is None
    assert do(order("a", "b")) != receipts


def test_a_task_that_ended_by_a_clock_set_back_stays_with_its_key(clock: Clock, settings: Any):
    settings.AGENTCOM_TASK_RETENTION_DAYS = 0.1
    holder = agent()
    [receipt] = do(order("a"))
    clock.jump(-DAY)
    claim(holder)
    do(Complete(receipt["task_id"], "a-1", 1))
    clock.jump(DAY + 1)
    assert prune(clock) == 0
    assert do(order("a")) == [receipt]


def test_a_key_that_expires_in_the_group_of_its_repetition_queues_anew(clock: Clock, settings: Any):
    settings.AGENTCOM_TASK_RETENTION_DAYS = 0.1
    holder = agent()
    [receipt] = do(order("a"))
    claim(holder)
    do(Complete(receipt["task_id"], "a-1", 1))
    clock.advance(DAY + 1)
    steps = pruning.steps(clock.now)
    [new] = writer.commit([*steps, *steps, order("b")])[-1]
    assert ids() == {new["task_id"]} != {receipt["task_id"]}
    assert do(order("c")) == [new]


def test_old_tasks_are_found_by_an_index(clock: Clock):
    completed()
    do(order("a"))
    clock.advance(DAY)
    explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    with CaptureQueriesContext(connection) as captured, connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            for way in ("seqscan", "sort", "bitmapscan"):  # which small tables would get
                cursor.execute(f"SET LOCAL enable_{way} = off")
        prune_tasks(clock)
    [query] = [q["sql"] for q in captured if "ended_at" in q["sql"] and "ORDER BY" in q["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(f"{explain} {query}")
        plan = str(cursor.fetchall())
    assert "task_ended" in plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan
