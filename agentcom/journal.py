"""The journal's tail: every committed event, in order, to whoever listens in this process.

A hint over the channel-layer group ("seq N exists") makes other processes read at once; a
one-second poll does the same, so a hint that is lost, doubled or late costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from channels.layers import InMemoryChannelLayer, get_channel_layer

from agentcom.database import Query, Reader, together
from agentcom.errors import Unavailable
from agentcom.models import Event
from agentcom.waits import end_if_cancelled, event_or_timeout

logger = logging.getLogger(__name__)

GROUP = "journal"
POLL_S = 1.0
# Each process hears its own hints too. They come at least so often, so that silence means a dead
# connection; a server that is gone without a word is noticed by nothing else.
HINT_EVERY_S = 3.0
HINT_PATIENCE_S = 10.0
PAGE = 2000  # events per read
# Between two reads: while several processes commit, one for each commit would be as much work as
# the commits themselves. Dashboards wait longer than that, and whoever queues a task assigns it.
READ_GAP_S = 0.025

Listener = Callable[[list[Event]], None]


# each commit asks; this takes a third of the ORM's time
LAST_SEQ: Query = (f"SELECT MAX(seq) FROM {Event._meta.db_table}", ())


def last_seq() -> int:
    [[(seq,)]] = together([LAST_SEQ])
    return seq or 0


def read_after(seq: int) -> list[Event]:
    return list(Event.objects.filter(seq__gt=seq).order_by("seq")[:PAGE])


class Journal:
    """The tail of one process. Lives on its event loop; `committed` may be called from anywhere."""

    def __init__(self) -> None:
        self.seq = 0  # delivered
        self.newest = 0  # known to exist
        self._listeners: list[Listener] = []
        self._reader = Reader("journal")
        self._reading = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted = asyncio.Event()
        self._hint_wanted = asyncio.Event()
        self._misses_hints = False
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def listen(self, listener: Listener) -> None:
        """Call `listener` on the event loop with each run of new events, oldest first."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Begin at the present end. Raises `Unavailable` when the database does not answer."""
        self.seq = self.newest = await self._reader.run(last_seq)
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as together:
            together.create_task(self._follow())
            if not isinstance(get_channel_layer(), InMemoryChannelLayer):  # that ends here
                together.create_task(self._send_hints())
                together.create_task(self._receive_hints())

    def committed(self, events: list[Event]) -> None:
        """Called by the Writer after each commit of its own."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._offer, events)

    async def reached(self, seq: int) -> None:
        """Wait until everything up to `seq` was delivered."""
        if self.seq < seq:
            reached = asyncio.get_running_loop().create_future()
            self._waiting.append((seq, reached))
            self._wanted.set()
            await reached

    def _offer(self, events: list[Event]) -> None:
        self.newest = max(self.newest, events[-1].seq)
        self._hint_wanted.set()
        if not self._reading and events[0].seq == self.seq + 1:
            self._deliver(events)
        else:
            self._wanted.set()

    def _deliver(self, events: list[Event]) -> None:
        self.seq = events[-1].seq
        self.newest = max(self.newest, self.seq)
        for listener in self._listeners:
            try:
                listener(events)
            except Exception:
                logger.exception("A listener of the journal failed; the others go on")
        for seq, reached in self._waiting:
            if seq <= self.seq and not reached.done():
                reached.set_result(None)
        self._waiting = [(seq, reached) for seq, reached in self._waiting if not reached.done()]

    async def _follow(self) -> None:
        while True:
            await event_or_timeout(self._wanted, POLL_S)
            next_at = time.monotonic() + READ_GAP_S
            self._reading = True
            try:
                await self._catch_up()
            except Unavailable:
                logger.warning("The journal cannot be read; trying again")
                await asyncio.sleep(POLL_S)
                self._wanted.set()
            finally:
                self._reading = False
            await asyncio.sleep(next_at - time.monotonic())

    async def _catch_up(self) -> None:
        while True:
            events = await self._reader.run(read_after, self.seq)
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
                async with asyncio.timeout(HINT_PATIENCE_S):
                    await layer.group_send(GROUP, {"type": "journal.hint", "seq": self.newest})
            except Exception:  # whatever the layer's client raises when its server is unavailable
                self._miss_hints("No hint could be sent; processes poll until hints come again")
                await asyncio.sleep(POLL_S)

    async def _receive_hints(self) -> None:
        layer = get_channel_layer()
        while True:
            try:
                async with asyncio.timeout(HINT_PATIENCE_S):
                    channel = await layer.new_channel()
                    await layer.group_add(GROUP, channel)
                await self._hear(layer, channel)
            except Exception:  # whatever the layer's client raises
                self._miss_hints("No hints are coming in; polling until they do")
                with contextlib.suppress(Exception):
                    await layer.flush()  # its connections may be dead, and would never say so
                await asyncio.sleep(POLL_S)

    async def _hear(self, layer: Any, channel: str) -> None:
        """Raises `TimeoutError` when nothing comes in any more."""
        while True:
            end_if_cancelled()  # connecting to Redis may swallow it
            async with asyncio.timeout(HINT_PATIENCE_S):
                message = await layer.receive(channel)
            if self._misses_hints:
                logger.warning("Hints are coming in again")
                self._misses_hints = False
            # no more than a reason to read: it may speak of another hub's journal
            if message["seq"] > self.newest:
                self._wanted.set()

    def _miss_hints(self, sentence: str) -> None:
        if not self._misses_hints:
            logger.warning(sentence)
        self._misses_hints = True


journal = Journal()
