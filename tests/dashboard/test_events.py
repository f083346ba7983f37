"""What the dashboards are told of a journal entry."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from agentcom.models import Event
from dashboard.events import to_wire
from tasks.moves import MOVES
from tasks.queue import Complete
from tests.tasks.play import assigned, do

NOW = datetime(2026, 5, 4, tzinfo=UTC)
COMMON = {"type", "task_id", "event", "agent_id", "actor", "timestamp"}


def entry(kind: str, **data: Any) -> Event:
    return Event(seq=1, kind=kind, task_id="task-1", agent_id="a-1", at=NOW, data=data)


@pytest.mark.parametrize("kind", MOVES)
def test_an_entry_of_an_older_version_is_told_without_what_it_lacks(kind: str) -> None:
    told = to_wire(entry(kind))
    assert told is not None
    assert told.keys() == COMMON | set(MOVES[kind].shows)
    assert told["timestamp"] == NOW.timestamp() * 1000
    assert told["actor"] is None


@pytest.mark.parametrize(("kind", "name"), [("task_failed", "error"), ("task_blocked", "reason")])
def test_long_texts_are_cut(kind: str, name: str) -> None:
    told = to_wire(entry(kind, **{name: "x" * 16_384}))
    assert told is not None
    assert len(told[name]) == 301


@pytest.mark.django_db
def test_a_tasks_entries_name_it_and_say_what_it_took() -> None:
    task = assigned(description="y" * 121)
    do(Complete(task.task_id, "a-1", task.generation, {}, tokens_used=7))
    submitted, taken, done = (to_wire(event) or {} for event in Event.objects.order_by("seq"))
    assert submitted["title"] == taken["title"] == "y" * 120
    assert done["tokens_used"] == 7
    assert done["duration_ms"] >= 0


def test_a_forgotten_agent_is_named() -> None:
    told = to_wire(entry("agent_forgotten"))
    assert told == {"type": "agent_forgotten", "agent_id": "a-1", "actor": None}


def test_tokens_are_no_business_of_the_dashboards() -> None:
    for kind in ("token_created", "token_revoked"):
        assert to_wire(entry(kind)) is None
