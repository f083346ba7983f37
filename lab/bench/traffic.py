"""A crew of agents and submitters at one hub, and what they see."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from lab.bench.scenario import Countdown
from lab.harness.hub import Hub
from lab.kit.agent import RawAgent
from lab.kit.sockets import Failed, Http, Message
from lab.kit.viewer import Frame, Viewer

AGENTS = 10
CONNECTIONS = 16
SUBMITTER = "submitter"
WARM_UP = 50  # tasks, so that no figure is about imports and first queries


def names(agents: int) -> list[str]:
    return [SUBMITTER, *(f"agent-{number}" for number in range(agents))]


def event_frames(viewer: Viewer) -> list[tuple[float, Frame]]:
    return [(at, frame) for at, frame in viewer.arrived if frame["type"] == "events"]


class Crew:
    """Agents that complete at once, and keep-alive connections to submit over.

    The tasks need `capabilities`; the agents have `more`. Takes down when each task was submitted
    and when its answer came, when it was assigned, and when its completion was acked: s of
    `time.perf_counter`, by task id.
    """

    def __init__(
        self,
        hub: Hub,
        tokens: Mapping[str, str],
        connections: int = CONNECTIONS,
        capabilities: Sequence[str] = (),
        more: Sequence[str] = (),
    ) -> None:
        self.sent_at: dict[str, float] = {}
        self.answered_at: dict[str, float] = {}
        self.assigned_at: dict[str, float] = {}
        self.acked_at: dict[str, float] = {}
        self._next_port = hub.next_port
        self._token = tokens[SUBMITTER]
        self._connections = connections
        self._needs = list(capabilities)
        self._agents = [
            RawAgent(name, token, [*capabilities, *more], self._note_assigned, self._note_acked)
            for name, token in tokens.items()
            if name != SUBMITTER
        ]
        self._https: list[Http] = []
        self._left = Countdown(0)

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(agent.join(self._next_port()) for agent in self._agents))
        for _ in range(self._connections):
            self._https.append(await Http.connect(self._next_port(), self._token))
        await self.process(WARM_UP)
        for seen in (self.sent_at, self.answered_at, self.assigned_at, self.acked_at):
            seen.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        for http in self._https:
            http.close()
        for agent in self._agents:
            agent.close()

    async def process(self, tasks: int, batch: int = 1) -> float:
        """Submit over all connections at once; give the s until the last completion was acked."""
        self._left = Countdown(tasks)
        began = time.perf_counter()
        batches = iter(range(tasks // batch))
        await asyncio.gather(*(self._submit_some(http, batches, batch) for http in self._https))
        await self._left.wait()
        return self._left.ended_at - began

    async def process_at_rate(self, rate: float, tasks: int) -> None:
        """Submit so many a second, whether or not the hub keeps up, and wait for the last ack."""
        self._left = Countdown(tasks)
        idle: asyncio.Queue[Http] = asyncio.Queue()
        for http in self._https:
            idle.put_nowait(http)
        # Some jitter, or every task would meet the hub's timers in the same phase.
        chance = random.Random(4711)
        due = time.perf_counter()
        under_way = []
        for _ in range(tasks):
            due += chance.uniform(0.5, 1.5) / rate
            await asyncio.sleep(due - time.perf_counter())
            under_way.append(asyncio.ensure_future(self._submit_over(idle)))
        await asyncio.gather(*under_way)
        await self._left.wait()

    async def _submit_some(self, http: Http, batches: Any, batch: int) -> None:
        for _ in batches:
            if batch == 1:
                await self._submit(http, time.perf_counter())
            else:
                await http.submit([self._task()] * batch)

    async def _submit_over(self, idle: asyncio.Queue[Http]) -> None:
        sent_at = time.perf_counter()  # waiting for a connection counts: users would wait as well
        http = await idle.get()
        await self._submit(http, sent_at)
        idle.put_nowait(http)

    async def _submit(self, http: Http, sent_at: float) -> None:
        task_id = (await http.submit(self._task()))["task_id"]
        self.sent_at[task_id], self.answered_at[task_id] = sent_at, time.perf_counter()

    def _task(self) -> Message:
        task: Message = {
            "description": "Summarise the incident report of last night",
            "metadata": {"source": "bench"},
        }
        return {**task, "needed_capabilities": self._needs} if self._needs else task

    def _note_assigned(self, message: Message, at: float) -> None:
        if message["generation"] != 1:
            raise Failed(f"{message['task_id']} was assigned twice")
        self.assigned_at[message["task_id"]] = at

    def _note_acked(self, task_id: str, at: float) -> None:
        self.acked_at[task_id] = at
        self._left.step()

    def answer_times_ms(self) -> list[float]:
        """From submitting a task to the answer."""
        return [1000 * (self.answered_at[task_id] - at) for task_id, at in self.sent_at.items()]

    def assign_times_ms(self) -> list[float]:
        """From submitting a task to its arrival at an agent."""
        return [1000 * (self.assigned_at[task_id] - at) for task_id, at in self.sent_at.items()]

    def frame_times_ms(self, viewer: Viewer) -> list[float]:
        """From the first word of a commit (the submitter's answer, the agent's ack) to the event.

        0 where the dashboard heard of it first.
        """
        told = {"task_submitted": self.answered_at, "task_complete": self.acked_at}
        return [
            1000 * max(0.0, at - told[event["event"]][event["task_id"]])
            for at, frame in event_frames(viewer)
            for event in frame["data"]
            if event["task_id"] in told.get(event["event"], ())
        ]
