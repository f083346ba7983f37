"""Which queued tasks wait too long, and which ones no connected agent can do.

Each tick reads a bounded number of rows, whatever the queue contains: the head of each lane, and
some of the needs in the tally.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby, islice

from fleet.holds import Holds
from fleet.models import Agent
from tasks.heads import heads
from tasks.models import Priority, Status, Tally, Task
from tasks.needs import needs_of
from worker.health import limit_of
from worker.watch import Watch

HEADS = 20  # tasks read per lane; not one only, as the wait of a requeued task begins anew
NEEDS = 500  # read from the tally; tasks with other needs reach the head of their lane in time
UNMET = 50  # at most so many unmet needs are reported
# For so long after an agent disconnected or a task was queued, a missing agent is not reported.
HOLD_S = 10

HELD = "they are on hold"
NOBODY_CONNECTED = "no agent is connected"
NOBODY_CAPABLE = "no connected agent can do the oldest"
NOBODY_FREE = "no agent that can do the oldest has been free for it"


@dataclass(frozen=True, slots=True)
class Queued:
    task_id: str
    needs: frozenset[str]
    since: datetime  # when it was last queued, which may be later than its submission


@dataclass(frozen=True, slots=True)
class Waiting:
    """Tasks that wait too long, or for agents that are not there."""

    late: dict[int, str] = field(default_factory=dict)  # reason by lane
    nobody_connected: bool = False
    unmet: dict[str, list[str]] = field(default_factory=dict)  # needs nobody meets, by task id


class Capabilities:
    """The capabilities of agents that are connected or were a moment ago."""

    def __init__(self, agents: Iterable[Sequence[str]]) -> None:
        self.anybody = False
        self._holders: defaultdict[str, set[int]] = defaultdict(set)
        for number, capabilities in enumerate(agents):
            self.anybody = True
            for capability in capabilities:
                self._holders[capability].add(number)

    def lacks(self, needs: str) -> bool:
        return bool(self.lacking(needs_of(needs).capabilities))

    def lacking(self, needs: Iterable[str]) -> list[str]:
        """Which of these needs no agent meets, in words; empty if one agent meets them all."""
        wanted = sorted(needs)
        missing = [name for name in wanted if name not in self._holders]
        if missing:
            return missing
        holders = sorted((self._holders[name] for name in wanted), key=len)
        if not holders or set.intersection(*holders):
            return []
        return [" and ".join(wanted) + " together"]


def find_waiting(now: datetime, watch: Watch) -> Waiting:
    """Agents have `HOLD_S` to (re)connect. Time in which nobody could act does not count."""
    lanes = {lane: _head(lane) for lane in Priority.values}
    if not any(lanes.values()):
        return Waiting()
    available = connected_capabilities(now)
    since = now - timedelta(seconds=HOLD_S)
    late = _reasons(list(_late(lanes, now, watch)), available, now)
    if watch.since > since:
        return Waiting(late)
    waiting = [task for head in lanes.values() for task in head if task.since <= since]
    if not available.anybody:
        return Waiting(late, nobody_connected=bool(waiting))
    unmet = {task.task_id: available.lacking(task.needs) for task in _first_of_needs(waiting)}
    unmet |= {task.task_id: available.lacking(task.needs) for task in _in_tally(available, since)}
    return Waiting(late, unmet={task_id: lack for task_id, lack in unmet.items() if lack})


def connected_capabilities(now: datetime) -> Capabilities:
    since = now - timedelta(seconds=HOLD_S)
    agents = Agent.objects.connected() | Agent.objects.offline().filter(disconnected_at__gt=since)
    return Capabilities(agents.order_by().values_list("capabilities", flat=True).distinct())


def _head(lane: int) -> list[Queued]:
    queued = Task.objects.filter(status=Status.QUEUED, priority=lane).order_by("number")
    rows = queued.values_list("task_id", "needs", "updated_at")[:HEADS]
    return [Queued(task_id, needs_of(needs).capabilities, since) for task_id, needs, since in rows]


def _late(
    lanes: dict[int, list[Queued]], now: datetime, watch: Watch
) -> Iterator[tuple[int, Queued]]:
    """The lanes whose oldest task has waited too long, with that task."""
    for lane, head in lanes.items():
        oldest = min(head, key=lambda task: task.since, default=None)
        if oldest and oldest.since < watch.ago(now, limit_of(lane)):
            yield lane, oldest


def _reasons(
    late: Sequence[tuple[int, Queued]], available: Capabilities, now: datetime
) -> dict[int, str]:
    """Why the oldest task of each of these lanes waits."""
    holds = Holds.at(now) if late else Holds()
    return {
        lane: HELD if holds.hub or lane in holds.lanes else _reason(oldest, available)
        for lane, oldest in late
    }


def _reason(oldest: Queued, available: Capabilities) -> str:
    if not available.anybody:
        return NOBODY_CONNECTED
    return NOBODY_CAPABLE if available.lacking(oldest.needs) else NOBODY_FREE


def _first_of_needs(tasks: Iterable[Queued]) -> Iterable[Queued]:
    """One task for each set of needs: many tasks with the same needs are one finding."""
    first: dict[frozenset[str], Queued] = {}
    for task in tasks:
        first.setdefault(task.needs, task)
    return first.values()


def _in_tally(available: Capabilities, since: datetime) -> list[Queued]:
    """The first task of each unmet need in the tally, if it was queued at `since` or before."""
    waiting = Tally.objects.filter(status=Status.QUEUED, needs__gt="", count__gt=0)
    places = waiting.order_by("priority", "needs").values_list("priority", "needs")[:NEEDS]
    unmet = list(islice((place for place in places if available.lacks(place[1])), UNMET))
    numbers = [
        task.number
        for lane, group in groupby(unmet, key=lambda place: place[0])
        for task in heads(lane, [needs for _, needs in group], 1)
    ]
    rows = Task.objects.filter(number__in=numbers, updated_at__lte=since)
    found = rows.values_list("task_id", "needs", "updated_at")
    return [Queued(task_id, needs_of(needs).capabilities, at) for task_id, needs, at in found]
