"""Which agents lost their connection or threw each other out, and how often, as the journal says.

It is read on from the last tick's end, so that a tick reads what is new and no more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agentcom.journal import last_seq
from agentcom.models import Event

KINDS = ("agent_joined", "agent_left")
PAGE = 5_000  # joins and leaves a tick
BACK = 100_000  # journal entries that a new worker looks back

# An agent that comes back to a connection that the hub still thinks alive takes over once or
# twice; two processes with one name do so for as long as both come back.
TAKEOVERS, CONTEST = 4, timedelta(minutes=1)
LOSSES, FLAPPING = 5, timedelta(minutes=10)


@dataclass(slots=True)
class Comings:
    """Of one agent."""

    connection: str = ""  # the one that counts; none when it left
    last: datetime | None = None
    takeovers: deque[datetime] = field(default_factory=lambda: deque(maxlen=TAKEOVERS))
    losses: deque[datetime] = field(default_factory=lambda: deque(maxlen=LOSSES))


class Connections:
    """The joins and leaves of the last minutes."""

    def __init__(self) -> None:
        self._seq: int | None = None  # read up to here
        self._agents: dict[str, Comings] = {}  # by their last event, oldest first

    def read_on(self, now: datetime) -> None:
        newest = last_seq()
        since = max(0, newest - BACK) if self._seq is None else self._seq
        events = Event.objects.filter(seq__gt=since, seq__lte=newest, kind__in=KINDS)
        rows = list(
            events.order_by("seq").values_list("seq", "kind", "agent_id", "at", "data")[:PAGE]
        )
        for _, kind, agent_id, at, data in rows:
            self._note(kind, agent_id or "", at, data)
        self._seq = rows[-1][0] if len(rows) == PAGE else newest
        self._forget(now)

    def contested(self, now: datetime) -> list[str]:
        """Names that several processes use at once."""
        return [
            agent_id
            for agent_id, comings in self._agents.items()
            if _often(comings.takeovers, CONTEST, now)
        ]

    def flapping(self, now: datetime) -> list[str]:
        """Agents that lost their connection time and again."""
        return [
            agent_id
            for agent_id, comings in self._agents.items()
            if _often(comings.losses, FLAPPING, now)
        ]

    def _note(self, kind: str, agent_id: str, at: datetime, data: dict[str, object]) -> None:
        comings = self._agents.pop(agent_id, None) or Comings()
        self._agents[agent_id] = comings
        comings.last = at
        if kind == "agent_joined":
            if comings.connection:
                comings.takeovers.append(at)
            comings.connection = str(data["connection"])
        else:
            comings.connection = ""
            if not data["signed_off"]:
                comings.losses.append(at)

    def _forget(self, now: datetime) -> None:
        """Those of whom nothing was heard for as long as anything counts."""
        while self._agents:
            agent_id, comings = next(iter(self._agents.items()))
            if comings.last is not None and _is_within(comings.last, FLAPPING, now):
                break
            del self._agents[agent_id]


def _often(times: deque[datetime], window: timedelta, now: datetime) -> bool:
    return len(times) == times.maxlen and _is_within(times[0], window, now)


def _is_within(at: datetime, window: timedelta, now: datetime) -> bool:
    """A time that is further ahead than the window is long is of a clock that was wrong."""
    return abs(now - at) < window
