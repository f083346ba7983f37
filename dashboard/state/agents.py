"""The agents that are connected, and those that were lost lately."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import orjson
from django.conf import settings

from agentcom.database import millis
from agentcom.models import Event
from agentcom.redaction import masked_text
from counters.hours import COUNTERS, hour_of, this_hour
from dashboard.health import current_health, subjects_of
from dashboard.state.changes import AGENTS_MAX, AgentChanges, Changes
from dashboard.state.part import Part, Unfit, facts_of
from dashboard.titles import title_of, titles_of
from fleet.models import Agent, AgentState
from fleet.presence import ABOUT_AGENTS, follow_task, leave, respond

NOTHING = (0, 0)


@dataclass(slots=True)
class Shown:
    """What of an agent is shown, or decides what is."""

    agent_id: str
    name: str
    status: str
    capabilities: list[str]
    accepts: list[str]
    fsm_state: str
    current_task_id: str | None
    connected_at: datetime | None
    last_seen: datetime | None
    last_state_change: datetime | None
    disconnected_at: datetime | None = None
    signed_off: bool = False
    recovering_since: datetime | None = None
    unanswered: int = 0
    title: str | None = None  # of its task
    done: tuple[int, int] = NOTHING  # tasks completed and failed this hour
    encoded: bytes | None = None  # its row, until something changes

    @property
    def is_connected(self) -> bool:
        return self.fsm_state != AgentState.OFFLINE

    @property
    def list_name(self) -> str:
        return "agents" if self.is_connected else "offline_agents"

    def row(self) -> bytes:
        if self.encoded is None:
            self.encoded = orjson.dumps(_connected(self) if self.is_connected else _lost(self))
        return self.encoded


COLUMNS = tuple(name for name in Shown.__slots__ if name not in ("title", "done", "encoded"))


class Agents(Part):
    """Keeps which agents have changed since `take_changes`."""

    kinds = frozenset(
        {
            *ABOUT_AGENTS,
            *("agent_joined", "agent_left", "agent_forgotten", "agent_responded"),
            *("status_changed", "times_reset"),
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self._agents: dict[str, Shown] = {}
        self._done: dict[str, tuple[int, int]] = {}  # this hour, also of agents that are gone
        self._hour: datetime | None = None
        self._named: frozenset[str] = frozenset()  # by the light: shown however long they are lost
        self._oldest_loss: datetime | None = None  # of those that are shown for a time only
        self._order: list[str] | None = None
        self._by_state: Counter[str] = Counter()
        self._changes = AgentChanges()
        self.version = 0  # grows with every change

    @classmethod
    def read(cls, now: datetime) -> Self:
        part = cls()
        named = subjects_of("agent_offline", current_health(now))
        part._hour, part._done, part._named = hour_of(now), this_hour(now), frozenset(named)
        shown = Agent.objects.connected() | Agent.objects.lately_lost(now - _window())
        if named:
            shown |= Agent.objects.lost().filter(agent_id__in=named)
        for columns in shown.order_by().values_list(*COLUMNS):
            agent = Shown(*columns)
            agent.done = part._done.get(agent.agent_id, NOTHING)
            part._agents[agent.agent_id] = agent
            part._by_state[agent.fsm_state] += 1
            part._note_loss(agent)
        held = {agent.current_task_id: None for agent in part._agents.values()}
        titles = titles_of(task_id for task_id in held if task_id is not None)
        for agent in part._agents.values():
            agent.title = titles.get(agent.current_task_id or "")
        return part

    # --- What happens

    def apply(self, event: Event) -> None:
        if event.kind == "times_reset":
            raise Unfit("rows were changed without saying which")
        agent_id = event.agent_id or ""
        if event.kind in COUNTERS:
            self._count(agent_id, COUNTERS[event.kind], event.at)
        before = self._agents.get(agent_id)
        self._by_state[before.fsm_state if before else ""] -= 1
        if event.kind == "agent_joined":
            self._join(agent_id, event)
        elif before is not None:
            self._change(before, event)
        after = self._agents.get(agent_id)
        self._by_state[after.fsm_state if after else ""] += 1

    def _join(self, agent_id: str, event: Event) -> None:
        told, held = event.data["agent"], event.data["held"]
        self._touch(agent_id)
        self._agents[agent_id] = agent = Shown(
            agent_id,
            told["name"],
            told["status"],
            told["capabilities"],
            event.data["accepts"],
            told["fsm_state"],
            held,
            *(event.at,) * 3,
        )
        agent.title = title_of(facts_of(event)) if held else None
        agent.done = self._done.get(agent_id, NOTHING)
        self._order = None

    def _change(self, agent: Shown, event: Event) -> None:
        held = agent.current_task_id
        self._touch(agent.agent_id)
        if event.kind in ABOUT_AGENTS:
            follow_task(agent, event)
        elif event.kind == "agent_responded":
            respond(agent, event.at)
        elif event.kind == "status_changed":
            agent.status, agent.last_seen = event.data["agent"]["status"], event.at
        elif event.kind == "agent_left":
            leave(agent, event.data["signed_off"], event.at)
            self._note_loss(agent)
        if event.kind == "agent_forgotten" or agent.signed_off:
            del self._agents[agent.agent_id]
        if agent.current_task_id != held:
            is_new = agent.current_task_id is not None
            agent.title = title_of(facts_of(event)) if is_new else None

    def _touch(self, agent_id: str) -> None:
        """To be called before the agent changes."""
        agent = self._agents.get(agent_id)
        self._changes.note(agent_id, agent)
        self.version += 1
        if agent is not None:
            agent.encoded = None

    def _note_loss(self, agent: Shown) -> None:
        at = agent.disconnected_at
        if at is not None and (self._oldest_loss is None or at < self._oldest_loss):
            self._oldest_loss = at

    def _count(self, agent_id: str, counter: str, at: datetime) -> None:
        self._turn_hour(hour_of(at))
        completed, failed = self._done.get(agent_id, NOTHING)
        is_done = counter == "completed"
        self._done[agent_id] = done = (completed + is_done, failed + (not is_done))
        if agent := self._agents.get(agent_id):
            self._touch(agent_id)
            agent.done = done

    # --- What only time does

    def _turn_hour(self, hour: datetime) -> None:
        """All begin to count anew. Raises `Unfit` if the clock was set back."""
        if hour == self._hour:
            return
        if self._hour is not None and hour < self._hour:
            raise Unfit("the counts of an earlier hour are not kept")
        self._hour, self._done = hour, {}
        for agent in self._agents.values():
            if agent.done != NOTHING:
                self._touch(agent.agent_id)
                agent.done = NOTHING

    def move_to(self, now: datetime, named: Iterable[str]) -> None:
        """Bring what depends on the time up to date. `named`: whom the light says to be lost."""
        names = frozenset(named)
        if self._hour is not None and hour_of(now) > self._hour:
            self._turn_hour(hour_of(now))
        if any(name not in self._agents for name in names - self._named):
            self.runs_low = True  # one that was lost before the window, by this clock
        is_over = self._oldest_loss is not None and self._oldest_loss <= now - _window()
        if is_over or self._named - names:
            self._named = names
            self._drop_retired(now - _window())
        self._named = names

    def _drop_retired(self, since: datetime) -> None:
        self._oldest_loss = None
        for agent in list(self._agents.values()):
            lost_at = agent.disconnected_at
            if agent.is_connected or lost_at is None:
                continue
            if lost_at > since:
                self._note_loss(agent)
            elif agent.agent_id not in self._named:
                self._touch(agent.agent_id)
                del self._agents[agent.agent_id]
                self._by_state[agent.fsm_state] -= 1

    # --- As viewers see it

    def __len__(self) -> int:
        return len(self._agents)

    def by_state(self) -> dict[str, int]:
        return {state: self._by_state[state] for state in AgentState.values}

    def row(self, agent_id: str) -> bytes | None:
        agent = self._agents.get(agent_id)
        return agent.row() if agent else None

    def lists(self) -> dict[str, list[bytes]]:
        """The rows of `agents` and `offline_agents`, by id; at most `AGENTS_MAX` of each."""
        return {
            name: [self._agents[agent_id].row() for agent_id in ids]
            for name, ids in self._listed().items()
        }

    def _listed(self) -> dict[str, list[str]]:
        lists: dict[str, list[str]] = {"agents": [], "offline_agents": []}
        for agent in self.in_order():
            listed = lists[agent.list_name]
            if len(listed) < AGENTS_MAX:
                listed.append(agent.agent_id)
        return lists

    def _sizes(self) -> tuple[int, int]:
        """How many are connected, and how many are not."""
        offline = self._by_state[AgentState.OFFLINE]
        return len(self._agents) - offline, offline

    def take_changes(self) -> Changes:
        """For each list ``{"upsert": [rows], "remove": [ids]}``, since the last call."""
        is_cut = max(self._sizes()) > AGENTS_MAX
        return self._changes.take(self._agents, self._listed() if is_cut else None)

    def take_over(self, older: Agents) -> None:
        """Viewers have seen an older part; what differs has changed for them."""
        self._changes.note_all(older._changes, older._agents, self._agents)
        self.version = older.version + 1

    def in_order(self) -> Iterator[Shown]:
        """By code point, as viewers sort when they apply patches; a database may differ."""
        if self._order is None or len(self._order) > 2 * len(self._agents):
            self._order = sorted(self._agents)
        agents = self._agents
        return (agents[agent_id] for agent_id in self._order if agent_id in agents)


def _window() -> timedelta:
    return timedelta(seconds=settings.AGENTCOM_OFFLINE_WINDOW_S)


def _connected(agent: Shown) -> dict[str, Any]:
    return {
        "agent_id": agent.agent_id,
        "name": agent.name,
        "status": masked_text(agent.status),
        "fsm_state": agent.fsm_state,
        "current_task_id": agent.current_task_id,
        "capabilities": agent.capabilities,
        "accepts": agent.accepts,
        "connected_at": millis(agent.connected_at),
        "last_state_change": millis(agent.last_state_change),
        "last_seen": millis(agent.last_seen),
        **_task_and_hour(agent),
    }


def _lost(agent: Shown) -> dict[str, Any]:
    return {
        "agent_id": agent.agent_id,
        "name": agent.name,
        "capabilities": agent.capabilities,
        "current_task_id": agent.current_task_id,
        "last_seen": millis(agent.disconnected_at),
        **_task_and_hour(agent),
    }


def _task_and_hour(agent: Shown) -> dict[str, Any]:
    completed, failed = agent.done
    return {
        "current_task_title": agent.title,
        "completed_this_hour": completed,
        "failed_this_hour": failed,
    }
