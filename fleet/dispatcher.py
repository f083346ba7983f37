"""Hands queued tasks to the idle agents that are connected to this process.

Each process assigns only to its own sockets, so no leader is needed. The database decides which
agent gets a task, and the task is pushed only after the commit. The claim is the last command of
each group (`Dispatch`). When other events make a match possible, it gets a group of its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from agentcom import actors
from agentcom.errors import Unavailable
from agentcom.models import Event
from agentcom.waits import event_or_timeout
from agentcom.work import Wanted, Work
from agentcom.writer import writer
from fleet.holds import Holds
from fleet.models import Agent, AgentState, Hold
from fleet.protocol import Frame, task_assign
from tasks.heads import Queue, QueuedTask
from tasks.models import Task
from tasks.moves import MOVES
from tasks.needs import Needs, needs_of, rarest
from tasks.queue import title_of

logger = logging.getLogger(__name__)

CLAIM_MAX = 200  # tasks per claim, so that a herd of agents does not delay other commands
POLL_S = 1.0  # tasks queued by other processes are found within this time even without a hint


Skills = frozenset[str]  # the capabilities of one agent


@dataclass(frozen=True, slots=True)
class Idle:
    agent_id: str
    connection: str
    capabilities: Skills


@dataclass(frozen=True, slots=True)
class Claimed:
    tasks: list[tuple[Idle, Frame]] = field(default_factory=list)  # to be pushed
    busy: list[Idle] = field(default_factory=list)  # those that turned out not to be idle


@dataclass(frozen=True, slots=True)
class Claim:
    """Assign queued tasks, in the queue's order, to the agents that have been idle longest."""

    idle: Sequence[Idle]
    actor = actors.HUB

    def rows(self) -> Wanted:
        return []  # `apply` loads only the rows of agents that get a task

    def apply(self, work: Work) -> Claimed:
        if work.touches(Hold):
            work.flush()
        pairs = list(islice(self._pairs(Holds.at(work.now), Queue(work)), CLAIM_MAX))
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
            if task.assign_to not in (None, idle.agent_id):
                continue  # two agents with the same mark
            task.assign(idle.agent_id, work.now)
            work.emit(
                "task_assigned",
                task_id=task.task_id,
                agent_id=idle.agent_id,
                priority=task.priority,
                generation=task.generation,
                title=title_of(task),
            )
            # build the frame now: a later command of the group may change the task
            claimed.tasks.append((idle, task_assign(task)))
        return claimed

    def _pairs(self, holds: Holds, queue: Queue) -> Iterable[tuple[Idle, QueuedTask]]:
        if holds.hub:
            return ()
        idle = [agent for agent in self.idle if agent.agent_id not in holds.agents]
        skills = frozenset[str]().union(*{agent.capabilities for agent in idle})
        waiting = queue.waiting_needs(skills, [agent.agent_id for agent in idle])
        return match(idle, holds.without_held(waiting), queue.heads)


def match(
    idle: Sequence[Idle],
    waiting: Iterable[tuple[int, Iterable[str]]],
    heads: Callable[[int, Sequence[str], int], list[QueuedTask]],
) -> Iterable[tuple[Idle, QueuedTask]]:
    """Pair each task, in the queue's order, with the longest idle agent that may have it.

    `waiting` gives for each lane the needs of its tasks. Tasks whose needs no idle agent meets are
    never read, so they cannot block the tasks behind them, however many there are.
    """
    free = list(idle)
    for priority, keys in waiting:
        can_do = servable(keys, free)
        if not can_do:
            continue
        for queued in heads(priority, can_do, min(len(free), CLAIM_MAX)):
            needs = needs_of(queued.needs)
            agent = next((a for a in free if needs.allow(a.agent_id, a.capabilities)), None)
            if agent is not None:
                free.remove(agent)
                yield agent, queued
            if not free:
                return


def servable(keys: Iterable[str], agents: Sequence[Idle]) -> list[str]:
    """The needs of tasks that at least one of these agents may have."""
    skills = SkillSets({agent.capabilities for agent in agents})
    found = []
    for key in keys:
        needs = needs_of(key)
        if skills.able(needs) and (
            needs.is_plain or any(needs.allow(a.agent_id, a.capabilities) for a in agents)
        ):
            found.append(key)
    return found


class SkillSets:
    """The sets of capabilities of several agents, indexed by each capability."""

    def __init__(self, skills: Collection[Skills]) -> None:
        self._holders = defaultdict[str, list[Skills]](list, {"": list(skills)})
        for able in skills:
            for capability in able:
                self._holders[capability].append(able)

    def able(self, needs: Needs) -> frozenset[Skills]:
        """The sets that meet these needs."""
        wanted = needs.capabilities
        holders = self._holders.get(rarest(wanted), ())
        return frozenset([able for able in holders if wanted <= able])


def frees(event: Event) -> bool:
    """Whether it frees an agent for its next task."""
    move = MOVES.get(event.kind)
    return event.kind == "agent_responded" if move is None else move.frees(event.data)


def offers(event: Event) -> bool:
    """Whether agents may get tasks now that they could not get before."""
    move = MOVES.get(event.kind)
    return event.kind == "hold_lifted" if move is None else move.queues(event.data)


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
    accepts: tuple[str, ...]

    def send_soon(self, message: Frame) -> None: ...

    def close_soon(self, code: int, reason: str | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Poll:
    """Changes nothing itself: it makes the Writer run a group, which `Dispatch` ends."""

    actor = actors.HUB

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> None: ...


@dataclass(frozen=True, slots=True)
class Dispatched:
    """The result of a group's `Dispatch`."""

    events: list[Event]  # of the group
    claimed: Claimed = field(default_factory=Claimed)
    seq: int = 0  # the claim has seen all events up to here; 0 if there was no claim
    reasons: int = 0  # how many reasons for a claim it covers


@dataclass(frozen=True, slots=True)
class Dispatch:
    """The last command of each group. It claims in the same commit that queued a task or freed an
    agent, so that neither waits for another commit and no other process has to wake up."""

    dispatcher: Dispatcher
    actor = actors.HUB

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> Dispatched:
        reasons = self.dispatcher.due.reasons
        idle = self.dispatcher.candidates(work.events)
        if not idle:
            return Dispatched(work.events)
        claimed = Claim(idle).apply(work)
        return Dispatched(work.events, claimed, work.next_seq - 1, reasons)


class Due:
    """Whether something happened that no claim has covered yet.

    Reasons are counted on the event loop; claims record their progress on the Writer's thread.
    """

    def __init__(self) -> None:
        self.reasons = 0  # reasons for a claim so far
        self._covered = 0  # how many of them a claim has covered
        self._seen_seq = 0  # the last claim has seen the journal up to here

    def __bool__(self) -> bool:
        return self.reasons > self._covered

    def add_reason(self) -> None:
        self.reasons += 1

    def is_unseen(self, event: Event) -> bool:
        return event.seq > self._seen_seq

    def record(self, done: Dispatched) -> None:
        self._covered, self._seen_seq = done.reasons, done.seq


class Dispatcher:
    """The idle agents of this process.

    Lives on the event loop and follows the journal; `candidates` and `committed` run on the
    Writer's thread. What either learns about an agent has a `seq`; older information is ignored.
    """

    def __init__(self) -> None:
        self.sockets: dict[str, AgentSocket] = {}
        self.due = Due()
        self._idle: dict[str, Idle] = {}  # longest idle first
        self._newest_seq: dict[str, int] = {}  # of the newest information about each agent
        self._lock = threading.Lock()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def join(self, socket: AgentSocket) -> AgentSocket | None:
        """Add the socket. Give the older socket of the same agent, if there was one.

        The agent counts as idle until a claim finds it busy: the task that it held may have been
        reclaimed between its commit and this call.
        """
        self._loop = asyncio.get_running_loop()
        with self._lock:
            older = self.sockets.get(socket.agent_id)
            self.sockets[socket.agent_id] = socket
            self._newest_seq[socket.agent_id] = socket.joined_seq
            self._mark_idle(socket.agent_id)
        self._request_claim()
        return older

    def leave(self, socket: AgentSocket) -> None:
        if self.sockets.get(socket.agent_id) is socket:
            with self._lock:
                del self.sockets[socket.agent_id]
                self._newest_seq.pop(socket.agent_id)
                self._idle.pop(socket.agent_id, None)

    def on_events(self, events: list[Event]) -> None:
        """Request a claim for tasks and agents that no claim of this process has seen yet."""
        queued = set()
        for event in events:
            if event.kind == "task_assigned":
                queued.discard(event.task_id)
            elif offers(event) and self.due.is_unseen(event):
                queued.add(event.task_id)
        with self._lock:
            has_freed = self._note(events)
        if has_freed or queued:
            self._request_claim()

    async def run(self) -> None:
        """Have a claim made whenever one is requested, until cancelled."""
        while True:
            if not await event_or_timeout(self._wake, POLL_S):
                self._request_claim()
                self._wake.clear()
            try:
                if self._idle:
                    await writer.do(Poll())
            except Unavailable as error:
                logger.warning("No task can be assigned: %s", error.detail)
                await asyncio.sleep(POLL_S)

    # --- On the Writer's thread

    def candidates(self, events: list[Event]) -> list[Idle]:
        """The idle agents and those that these events free; none if there is no reason to claim."""
        freed = [event.agent_id for event in events if frees(event)]
        if not (freed or self.due or any(offers(event) for event in events)):
            return []
        with self._lock:
            idle = dict(self._idle)
        for agent_id in freed:
            socket = self.sockets.get(agent_id or "")
            if socket is not None:
                idle[socket.agent_id] = _idle(socket)
        return list(idle.values())

    def committed(self, done: Dispatched) -> None:
        """The group with this result is committed."""
        with self._lock:
            self._note(done.events)
            for agent in done.claimed.busy:
                is_same = self._idle.get(agent.agent_id) == agent  # as the claim saw it
                if is_same and self._newest_seq[agent.agent_id] <= done.seq:
                    del self._idle[agent.agent_id]
        if done.seq and self._loop is not None and not self._loop.is_closed():
            self.due.record(done)
            self._loop.call_soon_threadsafe(self._push, done.claimed)

    def _push(self, claimed: Claimed) -> None:
        for agent, frame in claimed.tasks:
            socket = self.sockets.get(agent.agent_id)
            # otherwise the agent gets the task when it identifies, or the task is reclaimed
            if socket is not None and socket.connection == agent.connection:
                socket.send_soon(frame)
        if claimed.busy or len(claimed.tasks) == CLAIM_MAX:
            self._request_claim()

    def _request_claim(self) -> None:
        self.due.add_reason()
        self._wake.set()

    def _note(self, events: list[Event]) -> bool:
        """Give whether an agent has become idle. The caller holds the lock."""
        has_freed = False
        for event in events:
            agent_id = event.agent_id or ""
            if (is_freed := frees(event)) or event.kind == "task_assigned":
                if self._newest_seq.get(agent_id, math.inf) >= event.seq:
                    continue  # connected elsewhere, or already known
                self._newest_seq[agent_id] = event.seq
                if is_freed:
                    self._mark_idle(agent_id)
                    has_freed = True
                else:
                    self._idle.pop(agent_id, None)
        return has_freed

    def _mark_idle(self, agent_id: str) -> None:
        self._idle.pop(agent_id, None)  # so that it moves to the end
        self._idle[agent_id] = _idle(self.sockets[agent_id])


def _idle(socket: AgentSocket) -> Idle:
    return Idle(socket.agent_id, socket.connection, socket.capabilities)


dispatcher = Dispatcher()
