"""Why a queued task is not running, and how many come before it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from fleet import waiting as waiting_module
from fleet.dispatcher import Idle, match
from fleet.waiting import FleetState, with_history
from tasks.heads import QueuedTask
from tasks.models import Task
from tasks.needs import needs_key, needs_of
from tests.tasks.play import agent, assigned, claim, submit

SKILLS = st.frozensets(st.sampled_from("abc"))


def waiting(task: Task) -> Any:
    found = with_history(task.task_id)
    assert found is not None
    return found["waiting"]


def queued(queue: list[tuple[int, frozenset[str]]]) -> list[Task]:
    """In the order of dispatch."""
    tasks = [
        Task(number=n, task_id=str(n), priority=lane, needs=needs_key(needs))
        for n, (lane, needs) in enumerate(queue, start=1)
    ]
    return sorted(tasks, key=lambda task: (task.priority, task.number))


def by_lane(tasks: list[Task]) -> list[tuple[int, Counter[str]]]:
    lanes = sorted({task.priority for task in tasks})
    return [(lane, Counter(t.needs for t in tasks if t.priority == lane)) for lane in lanes]


@pytest.mark.django_db
class TestReasons:
    def test_nobody_connected(self) -> None:
        agent("gone", fsm_state="offline", capabilities=["x"])
        told = waiting(submit(needed_capabilities=["x"]))
        assert told["reason"] == "nobody_connected"
        assert told["missing"] == ["x"]
        assert told["ahead"] is None

    def test_nobody_capable_names_what_is_missing(self) -> None:
        agent("a-1", capabilities=["x"])
        told = waiting(submit(needed_capabilities=["x", "z", "y"]))
        assert (told["reason"], told["missing"]) == ("nobody_capable", ["y", "z"])
        assert "y and z" in told["message"]

    def test_nobody_has_all_of_it_together(self) -> None:
        agent("a-1", capabilities=["x"])
        agent("a-2", capabilities=["y"])
        told = waiting(submit(needed_capabilities=["x", "y"]))
        assert (told["reason"], told["missing"]) == ("nobody_capable", [])
        assert "x and y" in told["message"]

    def test_all_who_can_are_busy(self) -> None:
        assigned("a-1")
        agent("idle", fsm_state="offline")
        told = waiting(submit())
        assert (told["reason"], told["ahead"]) == ("all_busy", 0)

    def test_the_place_in_line_counts_what_the_same_agents_could_take(self) -> None:
        agent("a-1", capabilities=["x"], fsm_state="working")
        agent("a-2", capabilities=["y"], fsm_state="working")
        submit(priority=0)  # before it, and for them
        submit(priority=0, needed_capabilities=["y"])  # for others
        submit(needed_capabilities=["x"])
        last = submit(needed_capabilities=["x"])
        submit(needed_capabilities=["x"])  # behind it
        submit(priority=3)
        told = waiting(last)
        assert (told["reason"], told["ahead"]) == ("in_line", 2)
        assert told["message"].startswith("2 tasks")

    def test_an_idle_agent_takes_it_any_moment(self) -> None:
        agent("a-1")
        told = waiting(submit())
        assert (told["reason"], told["ahead"]) == ("in_line", 0)

    def test_only_queued_tasks_wait(self) -> None:
        task = submit()
        claim(agent("a-1"))
        assert waiting(task) is None
        assert with_history("task-0000000000000000") is None

    def test_beyond_the_bound_nobody_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(waiting_module, "MAX_AHEAD", 3)
        assigned("a-1")
        tasks = [submit() for _ in range(6)]
        fleet = FleetState.now()
        told = [fleet.explain(task)["ahead"] for task in tasks]
        assert told == [0, 1, 2, 3, None, None]
        urgent = waiting(submit(priority=0))
        assert urgent["ahead"] == 0
        assert waiting(submit(priority=3))["ahead"] is None


@pytest.mark.django_db
class TestWorkIsBounded:
    def test_a_page_asks_once_for_each_lane_and_what_agents_can_do(self) -> None:
        agent("a-1", capabilities=["x"], fsm_state="working")
        agent("a-2", capabilities=["x", "y"], fsm_state="working")
        tasks = [submit(needed_capabilities=needs) for needs in (["x"], ["y"], []) * 10]
        fleet = FleetState.now()
        with CaptureQueriesContext(connection) as captured:
            ahead = [fleet.explain(task)["ahead"] for task in tasks]
        assert ahead == list(range(30))
        assert len(captured) <= 2

    def test_needs_that_no_agent_meets_cost_nothing(self) -> None:
        agent("a-1", capabilities=["x"], fsm_state="working")
        for number in range(50):
            submit(needed_capabilities=["x", f"customer-{number}"])
        fleet = FleetState.now()
        assert fleet.explain(submit(needed_capabilities=["x"]))["ahead"] == 0
        assert fleet._steps_left > waiting_module.MAX_STEPS - 50

    def test_what_would_take_too_long_to_count_is_not_counted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(waiting_module, "MAX_STEPS", 15)
        for number in range(4):
            agent(f"a-{number}", capabilities=[f"x-{number}"], fsm_state="working")
        tasks = [submit(needed_capabilities=[f"x-{number}"]) for number in range(4)]
        fleet = FleetState.now()
        told = [fleet.explain(task) for task in tasks]
        assert [waiting["reason"] for waiting in told] == ["all_busy"] * 2 + ["in_line"] * 2
        assert [waiting["ahead"] for waiting in told] == [0, 0, None, None]


@given(
    skills=st.lists(SKILLS, min_size=1, max_size=4),
    queue=st.lists(st.tuples(st.integers(0, 3), SKILLS), max_size=12),
    start=st.integers(0, 12),
)
def test_a_page_counts_as_walking_the_queue_task_by_task_does(
    skills: list[frozenset[str]], queue: list[tuple[int, frozenset[str]]], start: int
) -> None:
    tasks = queued(queue)

    def before(lane: int, needs: Any, number: int, most: int) -> int:
        return sum(t.priority == lane and t.needs in needs and t.number < number for t in tasks)

    expected = []
    for place, task in enumerate(tasks):
        able = [s for s in skills if needs_of(task.needs).capabilities <= s]
        others = [needs_of(other.needs).capabilities for other in tasks[:place]]
        ahead = sum(any(needs <= s for s in able) for needs in others)
        expected.append(ahead if able else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting_module, "count_before", before)
        fleet = FleetState(Counter(skills), [], by_lane(tasks))
        assert [fleet.explain(task)["ahead"] for task in tasks[start:]] == expected[start:]


@given(
    free=SKILLS,
    queue=st.lists(st.tuples(st.integers(0, 3), SKILLS), max_size=8),
)
def test_who_is_told_to_be_next_is_whom_the_dispatcher_takes(
    free: frozenset[str], queue: list[tuple[int, frozenset[str]]]
) -> None:
    """With one agent free, the task with nobody ahead is the one."""
    tasks = queued(queue)
    counts = by_lane(tasks)

    def heads(lane: int, needs: Any, limit: int) -> list[QueuedTask]:
        those = [t for t in tasks if t.priority == lane and t.needs in needs]
        return [QueuedTask(t.number, "", t.needs) for t in those]

    def before(lane: int, needs: Any, number: int, most: int) -> int:
        return sum(t.priority == lane and t.needs in needs and t.number < number for t in tasks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting_module, "count_before", before)
        fleet = FleetState({free: 1}, [free], counts)
        next_ones = [t.number for t in tasks if fleet.explain(t)["ahead"] == 0]
    taken = match([Idle("a", "socket", free)], [(lane, list(n)) for lane, n in counts], heads)
    assert next_ones == [queued.number for _, queued in taken]
