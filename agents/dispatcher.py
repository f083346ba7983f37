"""Hands queued tasks to the idle agents that are connected to this process.

No process assigns to a socket that it does not hold, so there is no leader and nothing to elect;
the database decides who gets a task, and it is pushed only after the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from agentcom.errors import Unavailable
from agentcom.models import Event
from agentcom.work import Wanted, Work
from agentcom.writer import writer
from agents.models import Agent, AgentState
from agents.protocol import Frame, task_assign
from tasks.models import Task
from tasks.queue import QueuedTask, heads, needs_of, title_of, waiting_needs

logger = logging.getLogger(__name__)

CLAIM_MAX = 200  # tasks a claim, so that a herd does not hold up the other commands
POLL_S = 1.0  # another process' tasks are found that soon without any hint

FREED = frozenset({"task_complete", "task_failed", "task_rejected", "task_reclaimed"})
QUEUED = frozenset({"task_submitted", "task_retried", "task_rejected", "task_reclaimed"})

Skills = frozenset[str]  # the capabilities of one agent


@dataclass(frozen=True, slots=True)
class Idle:
    agent_id: str
    connection: str
    capabilities: Skills


@dataclass(frozen=True, slots=True)
class Claimed:
    tasks: list[tuple[Idle, Frame]] = field(default_factory=list)  # what is to be pushed
    busy: list[Idle] = field(default_factory=list)  # turned out not to be idle


@dataclass(frozen=True, slots=True)
class Claim:
    """Assign queued tasks to idle agents, by lane and order; longest idle first."""

    idle: Sequence[Idle]

    def rows(self) -> Wanted:
        return []  # only the rows of those that get a task are read

    def apply(self, work: Work) -> Claimed:
        work.flush()
        pairs = list(islice(match(self.idle, waiting_needs(), heads), CLAIM_MAX))
        work.load(
            [
                (Agent, [idle.agent_id for idle, _ in pairs]),
                (Task, [queued.task_id for _, queued in pairs]),
            ]
        )
        claimed = Claimed()
        for idle, queued in pairs:
            agent = work.get(Agent, idle.agent_id)
            if agent is None or not _is_free(agent, idle):
                claimed.busy.append(idle)
                continue
            task = work.get(Task, queued.task_id)
            assert task is not None
            task.assign(idle.agent_id, work.now)
            work.emit(
                "task_assigned",
                task_id=task.task_id,
                agent_id=idle.agent_id,
                generation=task.generation,
                title=title_of(task),
            )
            # the frame now: a later command of the group may move the task on
            claimed.tasks.append((idle, task_assign(task)))
        return claimed


def match(
    idle: Sequence[Idle],
    waiting: Iterable[tuple[int, Sequence[str]]],
    heads: Callable[[int, Sequence[str], int], list[QueuedTask]],
) -> Iterable[tuple[Idle, QueuedTask]]:
    """Pair each task, in the queue's order, with the longest idle agent that can do it.

    `waiting` gives for each lane the needs that tasks in it have; needs that no idle agent meets
    are never looked at, so however many of them stand at the head, they hide nothing.
    """
    free = list(idle)
    for priority, keys in waiting:
        can_do = servable(keys, {agent.capabilities for agent in free})
        if not can_do:
            continue
        for queued in heads(priority, can_do, min(len(free), CLAIM_MAX)):
            needs = needs_of(queued.needs)
            agent = next((agent for agent in free if needs <= agent.capabilities), None)
            if agent is not None:
                free.remove(agent)
                yield agent, queued
            if not free:
                return


def servable(keys: Iterable[str], skills: Collection[Skills]) -> list[str]:
    """Those of the needs that somebody with one of these skills meets."""
    return [key for key in keys if any(needs_of(key) <= able for able in skills)]


def _is_free(agent: Agent, idle: Idle) -> bool:
    return (
        agent.fsm_state == AgentState.IDLE
        and agent.connection == idle.connection
        and agent.current_task_id is None
    )


class AgentSocket(Protocol):
    """What the dispatcher needs of an agent's socket."""

    agent_id: str
    connection: str
    joined_seq: int
    capabilities: Skills
    token_hash: str
    presence: bool

    async def send_json(self, message: Frame) -> None: ...

    def send_soon(self, message: dict[str, Any]) -> None: ...

    def close_soon(self, code: int, reason: str | None = None) -> None: ...


class Dispatcher:
    """The idle agents of this process. Lives on the event loop; follows the journal."""

    def __init__(self) -> None:
        self.sockets: dict[str, AgentSocket] = {}
        self._idle_since: dict[str, float] = {}
        self._wake = asyncio.Event()

    def join(self, socket: AgentSocket) -> AgentSocket | None:
        """Give the older socket of the same agent, if there was one.

        The agent counts as idle until a claim says otherwise: between its commit and this call
        the task that it held may have been taken from it.
        """
        older = self.sockets.get(socket.agent_id)
        self.sockets[socket.agent_id] = socket
        self._rest(socket.agent_id)
        return older

    def leave(self, socket: AgentSocket) -> None:
        if self.sockets.get(socket.agent_id) is socket:
            del self.sockets[socket.agent_id]
            self._idle_since.pop(socket.agent_id, None)

    def on_events(self, events: list[Event]) -> None:
        for event in events:
            if event.kind == "task_assigned":
                self._idle_since.pop(event.agent_id or "", None)
            elif event.kind in FREED and event.agent_id in self.sockets:
                self._rest(event.agent_id or "")
            if event.kind in QUEUED:
                self._wake.set()

    async def run(self) -> None:
        """Claim and push until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL_S)
            self._wake.clear()
            try:
                await self._dispatch()
            except Unavailable as error:
                logger.warning("No task can be assigned: %s", error.detail)
                await asyncio.sleep(POLL_S)

    async def _dispatch(self) -> None:
        while candidates := self._take_idle():
            claimed = Claimed()
            try:
                claimed = await writer.do(Claim(list(candidates)))
            finally:
                for agent in (*claimed.busy, *(agent for agent, _ in claimed.tasks)):
                    del candidates[agent]
                self._put_back(candidates)
            for agent, frame in claimed.tasks:
                socket = self._socket_of(agent)
                if socket is not None:  # else it gets it as it identifies, or the task goes back
                    await socket.send_json(frame)
            if not claimed.tasks and not claimed.busy:
                return

    def _take_idle(self) -> dict[Idle, float]:
        """The idle agents, longest idle first, with since when.

        They are out while a claim looks at them: what happens to them meanwhile is news.
        """
        idle, self._idle_since = self._idle_since, {}
        candidates = {}
        for agent_id in sorted(idle, key=idle.__getitem__):
            socket = self.sockets[agent_id]
            agent = Idle(agent_id, socket.connection, socket.capabilities)
            candidates[agent] = idle[agent_id]
        return candidates

    def _put_back(self, candidates: dict[Idle, float]) -> None:
        for agent, since in candidates.items():
            if self._socket_of(agent) is not None:
                self._idle_since.setdefault(agent.agent_id, since)

    def _socket_of(self, agent: Idle) -> AgentSocket | None:
        """None when it is gone, or a newer one came meanwhile."""
        socket = self.sockets.get(agent.agent_id)
        return socket if socket is not None and socket.connection == agent.connection else None

    def _rest(self, agent_id: str) -> None:
        self._idle_since[agent_id] = time.monotonic()
        self._wake.set()


dispatcher = Dispatcher()
