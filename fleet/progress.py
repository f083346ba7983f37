"""Progress of one task is committed at most once a second: what an agent says more often is
gathered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from django.conf import settings

from agentcom.texts import cut
from fleet.protocol import MAX_TEXT, Message

Commit = Callable[[Message], Awaitable[None]]


class Progress:
    """Of the task of one socket. `commit` carries out a message and answers it if it is refused."""

    __slots__ = ("_commit", "_committed_at", "_last_text", "_timer", "_waiting")

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._committed_at = 0.0
        self._waiting: Message | None = None
        self._last_text: str | None = None  # of those that were gathered
        self._timer: asyncio.TimerHandle | None = None

    async def say(
        self, message: Message, soon: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        """Commit it, or gather it when the last commit was a moment ago. `soon` runs what is
        gathered when its time has come."""
        if self._waiting is not None and not _is_of(self._waiting, message):
            await self.flush()
        wait_s = self._committed_at + settings.AGENTCOM_PROGRESS_S - time.monotonic()
        if self._waiting is None and wait_s <= 0:
            self._committed_at = time.monotonic()
            await self._commit(message)
            return
        self._gather(message)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0, wait_s), lambda: soon(self.flush()))

    def _gather(self, message: Message) -> None:
        waiting, text = self._waiting, message["message"]
        if waiting is None:
            self._waiting, self._last_text = message, text
            return
        fields = dict(waiting.fields)
        if message["progress"] is not None:
            fields["progress"] = message["progress"]
        if text is not None and text != self._last_text:
            self._last_text = text
            before = fields["message"]
            fields["message"] = text if before is None else cut(f"{before}\n{text}", MAX_TEXT)
        self._waiting = replace(waiting, fields=fields)

    async def flush(self) -> None:
        """Commit what is gathered, such as before the task's outcome."""
        if (message := self.take()) is not None:
            self._committed_at = time.monotonic()
            await self._commit(message)

    def take(self) -> Message | None:
        """What is gathered, for somebody else to commit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        message, self._waiting = self._waiting, None
        return message


def _is_of(one: Message, other: Message) -> bool:
    return all(one[name] == other[name] for name in ("task_id", "generation"))
