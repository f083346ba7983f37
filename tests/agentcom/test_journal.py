"""The journal's tail: all events, in order, once, whichever way the news of them comes."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest

from agentcom import hints
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

    def read_after(self, seq: int, complete: Any = None) -> list[Event]:
        if self.away:
            raise Unavailable
        self.reads += 1
        return events(seq + 1, min(self.end, seq + journal_module.PAGE))


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    database = Database()
    monkeypatch.setattr(journal_module, "last_seq", database.last_seq)
    monkeypatch.setattr(journal_module, "read_after", database.read_after)
    monkeypatch.setattr(journal_module, "journal_id", lambda: "ours")
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


class TestHints:
    """What another process tells, and what it may not be trusted with."""

    @pytest.fixture(autouse=True)
    def elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hints are packed by another process than the one that unpacks them."""
        monkeypatch.setattr(hints, "SENDER", "here")

    def hint(self, first: int, last: int, journal: str = "ours", **more: Any) -> dict[str, Any]:
        return {**hints.pack(journal, last, events(first, last)), "sender": "there", **more}

    async def hear(self, journal: Journal, *told: dict[str, Any]) -> None:
        for hint in told:
            journal._hear(hint)

    async def test_its_events_need_not_be_read(self, database: Database, tail: Any) -> None:
        journal, delivered = tail
        await asyncio.sleep(0)
        await self.hear(journal, self.hint(1, 2), self.hint(3, 3))
        journal.committed(events(4, 4))
        await journal.reached(4)
        assert delivered == [1, 2, 3, 4]
        assert database.reads == 0

    async def test_those_that_come_too_early_wait_for_the_others(
        self, database: Database, tail: Any
    ) -> None:
        journal, delivered = tail
        await self.hear(journal, self.hint(4, 5), self.hint(3, 3))
        assert delivered == []
        await self.hear(journal, self.hint(1, 2), self.hint(3, 3))
        await journal.reached(5)
        assert delivered == [1, 2, 3, 4, 5]
        assert database.reads == 0

    async def test_one_that_is_lost_is_read_and_nothing_comes_twice(
        self, database: Database, tail: Any
    ) -> None:
        journal, delivered = tail
        database.end = 4
        await self.hear(journal, self.hint(3, 6))  # 5 and 6 come only with it
        await journal.reached(6)
        assert delivered == [1, 2, 3, 4, 5, 6]
        assert database.reads == 1

    async def test_what_others_committed_between_two_commits_of_one_hint_is_not_lost(
        self, database: Database, tail: Any
    ) -> None:
        """The sender was still busy with the hint before."""
        journal, delivered = tail
        database.end = 4  # 3 and 4 are a third process', whose hint is late
        told = [*events(1, 2), *events(5, 6)]
        await self.hear(journal, {**hints.pack("ours", 6, told), "sender": "there"})
        assert delivered == [1, 2]
        await journal.reached(6)
        assert delivered == [1, 2, 3, 4, 5, 6]

    @pytest.mark.parametrize(
        "more", [{"journal": "another"}, {"sender": "here"}, {"journal": None, "entries": None}]
    )
    async def test_of_another_journal_or_ones_own_nothing_is_taken(
        self, database: Database, tail: Any, more: dict[str, Any]
    ) -> None:
        journal, delivered = tail
        database.end = 2
        await self.hear(journal, self.hint(1, 3, **more))
        await journal.reached(2)
        assert delivered == [1, 2]

    async def test_too_many_entries_are_not_sent(self) -> None:
        many = events(1, 10_000)
        assert hints.unpack("ours", {**hints.pack("ours", 10_000, many), "sender": "there"}) == []
        assert hints.pack("ours", 10_000, many)["seq"] == 10_000

    async def test_an_entry_arrives_as_it_was_committed(self) -> None:
        at = datetime(2026, 5, 4, 12, 0, 0, 123457, tzinfo=UTC)
        sent = Event(
            seq=7,
            kind="task_due",
            task_id="t",
            agent_id=None,
            at=at,
            data={"ä": [1.5]},
            actor="hub",
        )
        sent.facts = (7, 1_000, "a task")
        [[got]] = hints.unpack("ours", {**hints.pack("ours", 7, [sent]), "sender": "there"})
        for name in hints.COLUMNS:
            assert getattr(got, name) == getattr(sent, name)
        assert tuple(got.facts) == sent.facts
