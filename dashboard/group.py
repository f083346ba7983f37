"""The dashboards of this process: events gathered and flushed together, snapshots, patches.

All viewers read one log of encoded events, each with a cursor of its own; nearly always the
cursors agree, and a frame is encoded once for everybody. A snapshot moves a viewer's cursor to
the snapshot's `seq`: nothing that it holds is sent again, and nothing between is lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any, Protocol

import orjson
from django.conf import settings

from agentcom import actors
from agentcom.errors import Unavailable
from agentcom.journal import journal
from agentcom.models import Event
from agentcom.waits import event_or_timeout
from dashboard.events import health_changed, to_wire
from dashboard.snapshot import FRESH_S, Snapshot, difference, snapshots

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0  # a snapshot that takes longer: the picture that viewers have counts as old
KEEP_BASE_S = 10.0  # a viewer that wants patches says so at once; memory is not kept for others


class Client(Protocol):
    async def send_text(self, text: str) -> None: ...


class Viewer:
    """One dashboard's place in the log, and the snapshot that its patches start from."""

    def __init__(self, client: Client, seq: int) -> None:
        self.client = client
        self.seq = seq  # what it has; of the log it needs all that comes after
        self.greeted = False  # had its first snapshot
        self.base: Snapshot | None = None
        self.wants_snapshot = True
        self.awaits_snapshot = False  # one that was asked for on its behalf
        self.wants_patches = False
        self.joined_at = time.monotonic()


class DashboardGroup:
    """Lives on the event loop; follows the journal."""

    def __init__(self) -> None:
        self.viewers: set[Viewer] = set()
        self._log: deque[tuple[int, bytes]] = deque()
        self._health: tuple[Any, Any] | None = None  # as last told
        self._health_seq = 0  # by the event of this number, if by one
        self._notices: list[bytes] = []  # what no journal entry says
        self._flush_wanted = asyncio.Event()
        self._snapshot_wanted = asyncio.Event()

    def join(self, client: Client) -> Viewer:
        viewer = Viewer(client, journal.seq)
        self.viewers.add(viewer)
        self._snapshot_wanted.set()
        return viewer

    def leave(self, viewer: Viewer) -> None:
        self.viewers.discard(viewer)
        if not self.viewers:
            self._log.clear()
            self._notices.clear()
            self._health = None

    def request_snapshot(self, viewer: Viewer) -> None:
        viewer.wants_snapshot = True
        self._snapshot_wanted.set()

    def subscribe(self, viewer: Viewer) -> None:
        viewer.wants_patches = True
        if viewer.base is None:
            viewer.wants_snapshot = True
        self._snapshot_wanted.set()

    def on_events(self, events: list[Event]) -> None:
        if not self.viewers:
            return
        for event in events:
            frame = to_wire(event)
            if frame is not None:
                self._log.append((event.seq, orjson.dumps(frame)))
            if event.kind == "health_changed":
                self._health = (event.data["status"], event.data["conditions"])
                self._health_seq = event.seq
        self._flush_wanted.set()
        if any(viewer.wants_patches for viewer in self.viewers):
            self._snapshot_wanted.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as parts:  # when one fails, both begin anew
            parts.create_task(self._flush_events())
            parts.create_task(self._serve_snapshots())

    async def _flush_events(self) -> None:
        while True:
            await self._flush_wanted.wait()
            self._flush_wanted.clear()
            await self._flush()
            await asyncio.sleep(settings.AGENTCOM_FLUSH_MS / 1000)

    async def _flush(self) -> None:
        notices, self._notices = self._notices, []
        # who waits for a snapshot must not be ahead of it when it comes
        ready = [v for v in self.viewers if not (v.wants_snapshot or v.awaits_snapshot)]
        await self._send_events(ready, journal.seq, notices)
        self._trim_log()

    async def _send_events(
        self, viewers: Iterable[Viewer], until: int, notices: Iterable[bytes] = ()
    ) -> None:
        """Send each viewer what lies between its cursor and `until`, and move the cursor."""
        frames: dict[int, str | None] = {}
        for viewer in viewers:
            if viewer.seq not in frames:
                frames[viewer.seq] = self._frame(viewer.seq, until, notices)
            frame = frames[viewer.seq]
            viewer.seq = max(viewer.seq, until)
            if frame is not None:
                await viewer.client.send_text(frame)

    def _frame(self, after: int, until: int, notices: Iterable[bytes]) -> str | None:
        events = [text for seq, text in self._log if after < seq <= until]
        events += notices
        if not events:
            return None
        body = b",".join(events).decode()
        return f'{{"type":"events","seq":{max(after, until)},"data":[{body}]}}'

    def _trim_log(self) -> None:
        """Drop what every viewer has."""
        behind = min((viewer.seq for viewer in self.viewers), default=journal.seq)
        while self._log and self._log[0][0] <= behind:
            self._log.popleft()

    async def _serve_snapshots(self) -> None:
        while True:
            await event_or_timeout(self._snapshot_wanted, FRESH_S)
            if not self.viewers:
                continue
            next_at = time.monotonic() + settings.AGENTCOM_FLUSH_MS / 1000
            try:
                await self._serve_snapshot()
                await asyncio.sleep(next_at - time.monotonic())
            except Unavailable as error:
                logger.warning("No snapshot for the dashboards: %s", error.detail)
                await self._tell_absence()
                await asyncio.sleep(FRESH_S)
                self._snapshot_wanted.set()

    async def _serve_snapshot(self) -> None:
        """A new one for all who wait for it, a patch for the others, at the latest once a second.

        The second also tells of what no event tells: a worker that fell silent.
        """
        askers = [viewer for viewer in self.viewers if viewer.wants_snapshot]
        for viewer in askers:  # who asks from now on may know of more than this one will hold
            viewer.wants_snapshot, viewer.awaits_snapshot = False, True
        try:
            snapshot = await self._newest()
            if snapshot.seq >= self._health_seq:  # else an event told of a later change meanwhile
                self._note_health(snapshot)
            for viewer in askers:
                await self._send_snapshot(viewer, snapshot)
            await self._send_patches(snapshot)
        finally:
            for viewer in askers:
                viewer.wants_snapshot |= viewer.awaits_snapshot
                viewer.awaits_snapshot = False

    async def _newest(self) -> Snapshot:
        coming = asyncio.ensure_future(_whole_snapshot())
        try:
            await asyncio.wait([coming], timeout=PATIENCE_S)
            if not coming.done():
                await self._tell_absence()
            return await coming
        finally:
            coming.cancel()

    async def _tell_absence(self) -> None:
        """No new snapshot is to be had: the light of the last one must not pass for today's."""
        snapshot = snapshots.out_of_date()
        if snapshot is not None:
            self._note_health(snapshot)
            await self._send_patches(snapshot)

    async def _send_snapshot(self, viewer: Viewer, snapshot: Snapshot) -> None:
        if viewer.greeted:
            await self._send_events([viewer], snapshot.seq)
        viewer.awaits_snapshot = False
        viewer.greeted = True
        viewer.seq = snapshot.seq
        viewer.base = snapshot
        await viewer.client.send_text(f'{{"type":"snapshot","data":{snapshot.encoded.decode()}}}')

    async def _send_patches(self, snapshot: Snapshot) -> None:
        """Each base is compared with the new snapshot once, however many viewers start from it."""
        viewers_of: dict[Snapshot, list[Viewer]] = defaultdict(list)
        for viewer in self.viewers:
            if viewer.base is None or viewer.base is snapshot:
                continue
            if viewer.wants_patches:
                viewers_of[viewer.base].append(viewer)
            elif time.monotonic() - viewer.joined_at > KEEP_BASE_S:
                viewer.base = None
        for base, viewers in viewers_of.items():
            data = difference(base.data, snapshot.data)
            text = orjson.dumps({"type": "patch", "seq": snapshot.seq, "data": data}).decode()
            for viewer in viewers:
                viewer.base = snapshot
                if data:
                    await viewer.client.send_text(text)

    def _note_health(self, snapshot: Snapshot) -> None:
        """Tell of a change of health that no journal entry tells: nobody was there to write one."""
        health = snapshot.data["health"]
        seen = (health["status"], health["conditions"])
        if self._health is not None and self._health != seen:
            self._notices.append(orjson.dumps({**health_changed(*seen), "actor": actors.HUB}))
            self._flush_wanted.set()
        self._health = seen


async def _whole_snapshot() -> Snapshot:
    """One whose events were all delivered. Either may wait for a database that says nothing."""
    snapshot = await snapshots.current()
    await journal.reached(snapshot.seq)
    return snapshot


group = DashboardGroup()
