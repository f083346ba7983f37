"""What follows from the table of moves."""

from __future__ import annotations

import pytest

from agentcom.kinds import kinds
from counters.hours import COUNTERS
from counters.lanes import STEPS
from fleet.dispatcher import FREED, QUEUED
from fleet.models import AgentState
from tasks.models import Status
from tasks.moves import MOVES, By


def test_every_event_of_a_task_is_a_move():
    assert {kind for kind in kinds() if kind.startswith("task_")} == MOVES.keys()


# The kinds of the first version, for which each part had a list of its own.
FIRST = {
    *("task_submitted", "task_assigned", "task_accepted", "task_progress", "task_blocked"),
    *("task_unblocked", "task_complete", "task_failed", "task_retried", "task_rejected"),
    *("task_reclaimed", "task_dead_letter"),
}


def test_what_wakes_the_dispatcher():
    freed = {"task_complete", "task_failed", "task_rejected", "task_reclaimed"}
    queued = {"task_submitted", "task_retried", "task_rejected", "task_reclaimed"}
    assert freed == FREED & FIRST
    assert queued == QUEUED & FIRST


def test_what_fills_and_drains_a_lane():
    filling = dict.fromkeys(QUEUED & FIRST, "added")
    steps = {kind: step for kind, step in STEPS.items() if kind in FIRST}
    assert steps == {**filling, "task_assigned": "drained"}


def test_what_counts_for_an_agent():
    counters = {kind: counter for kind, counter in COUNTERS.items() if kind in FIRST}
    assert counters == {"task_complete": "completed", "task_failed": "failed"}


@pytest.mark.parametrize("kind", MOVES)
def test_a_move_is_whole(kind: str):
    move = MOVES[kind]
    assert move.step
    assert move.did or move.was
    assert move.agent is None or move.agent in AgentState.values
    if isinstance(move.came_from, By):
        assert move.came_from.field in move.carries
    if move.came_from is not None:
        assert move.to is not None


def test_where_a_retried_task_came_from():
    assert MOVES["task_retried"].start({"by_hand": True}) == Status.DEAD_LETTER
    assert MOVES["task_retried"].start({"by_hand": False}) == Status.ASSIGNED
    assert MOVES["task_submitted"].start({}) is None
