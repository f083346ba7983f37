"""The journal's tail: all events, in order, once, whichever way the news of them comes."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest

from agentcom import journal as journal_module
from agentcom.errors import Unavailable
from agentcom.journal import Journal
from agentcom.kinds import check_event
from agentcom.models import Event

NOW = datetime(2026, 5, 4, tzinfo=UTC)


def events(first: int, last: int) -> list[Event]:
    seqs = range(first, last + 1)
    return [Event(seq=seq, kind="task_unblocked", at=NOW, data={}) for seq in seqs]


class Database:
    """The table's end, and how often it was read."""

    def __init__(self) -> None:
        self.end = 0
        self.reads = 0
        self.away = False

    def last_seq(self) -> int:
        if self.away:
            raise Unavailable
        return self.end

    def read_after(self, seq: int) -> list[Event]:
        if self.away:
            raise Unavailable
        self.reads += 1
        return events(seq + 1, min(self.end, seq + journal_module.PAGE))


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    database = Database()
    monkeypatch.setattr(journal_module, "last_seq", database.last_seq)
    monkeypatch.setattr(journal_module, "read_after", database.read_after)
    return database


@pytest.fixture
async def tail(database: Database) -> Any:
    """A running journal and the numbers that it delivered."""
    journal = Journal()
    delivered: list[int] = []
    journal.listen(lambda events: delivered.extend(event.seq for event in events))
    await journal.start()
    running = asyncio.create_task(journal.run())
    yield journal, delivered
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_own_events_come_straight_from_memory(database: Database, tail: Any) -> None:
    journal, delivered = tail
    await asyncio.sleep(0)
    journal.committed(events(1, 2))
    journal.committed(events(3, 3))
    await journal.reached(3)
    assert delivered == [1, 2, 3]


async def test_a_gap_is_read_from_the_database(database: Database, tail: Any) -> None:
    journal, delivered = tail
    database.end = 5
    journal.committed(events(4, 5))  # 1 to 3 are another process'
    await journal.reached(5)
    assert delivered == [1, 2, 3, 4, 5]


async def test_what_another_process_commits_is_found_without_any_hint(
    database: Database, tail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, delivered = tail
    found = asyncio.Event()
    journal.listen(lambda events: found.set())
    database.end = 3
    async with asyncio.timeout(10):
        await found.wait()
    assert delivered == [1, 2, 3]


async def test_events_that_arrive_while_the_database_is_read_come_once(
    database: Database, tail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, delivered = tail
    journal._reading = True
    database.end = 2
    journal._offer(events(1, 2))
    journal._reading = False
    await journal.reached(2)
    assert delivered == [1, 2]


async def test_more_events_than_a_page_all_come(
    database: Database, tail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "PAGE", 3)
    journal, delivered = tail
    database.end = 10
    await journal.reached(10)
    assert delivered == list(range(1, 11))


async def test_the_database_may_be_away_for_a_while(database: Database, tail: Any) -> None:
    journal, delivered = tail
    database.away = True
    journal._wanted.set()
    await asyncio.sleep(0.05)
    database.away, database.end = False, 2
    await journal.reached(2)
    assert delivered == [1, 2]


async def test_a_listener_that_fails_does_not_keep_the_others_from_listening(
    database: Database,
) -> None:
    journal, delivered = Journal(), []

    def broken(events: list[Event]) -> None:
        raise RuntimeError("broken")

    journal.listen(broken)
    journal.listen(lambda events: delivered.extend(events))
    await journal.start()
    journal._offer(events(1, 1))
    assert len(delivered) == 1


def test_an_event_carries_exactly_what_its_kind_declares() -> None:
    check_event("task_blocked", {"reason": "waits for a person"})
    for kind, data in [
        ("task_blocked", {}),
        ("task_blocked", {"reason": "", "more": 1}),
        ("task_exploded", {}),
    ]:
        with pytest.raises(ValueError, match="does not carry"):
            check_event(kind, data)
