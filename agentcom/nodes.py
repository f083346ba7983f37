"""The heartbeat of this process. While it continues, the process's agents count as connected.

Each heartbeat also returns the database's time, see clock.py. `Process` in asgi.py says when all of
this happens.
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
HEARTBEAT_S = 1.0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Returns the database's time, and the value of the monotonic clock at that time."""

    node: str = NODE_ID
    scarce_files: int = 0
    actor = actors.HUB

    def rows(self) -> Wanted:
        return [(Node, [self.node])]

    def apply(self, work: Work) -> tuple[datetime, float]:
        times = work.now, steady()
        node = work.get(Node, self.node)
        if node is not None:
            node.heartbeat_at = work.now
            node.scarce_files = self.scarce_files
            return times
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
        return times


@dataclass(frozen=True, slots=True)
class RemoveNode:
    """Delete the row of a process that shuts down and has closed its sockets."""

    node: str = NODE_ID
    actor = actors.HUB

    def rows(self) -> Wanted:
        return [(Node, [self.node])]

    def apply(self, work: Work) -> None:
        node = work.get(Node, self.node)
        if node is not None:
            work.remove(node)


async def send_heartbeats() -> None:
    """Runs until cancelled."""
    while True:
        try:
            clock.set(*await writer.do(Heartbeat(scarce_files=open_files.scarce)))
        except Unavailable as error:
            logger.warning("No heartbeat: %s", error.detail)
        await asyncio.sleep(HEARTBEAT_S)
