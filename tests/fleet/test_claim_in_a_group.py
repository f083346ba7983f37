"""A claim sees what earlier commands of its group did, which is not in the database yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentcom.work import Command
from agentcom.writer import writer
from fleet.dispatcher import Claim, Idle
from fleet.holds import PlaceHold
from tasks.models import Priority, Status, Task
from tasks.queue import Complete, NewTask, Reclaim, Submit
from tasks.steering import Cancel, SetPriority
from tests.tasks.play import BOSS, CONNECTION, agent, assigned, counted, do, recounted, submit

pytestmark = pytest.mark.django_db

ABLE = frozenset({"gpu"})


def new(description: str, **fields: Any) -> Submit:
    return Submit([NewTask(description, **fields)], submitted_by="boss")


def claimed(*commands: Command, idle: tuple[str, ...] = ("a-1",)) -> list[str]:
    """What a claim at the end of the group assigns, in this order."""
    agents = [Idle(agent_id, CONNECTION, ABLE) for agent_id in idle]
    *_, last = writer.commit([*commands, Claim(agents)])
    assert counted() == recounted()
    return [frame["description"] for _, frame in last.tasks]


def test_a_task_of_the_group_is_assigned_and_written_once() -> None:
    agent()
    assert claimed(new("now")) == ["now"]
    assert Task.objects.get().status == Status.ASSIGNED


def test_stored_tasks_and_those_of_the_group_are_one_queue() -> None:
    for name in ("a-1", "a-2", "a-3"):
        agent(name)
    submit("first")
    submit("urgent", priority=Priority.URGENT)
    group = [new("second"), new("most urgent", priority=Priority.URGENT)]
    assert claimed(*group, idle=("a-1", "a-2", "a-3")) == ["urgent", "most urgent", "first"]


def steps() -> dict[str, Callable[[Task], Command]]:
    return {
        "cancelled": lambda task: Cancel(task.task_id, BOSS),
        "moved back": lambda task: SetPriority(task.task_id, BOSS, Priority.LOW),
    }


@pytest.mark.parametrize("step", steps())
def test_a_task_that_the_group_takes_from_its_place_gives_way(step: str) -> None:
    agent()
    first, _ = submit("first"), submit("second")
    assert claimed(steps()[step](first)) == ["second"]


def test_a_task_that_the_group_moves_forward_is_taken_there() -> None:
    agent()
    _, second = submit("first"), submit("second")
    assert claimed(SetPriority(second.task_id, BOSS, Priority.URGENT)) == ["second"]


def test_a_task_that_the_group_takes_back_is_at_its_old_place() -> None:
    held = assigned(description="held")
    agent("a-2")
    submit("later")
    back = Reclaim(held.task_id, "a-1", held.generation)
    assert claimed(back, idle=("a-2",)) == ["held"]


def test_an_agent_that_the_group_frees_gets_a_task_of_the_group() -> None:
    held = assigned()
    done = Complete(held.task_id, "a-1", held.generation, {})
    assert claimed(new("next"), done) == ["next"]


def test_needs_of_the_group_are_met_by_agents_that_have_them_only() -> None:
    agent()
    tasks = [
        new("too much", needed_capabilities=["gpu", "tpu"]),
        new("for another", assign_to="a-2"),
        new("enough", needed_capabilities=["gpu"]),
    ]
    assert claimed(*tasks) == ["enough"]


def test_a_hold_of_the_group_is_not_crossed() -> None:
    agent()
    submit("before")
    assert claimed(new("now"), PlaceHold(BOSS, "hub", "", "stop")) == []


def test_a_second_claim_of_the_group_takes_what_the_first_left() -> None:
    agent("a-1")
    agent("a-2")
    submit("first")
    idle = [Idle("a-1", CONNECTION, ABLE)]
    assert claimed(new("second"), Claim(idle), idle=("a-2",)) == ["second"]


def test_however_many_the_group_takes_the_next_one_is_found() -> None:
    agent()
    tasks = [submit(f"task {number}") for number in range(5)]
    cancelled = [Cancel(task.task_id, BOSS) for task in tasks[:4]]
    assert claimed(*cancelled) == ["task 4"]
    assert do(Claim([Idle("a-1", CONNECTION, ABLE)])).tasks == []
