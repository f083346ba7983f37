"""What each agent has done this hour."""

from __future__ import annotations

import pytest

from tasks.queue import Complete, Fail
from tests.shift import Clock
from tests.shown import shown
from tests.tasks.play import agent, assigned, do

pytestmark = pytest.mark.django_db


def done(clock: Clock, section: str = "agents") -> dict[str, tuple[int, int]]:
    return {
        row["agent_id"]: (row["completed_this_hour"], row["failed_this_hour"])
        for row in shown(clock.now)[section]
    }


def test_outcomes_count_for_the_agent_until_the_clock_hour_ends(clock: Clock) -> None:
    agent("idle")
    for ending in (Complete, Complete, Fail):
        task = assigned("a-1", max_retries=1)
        do(ending(task.task_id, "a-1", task.generation))
    assert done(clock) == {"a-1": (2, 1), "idle": (0, 0)}
    clock.now = clock.now.replace(minute=59, second=59)
    assert done(clock)["a-1"] == (2, 1)
    clock.advance(1)
    assert done(clock)["a-1"] == (0, 0)


def test_a_repeated_completion_counts_once(clock: Clock) -> None:
    task = assigned("a-1")
    for _ in range(2):
        do(Complete(task.task_id, "a-1", task.generation))
    assert done(clock) == {"a-1": (1, 0)}


def test_a_lost_agent_keeps_its_count(clock: Clock) -> None:
    task = assigned("a-1")
    do(Complete(task.task_id, "a-1", task.generation))
    agent("lost", fsm_state="offline", disconnected_at=clock.now)
    assert done(clock, "offline_agents") == {"lost": (0, 0)}
