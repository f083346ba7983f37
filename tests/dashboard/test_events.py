"""What the dashboards are told of a journal entry."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from agentcom.journal import KINDS
from agentcom.models import Event
from dashboard.events import TOLD, to_wire
from tasks.queue import Complete
from tests.tasks.play import assigned, do

NOW = datetime(2026, 5, 4, tzinfo=UTC)
COMMON = {"type", "task_id", "event", "agent_id", "timestamp"}


def entry(kind: str, **data: Any) -> Event:
    return Event(seq=1, kind=kind, task_id="task-1", agent_id="a-1", at=NOW, data=data)


def test_it_tells_nothing_of_a_task_that_the_journal_does_not_keep() -> None:
    kinds = {kind: fields for kind, fields in KINDS.items() if kind.startswith("task_")}
    assert TOLD.keys() == kinds.keys()
    for kind, fields in kinds.items():
        assert set(TOLD[kind]) <= fields


@pytest.mark.parametrize("kind", TOLD)
def test_an_entry_of_an_older_version_is_told_without_what_it_lacks(kind: str) -> None:
    told = to_wire(entry(kind))
    assert told is not None
    assert told.keys() == COMMON | set(TOLD[kind])
    assert told["timestamp"] == NOW.timestamp() * 1000


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
    assert to_wire(entry("agent_forgotten")) == {"type": "agent_forgotten", "agent_id": "a-1"}


def test_tokens_are_no_business_of_the_dashboards() -> None:
    for kind in ("token_created", "token_revoked"):
        assert to_wire(entry(kind)) is None
