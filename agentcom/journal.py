"""The journal's tail: delivers every committed event, in order, to the listeners of this process.

Its own commits come from memory, those of other processes with their hints (`agentcom.hints`) over
the channel layer's group. What does not come that way is read from the database: soon after a gap
was noticed, and once a second in any case. So a hint may be lost, duplicated or late.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from channels.layers import InMemoryChannelLayer, get_channel_layer

from agentcom.database import Query, Reader, execute_all
from agentcom.errors import Unavailable
from agentcom.hints import Message, journal_id, pack, unpack
from agentcom.models import Event
from agentcom.waits import end_if_cancelled, event_or_timeout

logger = logging.getLogger(__name__)

GROUP = "journal"
POLL_S = 1.0
# Each process also receives its own hints. It sends them at least this often, so that a timeout
# means a dead connection: nothing else detects a server that crashed without closing it.
HINT_EVERY_S = 3.0
HINT_TIMEOUT_S = 10.0
PAGE = 2000  # events per read
# So long what is missing may be on its way; then it is read. While several processes commit, a read
# for each commit would cost as much as the commits. Nobody waits for it: dashboards flush less
# often, and the process that queues a task also assigns it.
READ_GAP_S = 0.025
EARLY_MAX = 1_000  # batches that wait for those before them

Listener = Callable[[list[Event]], None]


# run for each commit; this takes a third of the ORM's time
LAST_SEQ: Query = (f"SELECT MAX(seq) FROM {Event._meta.db_table}", ())


def last_seq() -> int:
    [[(seq,)]] = execute_all([LAST_SEQ])
    return seq or 0


def read_after(seq: int, complete: Callable[[list[Event]], None] | None = None) -> list[Event]:
    """`complete` adds what the listeners need besides the entries."""
    events = list(Event.objects.filter(seq__gt=seq).order_by("seq")[:PAGE])
    if complete is not None:
        complete(events)
    return events


class Journal:
    """The tail of one process, on its event loop; `committed` may be called from any thread."""

    def __init__(self) -> None:
        self.seq = 0  # delivered
        self.newest = 0  # known to exist
        self._listeners: list[Listener] = []
        self._complete: Callable[[list[Event]], None] | None = None
        self._reader = Reader("journal")
        self._reading = False
        self._early: dict[int, list[Event]] = {}  # batches by their first number
        self._unsent: list[Event] = []  # of this process, for the others
        self._id = ""
        self._sends_hints = False
        self._is_hinted = False  # that there are events; it did not say which
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted = asyncio.Event()
        self._hint_wanted = asyncio.Event()
        self._hints_lost = False
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def listen(self, listener: Listener) -> None:
        """Call `listener` on the event loop with each batch of new events, oldest first."""
        self._listeners.append(listener)

    def complete_with(self, complete: Callable[[list[Event]], None]) -> None:
        """Call this, in the reader's thread, for entries that another process has committed."""
        self._complete = complete

    async def start(self) -> None:
        """Begin at the current end; no listener hears of what was committed before.

        Raises `Unavailable` when the database does not answer.
        """
        self.seq = self.newest = await self._reader.run_in_any_case(last_seq)
        self._id = await self._reader.run_in_any_case(journal_id)
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Deliver events until cancelled."""
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._follow())
            # the layer in memory reaches no other process
            if not isinstance(get_channel_layer(), InMemoryChannelLayer):
                self._sends_hints = True
                parts.create_task(self._send_hints())
                parts.create_task(self._receive_hints())

    def committed(self, events: list[Event]) -> None:
        """Called by this process's Writer after each of its commits."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._committed_here, events)

    async def reached(self, seq: int) -> None:
        """Wait until all events up to `seq` have been delivered."""
        if self.seq < seq:
            self.newest = max(self.newest, seq)
            reached = asyncio.get_running_loop().create_future()
            self._waiting.append((seq, reached))
            self._wanted.set()
            await reached

    def _committed_here(self, events: list[Event]) -> None:
        if self._sends_hints:
            self._unsent += events
            self._hint_wanted.set()
        self._offer(events)

    def _offer(self, events: list[Event]) -> None:
        """Deliver them, unless some before them are missing."""
        if events[-1].seq <= self.seq:
            return
        self.newest = max(self.newest, events[-1].seq)
        if len(self._early) < EARLY_MAX:
            self._early[events[0].seq] = events
        if not self._reading:
            self._deliver_early()
        if self._lacks_events:
            self._wanted.set()

    @property
    def _lacks_events(self) -> bool:
        return self._is_hinted or self.seq < self.newest

    def _deliver_early(self) -> None:
        """Those that nothing is missing before any more."""
        while events := self._early.pop(self.seq + 1, None):
            self._deliver(events)
        if self._early and min(self._early) <= self.seq:
            self._drop_delivered()

    def _drop_delivered(self) -> None:
        """After a read: of batches that are partly known only the rest counts."""
        rests = ([e for e in events if e.seq > self.seq] for events in self._early.values())
        self._early = {events[0].seq: events for events in rests if events}
        if self.seq + 1 in self._early:
            self._deliver_early()

    def _deliver(self, events: list[Event]) -> None:
        self.seq = events[-1].seq
        self.newest = max(self.newest, self.seq)
        for listener in self._listeners:
            try:
                listener(events)
            except Exception:
                logger.exception("A listener of the journal failed; the others continue")
        for seq, reached in self._waiting:
            if seq <= self.seq and not reached.done():
                reached.set_result(None)
        self._waiting = [(seq, reached) for seq, reached in self._waiting if not reached.done()]

    async def _follow(self) -> None:
        while True:
            if await event_or_timeout(self._wanted, POLL_S):
                await asyncio.sleep(READ_GAP_S)
                if not self._lacks_events:
                    continue
            self._reading, self._is_hinted = True, False
            try:
                await self._catch_up()
            except Unavailable:
                logger.warning("The journal cannot be read; trying again")
                await asyncio.sleep(POLL_S)
                self._wanted.set()
            finally:
                self._reading = False
            self._deliver_early()

    async def _catch_up(self) -> None:
        while True:
            events = await self._reader.run(read_after, self.seq, self._complete)
            if events:
                self._deliver(events)
            if len(events) < PAGE:
                return

    async def _send_hints(self) -> None:
        layer = get_channel_layer()
        while True:
            end_if_cancelled()
            await event_or_timeout(self._hint_wanted, HINT_EVERY_S)
            try:
                async with asyncio.timeout(HINT_TIMEOUT_S):
                    await layer.group_send(GROUP, self._hint())
            except Exception:  # whatever the layer's client raises when its server is unavailable
                self._warn_no_hints("No hint could be sent; processes poll until hints come again")
                await asyncio.sleep(POLL_S)

    def _hint(self) -> Message:
        unsent, self._unsent = self._unsent, []
        return pack(self._id, self.newest, unsent)

    async def _receive_hints(self) -> None:
        layer = get_channel_layer()
        while True:
            try:
                async with asyncio.timeout(HINT_TIMEOUT_S):
                    channel = await layer.new_channel()
                    await layer.group_add(GROUP, channel)
                await self._read_hints(layer, channel)
            except Exception:  # whatever the layer's client raises
                self._warn_no_hints("No hints are coming in; polling until they do")
                with contextlib.suppress(Exception):
                    await layer.flush()  # its connections may be dead without having been closed
                await asyncio.sleep(POLL_S)

    async def _read_hints(self, layer: Any, channel: str) -> None:
        """Raises `TimeoutError` when no more hints arrive."""
        while True:
            end_if_cancelled()  # connecting to Redis may swallow a cancellation
            async with asyncio.timeout(HINT_TIMEOUT_S):
                message = await layer.receive(channel)
            if self._hints_lost:
                logger.warning("Hints are coming in again")
                self._hints_lost = False
            self._hear(message)

    def _hear(self, hint: Message) -> None:
        batches = unpack(self._id, hint)
        for events in batches:
            self._offer(events)
        if (
            not batches and hint["seq"] > self.newest
        ):  # only a reason to read: it may be another hub's
            self._is_hinted = True
            self._wanted.set()

    def _warn_no_hints(self, sentence: str) -> None:
        if not self._hints_lost:
            logger.warning(sentence)
        self._hints_lost = True


journal = Journal()
