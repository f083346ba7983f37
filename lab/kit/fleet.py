"""Agents of `agentcom_client`, and what the hub told them."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from agentcom_client import Agent, Task
from agentcom_client.connection import Message
from agentcom_client.slot import Work


async def work_at_once(task: Task) -> dict[str, Any]:
    await task.progress(50)
    return {"tokens_used": 1}


class Fleet:
    """Of several addresses in `urls` each agent begins with another one.

    `about` is what an `Agent` takes: capabilities, its delays, …
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        tokens: Mapping[str, str],
        work: Work = work_at_once,
        **about: Any,
    ) -> None:
        addresses = [urls] if isinstance(urls, str) else [*urls]
        self.handed: dict[tuple[str, int], list[str]] = defaultdict(list)  # agents by assignment
        self.completed: Counter[str] = Counter()  # acks by task
        self.identified: Counter[str] = Counter()  # times by agent
        self.agents = []
        for number, (agent_id, token) in enumerate(tokens.items()):
            first = number % len(addresses)
            own = addresses[first:] + addresses[:first]
            observe = partial(self.observe, agent_id)
            self.agents.append(Agent(own, token, work, observe=observe, **about))
        self._completion = asyncio.Event()

    async def run(self) -> None:
        await asyncio.gather(*(agent.run() for agent in self.agents))

    async def stop(self) -> None:
        await asyncio.gather(*(agent.stop() for agent in self.agents))

    async def until_completed(self, count: int) -> None:
        """Wait until so many different tasks are."""
        while len(self.completed) < count:
            self._completion.clear()
            await self._completion.wait()

    def observe(self, agent_id: str, message: Message) -> None:
        """Every frame that comes from the hub."""
        match message:
            case {"type": "identified"}:
                self.identified[agent_id] += 1
            case {"type": "task_assign", "task_id": task_id, "generation": generation}:
                self.handed[task_id, generation].append(agent_id)
            case {"type": "task_ack", "status": "complete", "task_id": task_id}:
                self.completed[task_id] += 1
                self._completion.set()


@asynccontextmanager
async def running(*parts: Any) -> AsyncIterator[None]:
    """Each part's `run`, and in the end its `stop`; one that fails ends the block."""
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(part.run())
        yield
        for part in reversed(parts):
            await part.stop()
