"""What follows from the table of moves."""

from __future__ import annotations

import pytest

from agentcom.kinds import kinds
from agentcom.models import Event
from counters.hours import COUNTERS
from fleet.dispatcher import frees, offers
from fleet.models import AgentState
from tasks.models import Status
from tasks.moves import IN_ENTRY, MOVES


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
    data = {"status": "queued", "was": "assigned", "agent": "idle"}
    assert freed == {kind for kind in FIRST if frees(Event(kind=kind, data=data))}
    assert queued == {kind for kind in FIRST if offers(Event(kind=kind, data=data))}


def test_what_fills_and_drains_a_lane():
    data = {"status": "queued", "was": "assigned"}
    filling = {kind for kind in FIRST if MOVES[kind].end(data) == "queued"}
    draining = {kind for kind in FIRST if MOVES[kind].start(data) == "queued"}
    assert filling == {"task_submitted", "task_retried", "task_rejected", "task_reclaimed"}
    assert draining == {"task_assigned"}


def test_what_counts_for_an_agent():
    counters = {kind: counter for kind, counter in COUNTERS.items() if kind in FIRST}
    assert counters == {"task_complete": "completed", "task_failed": "failed"}


@pytest.mark.parametrize("kind", MOVES)
def test_a_move_is_whole(kind: str):
    move = MOVES[kind]
    assert move.step
    assert move.did or move.was
    told = {"was": move.came_from, "status": move.to, "agent": move.agent}
    assert {name for name, part in told.items() if part is IN_ENTRY} <= move.carries
    assert move.agent in (None, IN_ENTRY, *AgentState.values)
    if move.came_from is not None:
        assert move.to is not None


def test_where_a_retried_task_came_from_and_where_it_went():
    move, data = MOVES["task_retried"], {"was": "dead_letter", "status": "scheduled"}
    assert (move.start(data), move.end(data)) == (Status.DEAD_LETTER, Status.SCHEDULED)
    assert MOVES["task_submitted"].start({}) is None
