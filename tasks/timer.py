"""Does in time what only depends on time, see `ActWhenDue`. One loop per web process."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

from agentcom.clock import clock
from agentcom.database import checks, from_millis
from agentcom.errors import Unavailable
from agentcom.models import Event
from agentcom.waits import event_or_timeout
from agentcom.writer import writer
from tasks.steering import DUE_MAX, ActWhenDue, next_due

logger = logging.getLogger(__name__)

POLL_S = 1.0  # what other processes scheduled is found within this time even without a hint
# The command goes by the database's clock, which may be behind the one here by a little.
STEP_S = 0.02
# The fields of entries that say when something is due.
DUE_FIELDS = ("until", "deadline")


class Timer:
    """Lives on the event loop and follows the journal."""

    def __init__(self) -> None:
        self._next: datetime | None = None
        self._earlier = asyncio.Event()  # something is due earlier than what is waited for

    def on_events(self, events: list[Event]) -> None:
        for event in events:
            if event.task_id is None:
                continue
            for name in DUE_FIELDS:
                if (at := event.data.get(name)) is not None:
                    self._note(from_millis(at))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._act()
            except Unavailable as error:
                logger.warning("Nothing that is due can be done: %s", error.detail)
                await asyncio.sleep(POLL_S)
            if not await event_or_timeout(self._earlier, self._pause_s()):
                self._note(await self._read())
            self._earlier.clear()

    async def _act(self) -> None:
        while self._next is not None and self._next <= clock.now():
            done = await writer.do(ActWhenDue())
            if not done:
                await asyncio.sleep(STEP_S)
            if done < DUE_MAX:
                self._next = None
                self._note(await self._read())

    async def _read(self) -> datetime | None:
        try:
            found: datetime | None = await checks.run(next_due)
        except Unavailable:  # polled again
            return None
        return found

    def _pause_s(self) -> float:
        if self._next is None:
            return POLL_S
        left = (self._next - clock.now()) / timedelta(seconds=1)
        return min(POLL_S, max(STEP_S, left))

    def _note(self, at: datetime | None) -> None:
        if at is not None and (self._next is None or at < self._next):
            self._next = at
            self._earlier.set()


timer = Timer()
