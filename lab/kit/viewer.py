"""Somebody who watches the dashboard socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from lab.kit.sockets import NO_HEADERS, Closed, WebSocket

Frame = dict[str, Any]


class Viewer:
    """A dashboard socket and all that comes over it. Waiting has no bound here; the test has one.

    `arrived` has each frame with its time of arrival (s, of `time.perf_counter`), `frames` those
    that `frame` has given. Of many viewers most get the same bytes, and may share a `decode`.
    """

    socket: WebSocket

    def __init__(self, decode: Callable[[bytes], Frame] = orjson.loads) -> None:
        self.arrived: list[tuple[float, Frame]] = []
        self._decode = decode
        self._taken = 0
        self._news = asyncio.Event()

    @classmethod
    async def open(
        cls,
        port: int,
        decode: Callable[[bytes], Frame] = orjson.loads,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Viewer:
        viewer = cls(decode)
        await viewer.join(port, headers)
        return viewer

    async def join(self, port: int, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """Connect; the first frame will be a snapshot."""
        self.socket = await WebSocket.connect(port, "/ws/dashboard", self._on_text, headers)
        self.socket.closed.add_done_callback(lambda _: self._news.set())

    async def __aenter__(self) -> Viewer:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def _on_text(self, text: bytes) -> None:
        self.arrived.append((time.perf_counter(), self._decode(text)))
        self._news.set()

    @property
    def frames(self) -> list[Frame]:
        return [frame for _, frame in self.arrived[: self._taken]]

    @property
    def events(self) -> list[Frame]:
        return [
            event for frame in self.frames if frame["type"] == "events" for event in frame["data"]
        ]

    def events_of(self, task_id: str) -> list[str]:
        """What happened to a task, in the order in which the events came."""
        return [event["event"] for event in self.events if event.get("task_id") == task_id]

    def send(self, type: str, **fields: Any) -> None:
        self.socket.send(type=type, **fields)

    def subscribe(self) -> None:
        """As the page does: patches too."""
        self.send("subscribe", patches=True)

    async def frame(self, type: str | None = None) -> Frame:
        """The next frame, or the next one of a type. Raises `Closed` when there is none."""
        while True:
            while self._taken == len(self.arrived):
                if self.socket.closed.done():
                    raise Closed(self.socket.closed.result())
                self._news.clear()
                await self._news.wait()
            _, frame = self.arrived[self._taken]
            self._taken += 1
            if type in (None, frame["type"]):
                return frame

    async def snapshot(self) -> Frame:
        snapshot: Frame = (await self.frame("snapshot"))["data"]
        return snapshot

    async def until(self, seen: Callable[[Viewer], bool]) -> None:
        """Take frames until what came so far is enough."""
        while not seen(self):
            await self.frame()

    async def until_event(self, task_id: str, event: str) -> None:
        await self.until(lambda viewer: event in viewer.events_of(task_id))
