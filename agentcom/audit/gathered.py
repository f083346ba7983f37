"""What anybody can cause without any right, counted: one row a minute instead of thousands.

Wrong tokens, failed logins, calls that a token does not allow. Equal entries of one minute become
one row with a count, written by the end of that minute; the log has the first of them at once. A
process that is killed loses the counts of its last minute, not the lines in the log.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading

from agentcom import actors
from agentcom.audit.entries import Act, Entry, Record, Row
from agentcom.errors import Unavailable
from agentcom.models import Outcome
from agentcom.rights import Caller
from agentcom.writer import writer

logger = logging.getLogger(__name__)

EVERY_S = 60.0
# Different entries of one minute. Further ones are counted by what was tried alone, so that a flood
# from many addresses costs neither memory nor disk.
MAX_KEPT = 500
ELSEWHERE = "from many addresses"


class Gathered:
    """Noted by any thread; committed on the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[Entry, tuple[int, int]] = {}  # how many, and the level of the log
        self._left: list[Row] = []  # of earlier minutes, not committed yet

    def note(self, entry: Entry, level: int = logging.WARNING) -> None:
        with self._lock:
            if entry not in self._counts and len(self._counts) >= MAX_KEPT:
                entry = _without_origin(entry)
            count, _ = self._counts.get(entry, (0, level))
            self._counts[entry] = count + 1, level
        if count == 0:
            logger.log(level, "%s", entry.in_words())

    async def run(self) -> None:
        """Commit periodically until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.commit()

    async def commit(self) -> None:
        """What cannot be committed now is kept for the next time, as far as there is room."""
        rows = self._take()
        if not rows:
            return
        self._left = rows[:MAX_KEPT]
        try:
            await writer.do(Record(tuple(self._left)))
        except Unavailable as unavailable:
            reason = unavailable.detail
            logger.warning("%d audit entries wait to be written: %s", len(self._left), reason)
        else:
            self._left = []

    def _take(self) -> list[Row]:
        with self._lock:
            counts, self._counts = self._counts, {}
        for entry, (count, level) in counts.items():
            if count > 1:
                logger.log(level, "%s, %d times in a minute", entry.in_words(), count)
        return [*self._left, *(Row(entry, count) for entry, (count, _) in counts.items())]


def _without_origin(entry: Entry) -> Entry:
    act = Act(entry.act.what, detail=ELSEWHERE)
    return dataclasses.replace(entry, act=act, actor="", address="")


gathered = Gathered()


def note_refusal(
    act: Act, caller: Caller, address: str, code: str, level: int = logging.WARNING
) -> None:
    """What the bearer of a token was refused."""
    actor = actors.token(caller.name)
    gathered.note(Entry(act, actor, address, Outcome.REFUSED, code), level)
