"""The dashboards of this process: batches of events, snapshots, patches.

All viewers read one log of encoded events, each with its own cursor. The cursors are nearly always
equal, so that a frame is encoded once for all viewers. A snapshot moves a viewer's cursor to the
snapshot's `seq`: events that it contains are not sent again, and none after it is lost.
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

PATIENCE_S = 5.0  # if a snapshot takes longer, viewers learn that what they see is out of date
KEEP_BASE_S = 10.0  # viewers that want patches subscribe at once; for others no base is kept


class ViewerSocket(Protocol):
    async def send_text(self, text: str) -> None: ...


class Viewer:
    """One dashboard's cursor in the log, and the snapshot on which its patches are based."""

    def __init__(self, client: ViewerSocket, seq: int) -> None:
        self.client = client
        self.seq = seq  # the cursor: it needs all later events of the log
        self.had_snapshot = False  # it has received its first one
        self.base: Snapshot | None = None
        self.wants_snapshot = True
        self.awaits_snapshot = False  # one is being built for it
        self.wants_patches = False
        self.joined_at = time.monotonic()


class DashboardGroup:
    """Lives on the event loop; follows the journal."""

    def __init__(self) -> None:
        self.viewers: set[Viewer] = set()
        self._log: deque[tuple[int, bytes]] = deque()
        self._health: tuple[Any, Any] | None = None  # as last sent
        self._health_seq = 0  # of the event that said so, if one did
        self._notices: list[bytes] = []  # changes without a journal entry
        self._flush_wanted = asyncio.Event()
        self._snapshot_wanted = asyncio.Event()

    def join(self, client: ViewerSocket) -> Viewer:
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
        async with asyncio.TaskGroup() as parts:  # if one fails, both are restarted
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
        # a viewer that waits for a snapshot must not be ahead of it when it arrives
        ready = [v for v in self.viewers if not (v.wants_snapshot or v.awaits_snapshot)]
        await self._send_events(ready, journal.seq, notices)
        self._trim_log()

    async def _send_events(
        self, viewers: Iterable[Viewer], until: int, notices: Iterable[bytes] = ()
    ) -> None:
        """Send each viewer the events between its cursor and `until`, and move the cursor."""
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
        """Drop the events that every viewer has."""
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
                await self._send_out_of_date()
                await asyncio.sleep(FRESH_S)
                self._snapshot_wanted.set()

    async def _serve_snapshot(self) -> None:
        """Send a new snapshot to those that asked for one, and patches to the others.

        Runs at least once a second, to show what no event reports: a worker that fell silent.
        """
        askers = [viewer for viewer in self.viewers if viewer.wants_snapshot]
        for viewer in askers:  # later askers may know of events that this snapshot will not contain
            viewer.wants_snapshot, viewer.awaits_snapshot = False, True
        try:
            snapshot = await self._newest()
            if snapshot.seq >= self._health_seq:  # else an event has reported a later change
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
                await self._send_out_of_date()
            return await coming
        finally:
            coming.cancel()

    async def _send_out_of_date(self) -> None:
        """No new snapshot is available: the health of the last one must not look current."""
        snapshot = snapshots.out_of_date()
        if snapshot is not None:
            self._note_health(snapshot)
            await self._send_patches(snapshot)

    async def _send_snapshot(self, viewer: Viewer, snapshot: Snapshot) -> None:
        if viewer.had_snapshot:
            await self._send_events([viewer], snapshot.seq)
        viewer.awaits_snapshot = False
        viewer.had_snapshot = True
        viewer.seq = snapshot.seq
        viewer.base = snapshot
        await viewer.client.send_text(f'{{"type":"snapshot","data":{snapshot.encoded.decode()}}}')

    async def _send_patches(self, snapshot: Snapshot) -> None:
        """Each base is compared with the new snapshot once, however many viewers have it."""
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
        """Send a change of health that has no journal entry, because no worker could write one."""
        health = snapshot.data["health"]
        seen = (health["status"], health["conditions"])
        if self._health is not None and self._health != seen:
            self._notices.append(orjson.dumps({**health_changed(*seen), "actor": actors.HUB}))
            self._flush_wanted.set()
        self._health = seen


async def _whole_snapshot() -> Snapshot:
    """One whose events have all been delivered. Both steps may wait for a silent database."""
    snapshot = await snapshots.current()
    await journal.reached(snapshot.seq)
    return snapshot


group = DashboardGroup()
