"""The state of the fleet as this process shows it: followed from the journal, without a query.

1. `run` reads everything once, when it is first asked for, and follows the journal from there.
2. Once a second it reads what no entry says: when the worker last reported, and what time it is.
3. A part that an entry does not bring up to date, or that runs out of rows, is read again then.
4. Now and then all of it is read again and compared. It should be equal; if not, that is logged,
   and what was read counts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings

from agentcom.clock import steady
from agentcom.database import NO_ANSWER, Reader, consistent_read, millis, now
from agentcom.errors import Unavailable
from agentcom.journal import journal
from agentcom.models import Event
from agentcom.waits import event_or_timeout
from dashboard.health import read_health, with_database_silence
from dashboard.state.part import Part
from dashboard.state.whole import PARTS, Data, Patches, Snapshot, State, read
from dashboard.state.windows import View, Wanted

logger = logging.getLogger(__name__)

PULSE_S = 1.0
FRESH_S = 1.5  # an older pulse is read again before anything is shown
PATIENCE_S = 5.0  # without a pulse for so long, viewers learn that what they see is out of date
GAP_S = 0.1  # between two reads of parts
CHECK_EVERY_S = 600.0
JUMP = timedelta(seconds=2)  # of the database's clock, against the time that has passed


@dataclass(frozen=True, slots=True)
class Pulse:
    """What the database said when it last answered."""

    now: datetime
    health: Data
    at: float  # of `steady`, s
    reported_at: datetime | None = None  # by a worker, the last time

    @property
    def age_s(self) -> float:
        return steady() - self.at


@dataclass(frozen=True, slots=True)
class Figures:
    """The state without any rows: however large the fleet is, they cost the same."""

    pulse: Pulse
    sections: Data
    tasks: Mapping[tuple[str, int], int]  # how many there are, by status and lane


@dataclass(frozen=True, slots=True)
class Reading:
    pulse: Pulse
    parts: dict[type[Part], Part]


def read_all(kinds: Sequence[type[Part]] = PARTS) -> Reading:
    """The pulse and these parts, at one moment. Runs in a reader's thread."""
    at = steady()
    with consistent_read():
        moment = now()
        health, reported_at = read_health(moment)
        return Reading(Pulse(moment, health, at, reported_at), read(moment, kinds))


class Live:
    """Lives on the event loop; follows the journal."""

    def __init__(self, read_all: Callable[[Sequence[type[Part]]], Reading] = read_all) -> None:
        self._read_all = read_all
        self._reader = Reader("state")
        self._state = State()
        self._patches = Patches()
        self._pulse: Pulse | None = None
        self._fault: Unavailable | None = None  # of the last read
        self._is_used = asyncio.Event()
        self._told_of_reads: list[Callable[[], None]] = []
        # how many changes of the light entries have reported, and how many of them the pulse knows
        self._reported = self._known = 0
        self._wanted = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._since: list[Event] = []  # the events since that reading began
        self._check_at = 0.0
        self._has_jumped = False  # the clock, so that everything has to be read again
        self._last: tuple[Pulse, Snapshot] | None = None

    # --- What it shows

    async def current(self) -> Snapshot:
        """Includes everything that this process knew to be committed when it was asked.

        Raises `Unavailable` when the database does not answer.
        """
        self._is_used.set()
        wanted = journal.newest
        while not self.is_ready or journal.seq < wanted:
            if self._needs_reading:
                await self._read_now()
            else:
                await _in_time(journal.reached(max(wanted, self._state.newest)))
        return self.snapshot()

    @property
    def is_ready(self) -> bool:
        """Whether `snapshot` is up to date."""
        return not self._needs_reading and self._state.newest <= journal.seq

    @property
    def can_show(self) -> bool:
        """Whether there is something to show. It may be out of date; then its health says so."""
        if self._pulse is None or not self._state.is_known:
            return False
        return self._state.newest <= journal.seq

    @property
    def is_silent(self) -> bool:
        """Whether the database has not answered lately."""
        return self._fault is not None or (
            self._pulse is not None and self._pulse.age_s > PATIENCE_S
        )

    @property
    def health(self) -> Data:
        assert self._pulse is not None
        health = self._pulse.health
        return with_database_silence(health, millis(self._pulse.now)) if self.is_silent else health

    def snapshot(self) -> Snapshot:
        """For who has seen that it `can_show` one. The same one until something changes."""
        assert self._pulse is not None
        pulse, last = self._last or (None, None)
        if last is None or pulse is not self._pulse or last.seq != journal.seq:
            self._state.health = self.health
            last = self._state.snapshot(journal.seq, self._now())
            self._last = self._pulse, last
        return last

    def figures(self) -> Figures:
        """For who has seen that it `can_show` them."""
        assert self._pulse is not None
        self._state.health = self.health
        sections = self._state.sections(journal.seq, self._now())
        return Figures(self._pulse, sections, self._state.tasks())

    def window(self, wanted: Wanted, must: bool = False) -> View | None:
        """For who has seen that it `can_show` it; None: not yet, see `Orders`."""
        return self._state.window(wanted, must)

    def take_patch(self) -> Data:
        """What has changed since the last call. For who has seen that it `can_show` it."""
        self._state.health = self.health
        return self._patches.take(self._state, journal.seq, self._now())

    def _now(self) -> datetime:
        assert self._pulse is not None
        return self._pulse.now + timedelta(seconds=self._pulse.age_s)

    @property
    def knows_health(self) -> bool:
        """Whether no event has reported a change of health that is not read yet."""
        return self._known == self._reported

    # --- How it stays up to date

    def use(self) -> None:
        """Begin to read, if nobody has asked before."""
        self._is_used.set()

    def on_read(self, tell: Callable[[], None]) -> None:
        """Call `tell` whenever the database was read, or did not answer."""
        self._told_of_reads.append(tell)

    def on_events(self, events: list[Event]) -> None:
        if self._reading is not None:
            self._since += events
        self._reported += sum(event.kind == "health_changed" for event in events)
        if not self._state.parts:
            return
        self._state.follow(events)
        if not self.knows_health or self._state.outdated():
            self._wanted.set()

    async def run(self) -> None:
        """Read what is needed until cancelled."""
        await self._is_used.wait()
        while True:
            try:
                await self._read_now()
            except Unavailable as error:
                logger.warning("The state of the fleet cannot be read: %s", error.detail)
            await asyncio.sleep(GAP_S)
            await event_or_timeout(self._wanted, PULSE_S - GAP_S)

    @property
    def _needs_reading(self) -> bool:
        if self._pulse is None or self._pulse.age_s > FRESH_S or self._fault is not None:
            return True
        return not self.knows_health or not self._state.is_known

    async def _read_now(self) -> None:
        """One reading at a time serves all who wait."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(_ended)
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        is_check = time.monotonic() >= self._check_at
        kinds = list(PARTS) if is_check or self._has_jumped else self._state.outdated()
        self._since, reported = [], self._reported
        try:
            reading = await self._reader.run(self._read_all, kinds)
        except Unavailable as error:
            self._fault = error
            raise
        finally:
            self._reading = None
            for tell in self._told_of_reads:
                tell()
        has_jumped, self._has_jumped = self._has_jumped, self._jumps(reading.pulse)
        self._fault, self._pulse, self._known = None, reading.pulse, reported
        for part in reading.parts.values():
            for event in self._since:
                part.follow(event)
        if is_check and not has_jumped:
            self._compare(reading)
            self._check_at = time.monotonic() + CHECK_EVERY_S
        self._state.replace(reading.parts)
        if self._has_jumped:
            self._wanted.set()

    def _jumps(self, pulse: Pulse) -> bool:
        """Whether the database's clock was set: other minutes and hours are recent then."""
        return self._pulse is not None and abs(pulse.now - self._now()) > JUMP

    def _compare(self, reading: Reading) -> None:
        """Say so if the events did not lead to what is in the database."""
        fresh = State(reading.parts, reading.pulse.health)
        if not (self._state.is_known and fresh.is_known and fresh.newest <= journal.seq):
            return  # there is nothing to compare, or it is not of the same moment
        self._state.health = reading.pulse.health
        seq, moment = journal.seq, self._now()
        followed, read = (state.snapshot(seq, moment) for state in (self._state, fresh))
        wrong = [n for n in read.sections if read.sections[n] != followed.sections[n]]
        wrong += [n for n in read.lists if read.lists[n] != followed.lists[n]]
        if wrong:
            logger.error("What was followed from the journal differs in: %s", ", ".join(wrong))


async def _in_time(waiting: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(settings.AGENTCOM_COMMIT_TIMEOUT_S):
            await waiting
    except TimeoutError:
        raise Unavailable(NO_ANSWER) from None


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # callers that wait get it; asyncio must not log it if none does


live = Live()
