"""When the state is read, and what is shown meanwhile. The database is played by the test."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentcom.clock import steady
from agentcom.errors import Unavailable
from agentcom.models import Event
from dashboard import live as live_module
from dashboard.live import Live, Pulse, Reading
from dashboard.state.agents import Agents
from dashboard.state.holds import Holds
from dashboard.state.part import Part
from dashboard.state.queue import Queue
from dashboard.state.whole import PARTS

NOW = datetime(2026, 5, 4, tzinfo=UTC)
OK = {"status": "ok", "conditions": [], "details": []}


class Journal:
    def __init__(self) -> None:
        self.seq = self.newest = 0
        self.moved = asyncio.Event()

    async def reached(self, seq: int) -> None:
        while self.seq < seq:
            self.moved.clear()
            await self.moved.wait()


class Database:
    """Holds and the light, and which parts were read."""

    def __init__(self) -> None:
        self.seq = 0
        self.holds: dict[str, Any] = {}
        self.health: dict[str, Any] = OK
        self.reads: list[list[type[Part]]] = []
        self.answers = True
        self.now, self.started = NOW, steady()
        self.begun, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def read(self, kinds: Sequence[type[Part]]) -> Reading:
        self.reads.append(list(kinds))
        if not self.answers:
            raise Unavailable
        parts = {kind: kind() for kind in kinds}
        for part in parts.values():
            part.seq = self.seq
        if Holds in parts:
            parts[Holds]._holds = dict(self.holds)  # type: ignore[attr-defined]
        passed = steady() - self.started
        reading = Reading(Pulse(self.now + timedelta(seconds=passed), self.health, steady()), parts)
        self.begun.set()
        self.gate.wait(10)
        return reading


class Stage:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.journal, self.database = Journal(), Database()
        monkeypatch.setattr(live_module, "journal", self.journal)
        self.live = Live(self.database.read)

    def commit(self, name: str) -> Event:
        """A hold is placed."""
        self.database.seq += 1
        hold = {"id": name, "placed_at": self.database.seq, "until": None}
        self.database.holds[name] = hold
        return Event(seq=self.database.seq, kind="hold_placed", at=NOW, data={"hold": hold})

    def deliver(self, *events: Event) -> None:
        self.journal.seq = self.journal.newest = events[-1].seq
        self.live.on_events(list(events))
        self.journal.moved.set()

    def event(self, kind: str, **data: Any) -> Event:
        self.database.seq += 1
        return Event(
            seq=self.database.seq, kind=kind, task_id="task-1", agent_id="a", at=NOW, data=data
        )

    async def holds(self) -> list[str]:
        return [hold["id"] for hold in (await self.live.current()).sections["holds"]]

    async def reading_begins(self) -> None:
        await asyncio.to_thread(self.database.begun.wait, 10)
        self.database.begun.clear()

    def shows(self) -> tuple[bool, bool]:
        """Whether there is something to show, and whether it is known to be out of date."""
        return self.live.can_show, self.live.is_silent


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


@pytest.fixture
async def running(stage: Stage) -> AsyncIterator[Stage]:
    task = asyncio.create_task(stage.live.run())
    yield stage
    task.cancel()


async def test_one_reading_serves_all_who_ask_at_once(stage: Stage) -> None:
    given = await asyncio.gather(*(stage.live.current() for _ in range(50)))
    assert stage.database.reads == [list(PARTS)]
    assert len({id(snapshot) for snapshot in given}) == 1


async def test_nothing_is_read_before_somebody_asks(running: Stage) -> None:
    running.deliver(running.commit("unseen"))
    await asyncio.sleep(0)
    assert running.database.reads == []
    assert await running.holds() == ["unseen"]


async def test_what_is_delivered_is_shown_at_once_and_without_reading(stage: Stage) -> None:
    assert await stage.holds() == []
    for name in "abc":
        stage.deliver(stage.commit(name))
        assert (await stage.holds())[0] == name
    assert len(stage.database.reads) == 1


async def test_what_happens_while_it_is_read_is_neither_lost_nor_applied_twice(
    stage: Stage,
) -> None:
    stage.database.gate.clear()
    asking = asyncio.create_task(stage.holds())
    before = stage.commit("before")
    await stage.reading_begins()
    stage.deliver(before, stage.commit("during"))
    stage.database.gate.set()
    assert sorted(await asking) == ["before", "during"]
    assert len(stage.database.reads) == 1


async def test_a_state_that_is_ahead_of_the_journal_waits_for_it(stage: Stage) -> None:
    """It was read after a commit that is not delivered yet: viewers would get its events again."""
    late = stage.commit("late")
    asking = asyncio.create_task(stage.holds())
    read = asyncio.Event()
    stage.live.on_read(read.set)
    await read.wait()
    assert not asking.done()
    assert not stage.live.can_show
    stage.deliver(late)
    assert await asking == ["late"]


async def test_an_entry_that_says_too_little_has_its_parts_read_again_first(stage: Stage) -> None:
    """One that a process of an older version has written."""
    await stage.live.current()
    stage.deliver(stage.event("task_submitted", status="queued"))
    assert not stage.live.can_show
    await stage.live.current()
    assert stage.database.reads[1:] == [[Queue]]


async def test_an_entry_about_rows_that_it_does_not_name_has_them_read_again(stage: Stage) -> None:
    await stage.live.current()
    stage.deliver(stage.event("times_reset", rows=3))
    await stage.live.current()
    assert stage.database.reads[1:] == [[Agents]]


async def test_the_light_is_read_again_when_an_event_says_that_it_changed(stage: Stage) -> None:
    await stage.live.current()
    stage.database.health = {**OK, "status": "warning"}
    stage.deliver(stage.event("health_changed", status="warning", conditions=[]))
    assert [stage.live.knows_health] == [False]
    assert (await stage.live.current()).sections["health"]["status"] == "warning"
    assert [stage.live.knows_health] == [True]
    assert stage.database.reads[1:] == [[]]


async def test_a_change_of_the_light_during_the_first_reading_is_read(stage: Stage) -> None:
    stage.database.gate.clear()
    asking = asyncio.create_task(stage.live.current())
    await stage.reading_begins()
    stage.database.health = {**OK, "status": "warning"}
    stage.deliver(stage.event("health_changed", status="warning", conditions=[]))
    stage.database.gate.set()
    assert (await asking).sections["health"]["status"] == "warning"


async def test_who_asks_while_the_light_is_read_again_gets_the_new_one(stage: Stage) -> None:
    await stage.live.current()
    stage.database.health = {**OK, "status": "warning"}
    stage.deliver(stage.event("health_changed", status="warning", conditions=[]))
    stage.database.gate.clear()
    stage.database.begun.clear()
    reading = asyncio.create_task(stage.live._read_now())
    await stage.reading_begins()
    asking = asyncio.create_task(stage.live.current())
    await asyncio.sleep(0.01)
    assert not asking.done()
    stage.database.gate.set()
    await reading
    assert (await asking).sections["health"]["status"] == "warning"


async def test_a_change_of_the_light_during_a_reading_has_it_read_once_more(stage: Stage) -> None:
    """Who asks then must not get what was read before the change."""
    await stage.live.current()
    stage.deliver(stage.event("health_changed", status="ok", conditions=[]))
    stage.database.gate.clear()
    stage.database.begun.clear()
    asking = asyncio.create_task(stage.live.current())
    await stage.reading_begins()
    stage.database.health = {**OK, "status": "critical"}
    stage.deliver(stage.event("health_changed", status="critical", conditions=[]))
    stage.database.gate.set()
    assert (await asking).sections["health"]["status"] == "critical"


async def test_what_no_event_tells_is_read_every_second(
    running: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "PULSE_S", live_module.GAP_S + 0.01)
    told = asyncio.Event()
    running.live.on_read(told.set)
    await running.live.current()
    running.database.health = {**OK, "status": "warning"}
    while running.live.health["status"] != "warning":
        told.clear()
        await told.wait()


async def test_a_database_that_does_not_answer_is_an_error_and_a_critical_light(
    stage: Stage,
) -> None:
    told = asyncio.Event()
    stage.live.on_read(told.set)
    await stage.live.current()
    stage.database.answers = False
    told.clear()
    stage.deliver(stage.event("health_changed", status="ok", conditions=[]))
    with pytest.raises(Unavailable):
        await stage.live.current()
    assert told.is_set()
    assert stage.shows() == (True, True)
    [detail] = stage.live.take_patch()["health"]["details"]
    assert detail["code"] == "database_silent"
    stage.database.answers = True
    assert (await stage.live.current()).sections["health"] == OK
    assert stage.shows() == (True, False)


async def test_a_database_that_hangs_is_silent_after_a_while(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.live.current()
    assert stage.shows() == (True, False)
    monkeypatch.setattr(live_module, "PATIENCE_S", 0.0)
    assert stage.shows() == (True, True)
    assert stage.live.health["status"] == "critical"


async def test_a_state_that_went_wrong_is_noticed_said_and_corrected(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.live.current()
    stage.deliver(stage.commit("right"))
    stage.database.holds.clear()  # without an entry
    monkeypatch.setattr(stage.live, "_check_at", 0.0)
    with caplog.at_level(logging.ERROR):
        await stage.live._read_now()
    assert "differs in: holds" in caplog.text
    assert await stage.holds() == []
    assert stage.database.reads[1:] == [list(PARTS)]


async def test_a_state_that_is_right_passes_the_check(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.live.current()
    stage.deliver(stage.commit("right"))
    monkeypatch.setattr(stage.live, "_check_at", 0.0)
    await stage.live._read_now()
    assert caplog.text == ""
    assert await stage.holds() == ["right"]


@pytest.mark.parametrize("hours", [-2, 2])
async def test_after_a_jump_of_the_clock_everything_is_read_again(
    stage: Stage, hours: int, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.live.current()
    stage.database.now += timedelta(hours=hours)
    await stage.live._read_now()
    assert stage.database.reads[1:] == [[]]
    await stage.live._read_now()
    await stage.live._read_now()
    assert stage.database.reads[2:] == [list(PARTS), []]
    assert caplog.text == ""


async def test_it_includes_what_was_committed_before_it_was_asked(stage: Stage) -> None:
    """Another process has committed it, and its entry is on its way."""
    await stage.live.current()
    event = stage.commit("elsewhere")
    stage.journal.newest = event.seq
    asking = asyncio.create_task(stage.holds())
    await asyncio.sleep(0.01)
    assert not asking.done()
    stage.deliver(event)
    assert await asking == ["elsewhere"]
