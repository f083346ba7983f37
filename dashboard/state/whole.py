"""All parts of the state together, their snapshot, and what has changed since the last patch."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

import orjson
from orjson import Fragment

from agentcom.database import millis
from agentcom.journal import last_seq
from agentcom.models import Event
from dashboard.health import subjects_of
from dashboard.state.agents import Agents
from dashboard.state.holds import Holds
from dashboard.state.newest import Completions, DeadLetters, Row
from dashboard.state.part import Part
from dashboard.state.queue import Queue
from dashboard.state.throughput import Throughput
from dashboard.state.windows import Orders, View, Wanted

P = TypeVar("P", bound=Part)
Data = dict[str, Any]

SECTIONS = ("seq", "health", "agents_by_state", "queue", "holds", "throughput")
# The lists, and what tells their rows apart. Those of agents may be long.
NEWEST = {"dead_letter_tasks": "id", "recent_completions": "task_id"}
OF_AGENTS = {"agents": "agent_id", "offline_agents": "agent_id"}
LISTS = {**OF_AGENTS, **NEWEST}
NO_AGENTS: Mapping[str, list[bytes]] = {name: [] for name in OF_AGENTS}

STARTED = time.monotonic()
PARTS: tuple[type[Part], ...] = (Agents, Queue, Throughput, Completions, DeadLetters, Holds)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state at one moment. `lists` has rows as JSON."""

    timestamp: int  # ms
    sections: Data
    lists: Mapping[str, list[bytes]]

    @property
    def seq(self) -> int:
        return int(self.sections["seq"])

    def with_window(self, view: View) -> Snapshot:
        """Of all agents only those in the window."""
        sections = {**self.sections, "agents_window": view.json()}
        return replace(self, sections=sections, lists={**self.lists, **NO_AGENTS})

    @cached_property
    def _lasting(self) -> bytes:
        lists = {name: Fragment(b"[%s]" % b",".join(rows)) for name, rows in self.lists.items()}
        return orjson.dumps({**self.sections, **lists})

    @cached_property
    def encoded(self) -> bytes:
        uptime_ms = int((time.monotonic() - STARTED) * 1000)
        moment = orjson.dumps({"uptime_ms": uptime_ms, "timestamp": self.timestamp})
        return moment[:-1] + b"," + self._lasting[1:]

    @cached_property
    def frame(self) -> str:
        return f'{{"type":"snapshot","data":{self.encoded.decode()}}}'

    @cached_property
    def without_agents(self) -> str:
        """The frame for viewers that get a window of them."""
        return replace(self, lists={**self.lists, **NO_AGENTS}).frame

    @cached_property
    def etag(self) -> str:
        return f'W/"{hashlib.sha256(self._lasting).hexdigest()[:32]}"'

    @property
    def page(self) -> Data:
        """What the page is drawn from: all but the agents."""
        data: Data = orjson.loads(replace(self, lists={**self.lists, **NO_AGENTS}).encoded)
        return data

    @cached_property
    def data(self) -> Data:
        data: Data = orjson.loads(self.encoded)
        return data


@dataclass
class State:
    """What was read from the database, and what the events since have changed."""

    parts: dict[type[Part], Part] = field(default_factory=dict)
    health: Data = field(default_factory=dict)  # of the light, see `dashboard.live`
    orders: Orders = field(default_factory=Orders)

    @property
    def is_known(self) -> bool:
        return bool(self.parts) and not any(part.is_unknown for part in self.parts.values())

    @property
    def newest(self) -> int:
        """The last event that any part includes: some may have been read later than others."""
        return max(part.seq for part in self.parts.values())

    def outdated(self) -> list[type[Part]]:
        """The parts that have to be read again, now or soon."""
        return [kind for kind in PARTS if _is_outdated(self.parts.get(kind))]

    def follow(self, events: Iterable[Event]) -> None:
        parts = tuple(self.parts.values())
        for event in events:
            for part in parts:
                part.follow(event)

    def replace(self, parts: Mapping[type[Part], Part]) -> None:
        """By some that were read later."""
        old, new = self.parts.get(Agents), parts.get(Agents)
        if isinstance(old, Agents) and isinstance(new, Agents):
            new.take_over(old)
        self.parts.update(parts)

    def snapshot(self, seq: int, now: datetime) -> Snapshot:
        """`seq`: of the last event that was followed. The state is known, and no part is ahead."""
        sections = self.sections(seq, now)
        rows = {name: list(map(orjson.dumps, rows)) for name, rows in self.newest_rows().items()}
        return Snapshot(millis(now), sections, {**self._part(Agents).lists(), **rows})

    def sections(self, seq: int, now: datetime) -> Data:
        self._part(Agents).move_to(now, subjects_of("agent_offline", self.health))
        return {
            "seq": seq,
            "health": self.health,
            "agents_by_state": self._part(Agents).by_state(),
            "queue": self._part(Queue).section(now),
            "holds": self._part(Holds).section(now),
            "throughput": self._part(Throughput).section(now),
        }

    def tasks(self) -> Mapping[tuple[str, int], int]:
        """By status and lane; those without any may be missing."""
        return self._part(Queue).counts

    def window(self, wanted: Wanted, must: bool = False) -> View | None:
        return self.orders.view(self._part(Agents), wanted, must)

    def newest_rows(self) -> dict[str, list[Row]]:
        return {
            "dead_letter_tasks": self._part(DeadLetters).newest(),
            "recent_completions": self._part(Completions).newest(),
        }

    def take_changed_agents(self) -> Data:
        return self._part(Agents).take_changes()

    def _part(self, kind: type[P]) -> P:
        part = self.parts[kind]
        assert isinstance(part, kind)
        return part


def read(now: datetime, kinds: Iterable[type[Part]] = PARTS) -> dict[type[Part], Part]:
    """These parts, in a transaction of the caller that reads all at one moment."""
    seq = last_seq()
    parts = {kind: kind.read(now) for kind in kinds}
    for part in parts.values():
        part.seq = seq
    return parts


def _is_outdated(part: Part | None) -> bool:
    return part is None or part.is_unknown or part.runs_low


class Patches:
    """What viewers were last told, to tell them what differs."""

    def __init__(self) -> None:
        self._sections: Data = {}
        self._rows: dict[str, dict[str, Row]] = {}

    def take(self, state: State, seq: int, now: datetime) -> Data:
        """The content of a `patch` frame: changed sections whole, lists as upserts and removals."""
        sections, rows = state.sections(seq, now), state.newest_rows()
        patch = {
            name: sections[name] for name in SECTIONS if sections[name] != self._sections.get(name)
        }
        for name, key in NEWEST.items():
            after = {row[key]: row for row in rows[name]}
            before, self._rows[name] = self._rows.get(name, {}), after
            upsert = [row for id_, row in after.items() if before.get(id_) != row]
            remove = [id_ for id_ in before if id_ not in after]
            if upsert or remove:
                patch[name] = {"upsert": upsert, "remove": remove}
        self._sections = sections
        return {**patch, **state.take_changed_agents()}
