"""Which agents are connected: joining and leaving, and agent rows that follow their tasks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from agentcom import actors
from agentcom.audit.entries import Act, What
from agentcom.database import millis
from agentcom.errors import Refused
from agentcom.models import Event
from agentcom.rights import RIGHTS, Right
from agentcom.texts import cut
from agentcom.wire import encode
from agentcom.work import Command, Wanted, Work
from fleet.models import Agent, AgentState, AgentToken
from fleet.names import slot_id
from fleet.protocol import MAX_TEXT, Frame, Message, agent_json, task_assign, task_cancel
from tasks.models import QueueError, Status, Task
from tasks.moves import MOVES
from tasks.queue import OnTask, Reclaim, Why


class TokenRefused(Refused):
    """`invalid_token` or `token_agent_mismatch`."""


def hash_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Identified:
    push: Frame | None  # its assignment, if not accepted yet, or the request to cancel it
    seq: int  # of its `agent_joined`


@dataclass(frozen=True, slots=True)
class Identify:
    """Connect an agent's socket. Only the newest socket of an agent speaks for it.

    An agent that already holds a task keeps it: a task not yet accepted is pushed again; for an
    accepted one the hub waits for `task_recovering`. Raises `TokenRefused`.
    """

    agent_id: str
    token_hash: str
    connection: str
    node: str
    name: str | None = None
    status: str | None = None
    capabilities: tuple[str, ...] = ()
    accepts: tuple[str, ...] = ()
    slot: int | None = None  # of the agent whose token it is; then `agent_id` is the slot's

    @property
    def actor(self) -> str:
        return actors.agent(self.agent_id)

    def rows(self) -> Wanted:
        return [(AgentToken, [self.token_hash]), (Agent, [self.agent_id])]

    def apply(self, work: Work) -> Identified:
        token = work.get(AgentToken, self.token_hash)
        if token is None or not token.is_valid(work.now):
            raise TokenRefused("invalid_token")
        if Right.WORK not in RIGHTS[token.grant.kind]:
            raise TokenRefused("invalid_token")
        if slot_id(token.name, self.slot) != self.agent_id:
            raise TokenRefused("token_agent_mismatch")
        agent = work.get(Agent, self.agent_id)
        if agent is None:
            agent = Agent(agent_id=self.agent_id)
            work.add(agent)
        held = _held_task(work, agent)
        self._fill(agent, work, held)
        joined = work.emit(
            "agent_joined",
            agent_id=self.agent_id,
            agent=agent_json(agent),
            connection=self.connection,
            accepts=agent.accepts,
            held=agent.current_task_id,
        )
        return Identified(self._push(held), joined.seq)

    def _push(self, held: Task | None) -> Frame | None:
        """Built now: a later command of the group may change the task."""
        if held is None:
            return None
        if held.is_cancelling:
            return cancel_frame(held) if "cancel" in self.accepts else None
        return task_assign(held) if held.accepted_at is None else None

    def _fill(self, agent: Agent, work: Work, held: Task | None) -> None:
        if agent.node not in ("", self.node):
            agent.dropped_by_hub = True  # the other process did not even notice
        agent.name = self.agent_id if self.name is None else self.name
        agent.status = self.status or ""
        agent.capabilities = sorted(set(self.capabilities))
        agent.accepts = sorted(set(self.accepts))
        agent.connection, agent.node = self.connection, self.node
        agent.connected_at = agent.last_seen = agent.last_state_change = work.now
        agent.disconnected_at = None
        agent.signed_off = False
        agent.unanswered = 0
        agent.current_task_id = held.task_id if held else None
        agent.recovering_since = work.now if held and held.accepted_at else None
        if held is None:
            agent.fsm_state = AgentState.IDLE
        elif held.accepted_at is None:
            agent.fsm_state = AgentState.ASSIGNED
        else:
            agent.fsm_state = AgentState.BLOCKED if held.blocked_at else AgentState.WORKING


@dataclass(frozen=True, slots=True)
class Leave:
    """An agent's socket was closed. With `signed_off`, on purpose: its task is requeued at once.
    `by_hub`: because this process stops."""

    agent_id: str
    connection: str
    signed_off: bool = False
    by_hub: bool = False

    @property
    def actor(self) -> str:
        return actors.agent(self.agent_id) if self.signed_off else actors.HUB

    def rows(self) -> Wanted:
        return [(Agent, [self.agent_id])]

    def apply(self, work: Work) -> None:
        agent = work.get(Agent, self.agent_id)
        if agent is None or agent.connection != self.connection:
            return  # a newer socket speaks for the agent
        held = _held_task(work, agent)
        if self.signed_off and held is not None:
            Reclaim(held.task_id, self.agent_id, held.generation, reason="signed off").apply(work)
        agent.last_seen = work.now
        go_offline(agent, work, signed_off=self.signed_off, by_hub=self.by_hub)


@dataclass(frozen=True, slots=True)
class Recover:
    """An agent that reconnected asks for its task.

    Gives the generation, or None if the agent no longer holds it.
    """

    task_id: str
    agent_id: str

    @property
    def actor(self) -> str:
        return actors.agent(self.agent_id)

    def rows(self) -> Wanted:
        return [(Task, [self.task_id]), (Agent, [self.agent_id])]

    def apply(self, work: Work) -> int | None:
        task, agent = work.get(Task, self.task_id), work.get(Agent, self.agent_id)
        if agent is not None and agent.fsm_state == AgentState.UNRESPONSIVE:
            work.emit("agent_responded", agent_id=self.agent_id)
        if task is None or agent is None:
            return None
        try:
            task.show_life(self.agent_id, None, work.now)
        except QueueError:
            # It drops the task now; nothing else would be heard of it.
            if agent.fsm_state == AgentState.STOPPING and agent.current_task_id == self.task_id:
                work.emit("agent_responded", agent_id=self.agent_id)
            return None
        agent.recovering_since = None
        if task.accept(self.agent_id, task.generation, work.now):
            work.emit(
                "task_accepted",
                task_id=self.task_id,
                agent_id=self.agent_id,
                generation=task.generation,
            )
        return task.generation


@dataclass(frozen=True, slots=True)
class SetStatus:
    agent_id: str
    status: str

    @property
    def actor(self) -> str:
        return actors.agent(self.agent_id)

    def rows(self) -> Wanted:
        return [(Agent, [self.agent_id])]

    def apply(self, work: Work) -> None:
        agent = work.get(Agent, self.agent_id)
        if agent is None:
            return
        if agent.fsm_state == AgentState.UNRESPONSIVE:
            work.emit("agent_responded", agent_id=self.agent_id)
        if agent.status != self.status:
            agent.status = self.status
            agent.last_seen = work.now
            work.emit("status_changed", agent_id=self.agent_id, agent=agent_json(agent))


# what an agent says when it has stopped working on a task
ENDS = {"task_complete", "task_failed", "task_rejected", "task_cancelled"}


@dataclass(frozen=True, slots=True)
class Said:
    """An agent's message about a task. If it is refused, but is what the hub has waited for, the
    agent is free, and the message is kept in the journal as evidence."""

    verb: OnTask
    message: Message

    @property
    def actor(self) -> str:
        return self.verb.actor

    @property
    def agent_id(self) -> str:
        return self.verb.agent_id

    def rows(self) -> Wanted:
        return self.verb.rows()

    def apply(self, work: Work) -> Any:
        try:
            answer = self.verb.apply(work)
        except QueueError as refused:
            if not (self._note_response(work) or self._note_late(work)):
                raise
            return refused
        self._note_response(work)  # as when it repeats a completion whose ack was lost
        return answer

    def _note_response(self, work: Work) -> bool:
        agent = work.get(Agent, self.agent_id)
        if agent is None or agent.fsm_state != AgentState.UNRESPONSIVE:
            return False
        work.emit("agent_responded", agent_id=self.agent_id)
        return True

    def _note_late(self, work: Work) -> bool:
        agent = work.get(Agent, self.agent_id)
        if agent is None:
            return False
        if agent.fsm_state != AgentState.STOPPING or agent.current_task_id != self.verb.task_id:
            return False
        if self.message.type not in ENDS:
            return False  # it still works on it
        work.emit(
            "task_late",
            task_id=self.verb.task_id,
            agent_id=self.agent_id,
            said=self.message.type,
            message=self._text(),
            generation=self.verb.generation,
            tokens_used=self.message.fields.get("tokens_used"),
        )
        return True

    def _text(self) -> str | None:
        fields = self.message.fields
        if result := fields.get("result"):
            return cut(encode(result).decode(), MAX_TEXT)
        return fields.get("error") or fields.get("reason") or fields.get("message")


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete an agent that is offline and holds no task. Raises `Refused`."""

    agent_id: str
    actor: str

    def rows(self) -> Wanted:
        return [(Agent, [self.agent_id])]

    def apply(self, work: Work) -> None:
        agent = work.get(Agent, self.agent_id)
        if agent is None:
            raise Refused("agent_not_found")
        if agent.fsm_state != AgentState.OFFLINE:
            raise Refused("agent_connected")
        if agent.current_task_id is not None:
            raise Refused("agent_holds_task", "its task is reclaimed first")
        work.remove(agent)
        work.emit("agent_forgotten", agent_id=self.agent_id)

    def act(self, result: Any = None) -> Act:
        return Act(What.AGENT_FORGET, self.agent_id)


def go_offline(agent: Agent, work: Work, *, signed_off: bool, by_hub: bool = False) -> None:
    """The socket that spoke for the agent is closed. `by_hub`: with the process that held it."""
    gone = agent.connection
    leave(agent, signed_off, work.now)
    agent.dropped_by_hub = by_hub
    agent.connection = agent.node = ""
    work.emit("agent_left", agent_id=agent.agent_id, signed_off=signed_off, connection=gone)


def cancel_frame(task: Task) -> Frame:
    return task_cancel(
        task.task_id, task.generation, task.cancel_reason, millis(task.cancel_deadline)
    )


def _held_task(work: Work, agent: Agent) -> Task | None:
    if agent.current_task_id is None:
        return None
    task = work.get(Task, agent.current_task_id)
    if task is None or task.status != Status.ASSIGNED or task.assigned_to != agent.agent_id:
        return None
    return task


# --- Agent rows follow what happens to their tasks

ABOUT_AGENTS = frozenset(kind for kind, move in MOVES.items() if move.agent or move.by_agent)
UNANSWERED_MAX = 2  # tasks that an agent may fail to accept in a row
FREE = (AgentState.IDLE, AgentState.UNRESPONSIVE)  # it has no task


class Presence(Protocol):
    """What of an agent follows its tasks: of its row, and of a copy in memory."""

    agent_id: str
    fsm_state: str
    current_task_id: str | None
    last_seen: datetime | None
    last_state_change: datetime | None
    disconnected_at: datetime | None
    signed_off: bool
    recovering_since: datetime | None
    unanswered: int


def leave(agent: Presence, signed_off: bool, now: datetime) -> None:
    """It is no longer connected."""
    if agent.fsm_state in (AgentState.STOPPING, AgentState.UNRESPONSIVE):
        agent.current_task_id = None  # it will not be waited for
    agent.fsm_state = AgentState.OFFLINE
    agent.disconnected_at = agent.last_state_change = now
    agent.recovering_since = None
    agent.signed_off = signed_off


def respond(agent: Presence, now: datetime) -> None:
    """It answers again, and is free."""
    agent.last_seen, agent.unanswered = now, 0
    agent.current_task_id = None
    _set_state(agent, AgentState.IDLE, now)


def follow_task(agent: Presence, event: Event) -> None:
    """Something happened to its task; `event` is one of `ABOUT_AGENTS`."""
    move = MOVES[event.kind]
    if move.by_agent or event.actor == actors.agent(agent.agent_id):
        agent.last_seen, agent.unanswered = event.at, 0
    agent.recovering_since = None  # the agent answered, or the hub no longer waits
    state = move.agent_after(event.data)
    if state is None:
        return
    if event.kind == "task_reclaimed" and event.data["why"] == Why.NOT_ACCEPTED:
        agent.unanswered += 1
        if agent.unanswered >= UNANSWERED_MAX:
            state = AgentState.UNRESPONSIVE
    is_gone = agent.fsm_state == AgentState.OFFLINE  # and so not waited for
    is_free = state in FREE or (state == AgentState.STOPPING and is_gone)
    agent.current_task_id = None if is_free else event.task_id
    _set_state(agent, AgentState(state), event.at)


def _set_state(agent: Presence, state: AgentState, now: datetime) -> None:
    if agent.fsm_state not in (AgentState.OFFLINE, state):
        agent.fsm_state = state
        agent.last_state_change = now


class AgentProjection:
    """Brings the agent's state and current task up to date with what happened to its task."""

    def rows(self, command: Command) -> Wanted:
        agent_id = getattr(command, "agent_id", None)
        return [(Agent, [agent_id])] if agent_id else []

    def __call__(self, work: Work, event: Event) -> None:
        if event.agent_id is None:
            return
        if event.kind in ABOUT_AGENTS:
            if agent := work.get(Agent, event.agent_id):
                follow_task(agent, event)
        elif event.kind == "agent_responded" and (agent := work.get(Agent, event.agent_id)):
            respond(agent, event.at)


project_agent = AgentProjection()


# --- Who is connected


def connected_agents() -> list[dict[str, Any]]:
    """As other agents see them."""
    return [agent_json(agent) for agent in Agent.objects.connected()]
