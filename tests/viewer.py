"""Somebody who watches the dashboard socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from lab.harness.patches import fold as fold  # for those who watch, too

Frame = dict[str, Any]


class Viewer:
    """A dashboard socket and all that came over it. Waiting has no bound here; the test has one."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[Frame] = []

    @classmethod
    async def open(cls, url: str, headers: dict[str, str] | None = None) -> Viewer:
        plain: Any = {"compression": None, "max_size": None, "max_queue": None}
        return cls(await connect(url, additional_headers=headers, **plain))

    async def __aenter__(self) -> Viewer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()

    @property
    def events(self) -> list[Frame]:
        return [
            event for frame in self.frames if frame["type"] == "events" for event in frame["data"]
        ]

    def told(self, task_id: str) -> list[str]:
        """What happened to a task, in the order in which the events came."""
        return [event["event"] for event in self.events if event.get("task_id") == task_id]

    async def send(self, type: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type, **fields}))

    async def frame(self, type: str | None = None) -> Frame:
        """The next frame, or the next one of a type."""
        while True:
            frame: Frame = json.loads(await self.socket.recv())
            self.frames.append(frame)
            if type in (None, frame["type"]):
                return frame

    async def snapshot(self) -> Frame:
        snapshot: Frame = (await self.frame("snapshot"))["data"]
        return snapshot

    async def until(self, seen: Callable[[Viewer], bool]) -> None:
        """Take frames until what came so far is enough."""
        while not seen(self):
            await self.frame()

    async def until_told(self, task_id: str, event: str) -> None:
        await self.until(lambda viewer: event in viewer.told(task_id))
