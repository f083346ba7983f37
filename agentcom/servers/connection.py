"""One socket's connection: what ASGI does not offer, and each server has in a way of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from agentcom.servers.limits import (
    FRAME_COST,
    FRAMES_IN_A_ROW,
    MAX_BACKLOG,
    MAX_WAITING_BYTES,
    MAX_WAITING_FRAMES,
)

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Connection:
    """Without a server, as in unit tests: nothing is bounded, because nothing waits."""

    @property
    def is_behind(self) -> bool:
        """Whether the client has not read yet what it was sent."""
        return False

    def allows(self, size: int) -> bool:
        """Whether so much more may be sent. If not, the connection has been aborted."""
        return True

    def handled(self) -> bool:
        """Note a handled frame. Returns whether to yield to the loop before the next one."""
        return False

    def write(self, payload: bytes) -> bool:
        """Send a text frame at once; False where it has to go through the server's own `send`."""
        return False

    def sending(self) -> contextlib.AbstractContextManager[Any]:
        """Around sending a frame of any size. Ignores that the client has just disconnected."""
        return contextlib.nullcontext()

    def release(self) -> None:
        """To be called before closing."""

    def close(self, code: int, reason: str | None) -> bool:
        """Send a close code that the server's own `close` would refuse; False if it would not."""
        return False


class Backlog:
    """Counts what is sent to a client that does not read, from when its buffers are full."""

    def __init__(self) -> None:
        self._behind: int | None = None

    @property
    def is_behind(self) -> bool:
        return self._behind is not None

    def begin(self) -> None:
        """The buffers are full. Servers repeat this with further writes."""
        if self._behind is None:
            self._behind = 0

    def end(self) -> None:
        self._behind = None

    def allows(self, size: int) -> bool:
        if self._behind is None:
            return True
        self._behind += size + FRAME_COST
        return self._behind <= MAX_BACKLOG


class Waiting:
    """Counts the frames that a client has sent and that are not handled yet."""

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room  # called when reading may go on
        self._sizes: list[int] = []  # few; an empty deque has 0.7 kB, for each socket
        self._bytes = 0
        self._in_a_row = 0  # handled frames, each while the next one was waiting
        self.is_full = False

    def add(self, size: int) -> None:
        self._sizes.append(size)
        self._bytes += size
        if len(self._sizes) >= MAX_WAITING_FRAMES or self._bytes >= MAX_WAITING_BYTES:
            self.is_full = True

    def handled(self) -> bool:
        """See `Connection.handled`."""
        sizes = self._sizes
        self._bytes -= sizes.pop(0)
        if self.is_full and self._is_half_done():
            self.is_full = False
            self._on_room()
        if not sizes:
            self._in_a_row = 0
            return False
        self._in_a_row = self._in_a_row % FRAMES_IN_A_ROW + 1
        return self._in_a_row == FRAMES_IN_A_ROW

    def _is_half_done(self) -> bool:
        return len(self._sizes) <= MAX_WAITING_FRAMES // 2 and self._bytes <= MAX_WAITING_BYTES // 2
