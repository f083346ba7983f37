"""Parts of the list of agents: sorted and filtered here, for viewers that ask for a few rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orjson import Fragment

from agentcom.database import millis
from dashboard.state.agents import Agents, Shown

ROWS_MAX = 200  # of a window
COUNT = 50  # of one that does not say how many
FILTER_MAX = 200  # characters
# Sorting takes at most so much of the time: a tenth of a processor, however large the fleet.
COST_SHARE = 10
KEPT = 50  # orders
NOTHING: Mapping[str, bytes] = {}

# what wants a person's eye comes first
STATES = ("unresponsive", "stopping", "blocked", "offline", "assigned", "working", "idle")


def _seen(agent: Shown) -> int:
    return millis(agent.last_seen if agent.is_connected else agent.disconnected_at) or -1


SORTS: Mapping[str, Callable[[Shown], Any]] = {
    "name": lambda agent: (agent.name or agent.agent_id).lower(),
    "state": lambda agent: STATES.index(agent.fsm_state),
    "task": lambda agent: (agent.title or agent.current_task_id or "").lower(),
    "capabilities": lambda agent: ", ".join(agent.capabilities),
    "last_seen": _seen,
    "completed": lambda agent: agent.done[0],
    "failed": lambda agent: agent.done[1],
}


@dataclass(frozen=True, slots=True)
class Order:
    """How the agents are sorted, and which of them are listed."""

    sort: str = "name"
    descends: bool = False
    words: tuple[str, ...] = ()  # in lower case; an agent has all of them

    def of(self, agents: Agents) -> list[str]:
        """Equals are sorted by id."""
        listed = [agent for agent in agents.in_order() if self._has(agent)]
        listed.sort(key=SORTS[self.sort], reverse=self.descends)
        return [agent.agent_id for agent in listed]

    def _has(self, agent: Shown) -> bool:
        if not self.words:
            return True
        searched = "\n".join(
            (
                *(agent.agent_id, agent.name, agent.fsm_state, agent.current_task_id or ""),
                *(agent.title or "", ", ".join(agent.capabilities)),
            )
        ).lower()
        return all(word in searched for word in self.words)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A window: `count` rows of an order, from the row `first` on, counted from 0."""

    order: Order = Order()
    first: int = 0
    count: int = COUNT


@dataclass(frozen=True, slots=True)
class View:
    """What is in a window: the rows in their order, of so many that match, of so many agents."""

    wanted: Wanted
    total: int
    matching: int
    rows: Mapping[str, bytes]  # by id

    def json(self, known: Mapping[str, bytes] = NOTHING) -> dict[str, Any]:
        """As `agents_window`, without the rows that the viewer knows."""
        order = self.wanted.order
        return {
            "sort": f"-{order.sort}" if order.descends else order.sort,
            "filter": " ".join(order.words),
            "from": self.wanted.first,
            "count": self.wanted.count,
            "total": self.total,
            "matching": self.matching,
            "ids": list(self.rows),
            "rows": [Fragment(row) for id, row in self.rows.items() if known.get(id) != row],
        }


class Orders:
    """The orders that viewers look at, sorted again when something has changed and it is time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sorted: dict[Order, tuple[int, list[str]]] = {}  # with the version that was sorted
        self._next_at = 0.0

    def view(self, agents: Agents, wanted: Wanted, must: bool = False) -> View | None:
        """None if the order is not known yet and it is too early to sort again, unless it `must`.

        Rows are always up to date; their order may be that of a moment ago.
        """
        version, ids = self._sorted.pop(wanted.order, (-1, None))
        if ids is None and not must and self._clock() < self._next_at:
            return None
        if ids is None or (version != agents.version and self._clock() >= self._next_at):
            version, ids = agents.version, self._sort(agents, wanted.order)
        self._sorted[wanted.order] = version, ids
        while len(self._sorted) > KEPT:
            del self._sorted[next(iter(self._sorted))]
        shown = ids[wanted.first : wanted.first + wanted.count]
        rows = {id: row for id in shown if (row := agents.row(id)) is not None}
        return View(wanted, len(agents), len(ids), rows)

    def _sort(self, agents: Agents, order: Order) -> list[str]:
        began, busy = self._clock(), time.thread_time()
        ids = order.of(agents)
        self._next_at = began + COST_SHARE * (time.thread_time() - busy)
        return ids
