"""The heartbeat of this process: as long as it beats, its agents' sockets are taken to be alive.

With each beat comes the database's time, see clock.py. `Process` in asgi.py says when all of this
happens.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from dataclasses import dataclass
from datetime import datetime

from agentcom import actors
from agentcom.clock import clock, steady
from agentcom.descriptors import open_files
from agentcom.errors import Unavailable
from agentcom.models import Node
from agentcom.work import Wanted, Work
from agentcom.writer import writer

logger = logging.getLogger(__name__)

NODE_ID = secrets.token_hex(16)
BEAT_S = 1.0


@dataclass(frozen=True, slots=True)
class Beat:
    """Gives the database's time, and when it was that time by the clock that nobody sets."""

    node: str = NODE_ID
    scarce_files: int = 0
    actor = actors.HUB

    def rows(self) -> Wanted:
        return [(Node, [self.node])]

    def apply(self, work: Work) -> tuple[datetime, float]:
        said = work.now, steady()
        node = work.get(Node, self.node)
        if node is not None:
            node.heartbeat_at = work.now
            node.scarce_files = self.scarce_files
            return said
        work.add(
            Node(
                id=self.node,
                host=socket.gethostname(),
                pid=os.getpid(),
                started_at=work.now,
                heartbeat_at=work.now,
                scarce_files=self.scarce_files,
            )
        )
        return said


@dataclass(frozen=True, slots=True)
class Depart:
    """The process ends on purpose and holds no socket any more."""

    node: str = NODE_ID
    actor = actors.HUB

    def rows(self) -> Wanted:
        return [(Node, [self.node])]

    def apply(self, work: Work) -> None:
        node = work.get(Node, self.node)
        if node is not None:
            work.remove(node)


async def beat() -> None:
    """Beat until cancelled."""
    while True:
        try:
            clock.set(*await writer.do(Beat(scarce_files=open_files.scarce)))
        except Unavailable as error:
            logger.warning("No heartbeat: %s", error.detail)
        await asyncio.sleep(BEAT_S)
