"""What is counted of the journal, and under which of the fixed labels."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentcom.kinds import kinds
from agentcom.models import Event
from metrics.counted import CAUSES, Followed, counted
from tasks.queue import Why

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = NOW + timedelta(milliseconds=1)  # of another commit


class Entries:
    """Makes entries with ascending numbers, and follows them."""

    def __init__(self) -> None:
        self.followed = Followed()
        self._seqs = itertools.count(7)

    def make(self, kind: str, task_id: str = "task-1", at: datetime = NOW, **data: Any) -> Event:
        return Event(seq=next(self._seqs), kind=kind, task_id=task_id, at=at, data=data)

    def follow(self, *events: Event) -> None:
        self.followed.on_events(list(events))


@pytest.fixture
def entries() -> Entries:
    return Entries()


def value(name: str, **labels: str) -> float:
    found = counted.get_sample_value(name, labels)
    assert found is not None
    return found


def causes() -> dict[str, float]:
    return {cause: value("agentcom_dead_letters_total", cause=cause) for cause in CAUSES}


def new_causes(before: dict[str, float]) -> dict[str, float]:
    return {cause: n - before[cause] for cause, n in causes().items() if n != before[cause]}


def test_each_kind_has_a_series_from_the_start_and_a_new_one_is_other(entries: Entries):
    before = {kind: value("agentcom_events_total", kind=kind) for kind in (*kinds(), "other")}
    entries.follow(entries.make("hold_placed"), entries.make("of_a_later_version"))
    for kind in before:
        grown = value("agentcom_events_total", kind=kind) - before[kind]
        assert grown == (kind in ("hold_placed", "other")), kind


def test_a_duration_is_in_its_bucket(entries: Entries):
    name = "agentcom_task_duration_seconds"
    places = [("2.0", 0), ("3.0", 1), ("+Inf", 1)]
    before = {le: value(f"{name}_bucket", le=le) for le, _ in places}
    seconds = value(f"{name}_sum")
    entries.follow(entries.make("task_complete", duration_ms=2_501))
    for le, grown in places:
        assert value(f"{name}_bucket", le=le) - before[le] == grown
    assert value(f"{name}_sum") - seconds == pytest.approx(2.501)


@pytest.mark.parametrize(
    ("kind", "data", "cause"),
    [
        ("task_failed", {"error": "no"}, "failed"),
        ("task_rejected", {"reason": "no"}, "rejected"),
        *(("task_reclaimed", {"why": why}, why) for why in Why if why != Why.OVERDUE),
        ("task_reclaimed", {"why": "overdue"}, "expired"),
        ("task_reclaimed", {"why": "of a later version"}, "other"),
        ("task_submitted", {}, "expired"),
    ],
)
def test_the_entry_before_says_why_a_task_is_a_dead_letter(
    entries: Entries, kind: str, data: dict[str, Any], cause: str
):
    before = causes()
    entries.follow(entries.make(kind, **data), entries.make("task_dead_letter"))
    assert new_causes(before) == {cause: 1}
    entries.follow(entries.make(kind, **data))  # and in two batches
    entries.follow(entries.make("task_dead_letter"))
    assert new_causes(before) == {cause: 2}


@pytest.mark.parametrize(
    "other", [{"task_id": "task-2"}, {"at": LATER}], ids=["another task", "another commit"]
)
def test_an_entry_of_something_else_says_nothing(entries: Entries, other: dict[str, Any]):
    before = causes()
    entries.follow(entries.make("task_failed", error="no"))
    entries.follow(entries.make("task_dead_letter", **other))
    assert new_causes(before) == {"expired": 1}


def test_what_was_before_the_process_began_is_not_known(entries: Entries):
    before = causes()
    entries.follow(entries.make("task_dead_letter"))
    assert new_causes(before) == {"other": 1}


def test_there_are_few_causes():
    assert len(CAUSES) <= 20


def test_the_silence_ends_with_each_entry(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr("metrics.counted.steady", lambda: now[0])
    entries = Entries()
    now[0] += 40
    assert entries.followed.silence_s == 40
    entries.follow(entries.make("hold_placed"))
    assert entries.followed.silence_s == 0


def test_the_lag_is_the_age_of_what_was_delivered_while_there_is_more(
    entries: Entries, monkeypatch: pytest.MonkeyPatch
):
    class Tail:
        seq, newest = 7, 7

    class Later:
        def now(self) -> datetime:
            return NOW + timedelta(seconds=3)

    tail = Tail()
    monkeypatch.setattr("metrics.counted.journal", tail)
    monkeypatch.setattr("metrics.counted.clock", Later())
    entries.follow(entries.make("hold_placed"))
    assert entries.followed.lag_s == 0
    tail.newest = 9
    assert entries.followed.lag_s == 3
