"""What the hub concludes from what agents say, and from their silence."""

from __future__ import annotations

import pytest

from agentcom.errors import Refused
from fleet.models import Agent
from fleet.presence import Said
from fleet.protocol import Message
from tasks.models import Task
from tasks.queue import Complete, ConfirmCancel, OnTask, Reclaim, Why
from tasks.steering import Cancel
from tests.tasks.play import BOSS, again, assigned, do

pytestmark = pytest.mark.django_db


def say(verb: OnTask) -> object:
    try:
        return do(Said(verb, Message("task_complete", {})))
    except Refused as refused:
        return refused.code


def lose(task: Task, why: Why, agent_id: str = "a-1") -> None:
    do(Reclaim(task.task_id, agent_id, task.generation, why, why, lost=True))


def the_agent() -> tuple[str, str | None, int]:
    agent = Agent.objects.get(agent_id="a-1")
    return agent.fsm_state, agent.current_task_id, agent.unanswered


def test_an_unresponsive_agent_is_free_once_it_repeats_a_completion():
    """Its ack was lost. The repetition is acked, and no message is too late."""
    done = assigned()
    complete = Complete(done.task_id, "a-1", done.generation)
    say(complete)
    for _ in range(2):
        lose(assigned(max_reclaims=1), Why.NOT_ACCEPTED)
    assert the_agent() == ("unresponsive", None, 2)

    assert say(complete) is None

    assert the_agent() == ("idle", None, 0)


def test_an_agent_that_has_stopped_when_asked_has_answered():
    lose(task := assigned(max_reclaims=1), Why.NOT_ACCEPTED)
    assert again(task).status == "dead_letter"
    task = assigned()
    do(Cancel(task.task_id, BOSS))

    say(ConfirmCancel(task.task_id, "a-1", task.generation))

    assert the_agent() == ("idle", None, 0)


def test_an_agent_that_ran_too_long_must_stop_though_its_task_was_to_be_cancelled():
    task = assigned()
    do(Cancel(task.task_id, BOSS))

    lose(task, Why.TOO_LONG)

    assert again(task).status == "cancelled"
    assert the_agent() == ("stopping", task.task_id, 0)
