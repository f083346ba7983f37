"""The dashboards of this process: batches of events, snapshots, patches.

All viewers read one log of encoded events, each with its own cursor. The cursors are nearly always
equal, so that a frame is encoded once for all viewers. A snapshot moves a viewer's cursor to the
snapshot's `seq`: events that it contains are not sent again, and none after it is lost.

Patches are the same for all viewers too: each has a number, and a viewer needs all after the one
that its snapshot includes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from typing import Any, Protocol

import orjson
from django.conf import settings

from agentcom import actors
from agentcom.journal import journal
from agentcom.models import Event
from dashboard.events import health_changed, to_wire
from dashboard.live import live
from dashboard.state.whole import OF_AGENTS, Data, Snapshot
from dashboard.state.windows import View, Wanted

SORT_AGAIN_S = 0.1
KEEP_S = 10.0  # viewers that want patches subscribe at once; older patches are dropped


class ViewerSocket(Protocol):
    async def send_text(self, text: str) -> None: ...


class Window:
    """The agents that a viewer looks at, and what of them it has been sent."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._sent: View | None = None

    def news(self, view: View) -> dict[str, Any] | None:
        """What the viewer needs to show the view; None if it does."""
        sent, self._sent = self._sent, view
        if sent is None:
            return view.json()
        is_same = sent == view and list(sent.rows) == list(view.rows)
        return None if is_same else view.json(known=sent.rows)

    def move(self, wanted: Wanted) -> None:
        self.wanted = wanted

    def forget(self) -> None:
        """The viewer begins anew."""
        self._sent = None


class Patch:
    """A change of the state, encoded once for all who see all agents and once for the others."""

    def __init__(self, number: int, seq: int, data: Data) -> None:
        self.number = number
        self.made_at = time.monotonic()
        self._seq, self._data = seq, data

    @cached_property
    def whole(self) -> str:
        return patch_frame(self._seq, self._data)

    @cached_property
    def without_agents(self) -> str:
        lean = {name: change for name, change in self._data.items() if name not in OF_AGENTS}
        return patch_frame(self._seq, lean)


def patch_frame(seq: int, data: Data) -> str:
    return orjson.dumps({"type": "patch", "seq": seq, "data": data}).decode()


class Viewer:
    """One dashboard's cursors in the log of events, and in that of the patches."""

    window: Window | None = None  # None: it sees all agents

    def __init__(self, client: ViewerSocket, seq: int) -> None:
        self.client = client
        self.seq = seq  # it needs all later events
        self.patch: int | None = None  # it needs all later patches; None: it has no snapshot yet
        self.wants_snapshot = True
        self.wants_patches = False


class DashboardGroup:
    """Lives on the event loop; follows the journal."""

    def __init__(self) -> None:
        self.viewers: set[Viewer] = set()
        self._log: deque[tuple[int, bytes]] = deque()
        self._patch = 0  # the number of the last one
        self._patches: deque[Patch] = deque()
        self._health: tuple[Any, Any] | None = None  # as last sent
        self._notices: list[bytes] = []  # changes without a journal entry
        self._wanted = asyncio.Event()

    def join(self, client: ViewerSocket) -> Viewer:
        viewer = Viewer(client, journal.seq)
        self.viewers.add(viewer)
        live.use()
        self._wanted.set()
        return viewer

    def leave(self, viewer: Viewer) -> None:
        self.viewers.discard(viewer)
        if not self.viewers:
            self._log.clear()
            self._notices.clear()
            self._health = None

    def request_snapshot(self, viewer: Viewer) -> None:
        viewer.wants_snapshot = True
        self._wanted.set()

    def subscribe(self, viewer: Viewer, agents: Wanted | None = None) -> None:
        """From now on it gets patches: of all agents, or of a window of them."""
        viewer.wants_patches = True
        if agents is None:
            viewer.wants_snapshot |= viewer.window is not None
            viewer.window = None
        elif viewer.window is None:
            viewer.window = Window(agents)
        else:
            viewer.window.move(agents)
        self._wanted.set()

    def on_events(self, events: list[Event]) -> None:
        if not self.viewers:
            return
        for event in events:
            frame = to_wire(event)
            if frame is not None:
                self._log.append((event.seq, orjson.dumps(frame)))
            if event.kind == "health_changed":
                self._health = (event.data["status"], event.data["conditions"])
        self._wanted.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        live.on_read(self._wanted.set)  # for what no event reports: a worker that fell silent
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            next_at = time.monotonic() + settings.AGENTCOM_FLUSH_MS / 1000
            if await self._flush():
                await asyncio.sleep(next_at - time.monotonic())

    async def _flush(self) -> bool:
        """Send everybody what is new; returns whether there was anything.

        All of it is decided before the first frame goes out, because sending may take a while.
        """
        if not self.viewers:
            if live.can_show:
                live.take_patch()  # for nobody: what has changed must not accumulate
            return False
        frames = list(self._frames())
        self._trim()
        for viewer, frame in frames:
            await viewer.client.send_text(frame)
        return bool(frames)

    def _frames(self) -> Iterator[tuple[Viewer, str]]:
        until = journal.seq
        if live.can_show:
            self._note_health()
            self._add_patch(until)
        snapshot = live.snapshot() if live.can_show and not live.is_silent else None
        events = self._event_frames(until)
        for viewer in self.viewers:
            if viewer.patch is not None and (frame := events(viewer.seq)):
                yield viewer, frame
            viewer.seq = until
            missed = self._missed(viewer) if viewer.wants_patches else []
            if viewer.wants_snapshot or missed is None:
                if snapshot is not None:
                    viewer.wants_snapshot, viewer.patch = False, self._patch
                    yield viewer, self._snapshot_frame(viewer, snapshot)
            elif missed:
                viewer.patch = self._patch
                yield from ((viewer, frame) for frame in missed)
            if viewer.patch is not None and (frame := self._window_frame(viewer, until)):
                yield viewer, frame

    def _snapshot_frame(self, viewer: Viewer, snapshot: Snapshot) -> str:
        if viewer.window is None:
            return snapshot.frame
        viewer.window.forget()
        return snapshot.without_agents

    def _window_frame(self, viewer: Viewer, until: int) -> str | None:
        if viewer.window is None or not live.can_show:
            return None
        view = live.window(viewer.window.wanted)
        if view is None:  # it is too early to sort again
            asyncio.get_running_loop().call_later(SORT_AGAIN_S, self._wanted.set)
            return None
        news = viewer.window.news(view)
        return None if news is None else patch_frame(until, {"agents_window": news})

    def _event_frames(self, until: int) -> Callable[[int], str | None]:
        """Gives the frame of the events after a cursor; encoded once for all who share it."""
        notices, self._notices = self._notices, []

        @cache
        def frame(after: int) -> str | None:
            events = [text for seq, text in self._log if after < seq <= until]
            events += notices
            if not events:
                return None
            body = b",".join(events).decode()
            return f'{{"type":"events","seq":{until},"data":[{body}]}}'

        return frame

    def _add_patch(self, seq: int) -> None:
        data = live.take_patch()
        if not data:
            return
        self._patch += 1
        if any(viewer.patch is not None for viewer in self.viewers):
            self._patches.append(Patch(self._patch, seq, data))

    def _missed(self, viewer: Viewer) -> list[str] | None:
        """The patches that it needs; None if they are not there any more, or it has no snapshot."""
        if viewer.patch is None:
            return None
        if viewer.patch == self._patch:
            return []
        if not self._patches or self._patches[0].number > viewer.patch + 1:
            return None
        missed = (patch for patch in self._patches if patch.number > viewer.patch)
        return [patch.without_agents if viewer.window else patch.whole for patch in missed]

    def _trim(self) -> None:
        """Drop what every viewer has, and patches that nobody has subscribed to in time."""
        behind = min((viewer.seq for viewer in self.viewers), default=journal.seq)
        while self._log and self._log[0][0] <= behind:
            self._log.popleft()
        kept_since = time.monotonic() - KEEP_S
        while self._patches and self._patches[0].made_at < kept_since:
            self._patches.popleft()

    def _note_health(self) -> None:
        """Send a change of health that has no journal entry, because no worker could write one."""
        if not live.knows_health:
            return  # an event has reported a later change
        health = live.health
        seen = (health["status"], health["conditions"])
        if self._health is not None and self._health != seen:
            self._notices.append(orjson.dumps({**health_changed(*seen), "actor": actors.HUB}))
        self._health = seen


group = DashboardGroup()
