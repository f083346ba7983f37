"""The hour's sums, whatever numbers somebody reports."""

from __future__ import annotations

import pytest
from django.db import connection

from agentcom import rows
from agentcom.rows import COUNTER_MAX, Step
from counters.models import LaneMinute, Minute
from counters.throughput import last_hour
from tasks.queue import Complete
from tests.shift import Clock
from tests.shown import shown
from tests.tasks.play import assigned, do

HUGE = 2**63 - 1  # all that a column of 64 bits can hold
MOST = COUNTER_MAX["BigIntegerField"]

pytestmark = pytest.mark.django_db


def complete(agent_id: str = "a-1", tokens: int = 5) -> None:
    task = assigned(agent_id)
    do(Complete(task.task_id, agent_id, task.generation, {}, tokens_used=tokens))


def test_a_counter_stays_at_what_it_can_hold(clock: Clock) -> None:
    for _ in range(3):
        complete(tokens=MOST - 1)
    assert Minute.objects.get().tokens == MOST
    assert Minute.objects.get().completed == 3


def test_so_does_one_that_a_single_commit_fills(clock: Clock) -> None:
    steps: list[Step] = [({"start": clock.now}, {"tokens": HUGE, "completed": 2**31})] * 3
    rows.run([rows.increment(Minute, steps)])
    assert Minute.objects.get().tokens == MOST
    assert Minute.objects.get().completed == COUNTER_MAX["IntegerField"]


def test_the_small_counters_too(clock: Clock) -> None:
    place = {"start": clock.now, "priority": 2}
    LaneMinute.objects.create(**place, added=2**31 - 1, drained=COUNTER_MAX["IntegerField"] - 1)
    rows.run([rows.increment(LaneMinute, [(place, {"added": 7, "drained": 1})])])
    lane = LaneMinute.objects.get()
    assert (lane.added, lane.drained) == (COUNTER_MAX["IntegerField"],) * 2


def test_what_an_older_version_counted_breaks_no_commit_and_no_view(clock: Clock) -> None:
    minute = clock.now.replace(second=0, microsecond=0)
    Minute.objects.create(start=minute, completed=1, tokens=HUGE, duration_ms=HUGE)
    clock.advance(60)
    Minute.objects.create(
        start=clock.now.replace(second=0, microsecond=0), tokens=HUGE, duration_ms=HUGE
    )
    complete()
    assert last_hour(clock.now).completed == 2
    assert last_hour(clock.now).tokens == MOST
    assert shown(clock.now)["throughput"]["total_tokens_hour"] == MOST


@pytest.mark.sqlite_only
def test_nor_what_sqlite_kept_as_a_floating_point_number(clock: Clock) -> None:
    complete()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {Minute._meta.db_table} SET tokens = tokens + {HUGE}")
        cursor.execute(f"SELECT TYPEOF(tokens) FROM {Minute._meta.db_table}")
        assert cursor.fetchone() == ("real",)
    complete()
    assert Minute.objects.get().tokens == MOST
    assert last_hour(clock.now).tokens == MOST
