"""When and from where each token was last used: noted in memory, committed once a minute.

A process that is killed loses what it noted in its last minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from agentcom import actors
from agentcom.clock import clock
from agentcom.errors import Unavailable
from agentcom.work import Wanted, Work
from agentcom.writer import writer
from fleet.models import AgentToken

logger = logging.getLogger(__name__)

EVERY_S = 60.0
AT_ONCE = 1_000  # tokens in one command

Uses = Mapping[str, tuple[datetime, str]]  # time and address by the token's hash


@dataclass(frozen=True, slots=True)
class NoteUses:
    """Not in the journal: a use changes nothing."""

    uses: Uses
    actor = actors.HUB

    def rows(self) -> Wanted:
        return [(AgentToken, list(self.uses))]

    def apply(self, work: Work) -> None:
        for token_hash, (at, address) in self.uses.items():
            token = work.get(AgentToken, token_hash)
            if token is not None and (token.last_used_at is None or token.last_used_at < at):
                token.last_used_at, token.last_used_from = at, address


class TokenUses:
    """Lives on the event loop."""

    def __init__(self) -> None:
        self._noted: dict[str, tuple[datetime, str]] = {}

    def note(self, token_hash: str, address: str) -> None:
        self._noted[token_hash] = clock.now(), address

    async def run(self) -> None:
        """Commit periodically until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.commit()

    async def commit(self) -> None:
        while self._noted:
            hashes = list(self._noted)[:AT_ONCE]
            uses = {token_hash: self._noted.pop(token_hash) for token_hash in hashes}
            try:
                await writer.do(NoteUses(uses))
            except Unavailable:
                logger.info("The last uses of %d tokens were not noted", len(uses))
                return


token_uses = TokenUses()
