"""Agents of `fleet/client.py` at work, for tests that look at what the hub tells them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fleet.client import Agent


class Fleet:
    agents: list[Agent]

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as running:
            for agent in self.agents:
                running.create_task(agent.run())
            yield
            await asyncio.gather(*(agent.stop() for agent in self.agents))
