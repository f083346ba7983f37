"""Which agents lost their connection or replaced each other's, and how often: from the journal.

Each tick reads only the entries that are newer than those of the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agentcom.journal import last_seq
from agentcom.models import Event

KINDS = ("agent_joined", "agent_left", "agent_forgotten")
PAGE = 5_000  # of these per tick
BACKLOG = 100_000  # older journal entries that a new worker reads

# An agent that reconnects while the hub still considers its old connection alive takes over once
# or twice. Two processes with one name do so for as long as both reconnect.
TAKEOVERS, CONTEST = 4, timedelta(minutes=1)
LOSSES, FLAPPING = 5, timedelta(minutes=10)


@dataclass(slots=True)
class AgentHistory:
    """The latest joins and losses of one agent. In tuples: even an empty deque has 0.7 kB."""

    connection: str = ""  # its current connection; empty when it left
    last: datetime | None = None
    takeovers: tuple[datetime, ...] = ()  # at most TAKEOVERS
    losses: tuple[datetime, ...] = ()  # at most LOSSES


class Connections:
    """The joins and leaves of the last minutes."""

    def __init__(self) -> None:
        self._seq: int | None = None  # read up to here
        self._agents: dict[str, AgentHistory] = {}  # by their last event, oldest first

    def read_new(self, now: datetime) -> set[str]:
        """Give the agents that somebody has forgotten since the last tick."""
        newest = last_seq()
        since = max(0, newest - BACKLOG) if self._seq is None else self._seq
        events = Event.objects.filter(seq__gt=since, seq__lte=newest, kind__in=KINDS)
        rows = list(
            events.order_by("seq").values_list("seq", "kind", "agent_id", "at", "data")[:PAGE]
        )
        forgotten = set()
        for _, kind, agent_id, at, data in rows:
            if kind == "agent_forgotten":
                self._agents.pop(agent_id or "", None)
                forgotten.add(agent_id or "")
            else:
                self._note(kind, agent_id or "", at, data)
                forgotten.discard(agent_id or "")
        self._seq = rows[-1][0] if len(rows) == PAGE else newest
        self._forget(now)
        return forgotten

    def contested(self, now: datetime) -> list[str]:
        """Names that several processes use at once."""
        return [
            agent_id
            for agent_id, history in self._agents.items()
            if _is_frequent(history.takeovers, TAKEOVERS, CONTEST, now)
        ]

    def flapping(self, now: datetime) -> list[str]:
        """Agents that lost their connection repeatedly."""
        return [
            agent_id
            for agent_id, history in self._agents.items()
            if _is_frequent(history.losses, LOSSES, FLAPPING, now)
        ]

    def _note(self, kind: str, agent_id: str, at: datetime, data: dict[str, object]) -> None:
        history = self._agents.pop(agent_id, None) or AgentHistory()
        self._agents[agent_id] = history
        history.last = at
        if kind == "agent_joined":
            if history.connection:
                history.takeovers = (*history.takeovers, at)[-TAKEOVERS:]
            history.connection = str(data["connection"])
        else:
            history.connection = ""
            if not data["signed_off"]:
                history.losses = (*history.losses, at)[-LOSSES:]

    def _forget(self, now: datetime) -> None:
        """Drop agents whose last event is older than the longest window."""
        while self._agents:
            agent_id, history = next(iter(self._agents.items()))
            if history.last is not None and _is_within(history.last, FLAPPING, now):
                break
            del self._agents[agent_id]


def _is_frequent(times: Sequence[datetime], number: int, window: timedelta, now: datetime) -> bool:
    return len(times) == number and _is_within(times[0], window, now)


def _is_within(at: datetime, window: timedelta, now: datetime) -> bool:
    """Times may lie ahead by less than the window; others came from a wrong clock."""
    return abs(now - at) < window
