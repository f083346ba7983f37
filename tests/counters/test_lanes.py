"""The lanes' counts, ages and rates."""

from __future__ import annotations

from typing import Any

import pytest

from agentcom.database import millis
from counters.lanes import MINUTES
from fleet.models import Agent
from tasks.queue import Fail, Reclaim, Reject
from tasks.steering import Retry
from tests.shift import Clock
from tests.shown import shown
from tests.tasks.play import BOSS, agent, assigned, claim, do, submit

pytestmark = pytest.mark.django_db

EMPTY = {"queued": 0, "oldest_at": None, "added_per_min": 0.0, "drained_per_min": 0.0}


def lanes(clock: Clock) -> dict[str, Any]:
    found: dict[str, Any] = shown(clock.now)["queue"]["lanes"]
    return found


def test_an_empty_queue_has_four_lanes(clock: Clock) -> None:
    assert lanes(clock) == {str(lane): EMPTY for lane in range(4)}


def test_the_oldest_is_the_head_whatever_it_needs(clock: Clock) -> None:
    first = submit(priority=1, needed_capabilities=["nobody"])
    clock.advance(10)
    submit(priority=1)
    submit(priority=3)
    told = lanes(clock)
    assert (told["1"]["queued"], told["1"]["oldest_at"]) == (2, millis(first.created_at))
    assert told["3"]["oldest_at"] == millis(clock.now)
    assert told["0"] == EMPTY


def test_a_task_that_comes_back_is_as_old_as_it_was(clock: Clock) -> None:
    task = assigned("a-1")
    clock.advance(100)
    submit()
    do(Reject(task.task_id, "a-1", task.generation))
    assert lanes(clock)["2"]["oldest_at"] == millis(task.created_at)


def test_whatever_enters_is_added_and_whatever_is_assigned_is_drained(
    clock: Clock, settings: Any
) -> None:
    settings.AGENTCOM_REJECT_PAUSE_S = 0
    worker = agent("a-1")
    task = submit(priority=0, max_retries=2)
    for command in (Fail, Reclaim, Reject, Fail):
        claim(Agent.objects.get(pk=worker.pk))
        task.refresh_from_db()
        do(command(task.task_id, "a-1", task.generation))
    do(Retry(task.task_id, BOSS))
    told = lanes(clock)["0"]
    assert told["added_per_min"] == pytest.approx(5 / MINUTES)  # once fresh, and four times again
    assert told["drained_per_min"] == pytest.approx(4 / MINUTES)
    assert lanes(clock)["2"] == EMPTY


def test_the_rates_are_of_the_last_minutes(clock: Clock) -> None:
    for _ in range(7):
        submit()
    clock.advance((MINUTES - 1) * 60)
    assert lanes(clock)["2"]["added_per_min"] == 1.4
    clock.advance(60)
    assert lanes(clock)["2"]["added_per_min"] == 0


def test_a_look_changes_nothing_within_a_minute(clock: Clock) -> None:
    """Or every viewer would get a patch every second."""
    submit()
    clock.now = clock.now.replace(second=1)
    before = lanes(clock)
    clock.advance(58)
    assert lanes(clock) == before
