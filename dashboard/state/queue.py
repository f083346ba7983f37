"""How many tasks there are, and the four lanes of the queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from django.db.models import Sum

from agentcom.models import Event
from counters.durations import minute_of
from counters.lanes import MINUTES
from counters.models import LaneMinute
from dashboard.state.heads import Heads
from dashboard.state.part import Part, facts_of
from tasks.listing import counts_of
from tasks.models import Priority, Status, Tally
from tasks.moves import MOVES

QUEUED = Status.QUEUED.value


class Queue(Part):
    kinds = frozenset(
        {*(kind for kind, move in MOVES.items() if move.to is not None), "tasks_pruned"}
    )

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[tuple[str, int]] = Counter()  # by status and lane
        # (minute since the epoch, lane): how many tasks entered and left the lane
        self._moved: dict[tuple[int, int], list[int]] = {}
        self._heads = {lane: Heads() for lane in Priority.values}

    @classmethod
    def read(cls, now: datetime) -> Self:
        part = cls()
        tallies = Tally.objects.values_list("status", "priority").annotate(Sum("count")).order_by()
        for status, lane, count in tallies:
            part._counts[status, lane] = count
        since = datetime.fromtimestamp((minute_of(now) - MINUTES) * 60, now.tzinfo)
        for start, lane, *moved in LaneMinute.objects.filter(start__gte=since).values_list(
            "start", "priority", "added", "drained"
        ):
            part._moved[minute_of(start), lane] = moved
        for lane in Priority.values:
            part._heads[lane] = Heads.read(lane)
        return part

    def apply(self, event: Event) -> None:
        if event.kind == "tasks_pruned":
            for status, priority, count in event.data["counts"]:
                self._counts[status, priority] -= count
            return
        move, data = MOVES[event.kind], event.data
        before, after = move.start(data), move.end(data)
        lane = data["priority"]
        old_lane = data.get("old_priority", lane)
        if before is not None:
            self._counts[before, old_lane] -= 1
        if after is not None:
            self._counts[after, lane] += 1
        if (before == QUEUED or after == QUEUED) and (before, old_lane) != (after, lane):
            if before == QUEUED:
                self._leave(event, old_lane)
            if after == QUEUED:
                self._enter(event, lane)

    def _leave(self, event: Event, lane: int) -> None:
        heads = self._heads[lane]
        self._moved.setdefault((minute_of(event.at), lane), [0, 0])[1] += 1
        heads.leave(event.task_id or "")
        self.runs_low |= heads.run_low
        self.is_unknown = heads.are_unknown

    def _enter(self, event: Event, lane: int) -> None:
        facts = facts_of(event)
        self._moved.setdefault((minute_of(event.at), lane), [0, 0])[0] += 1
        self._heads[lane].enter(facts.number, event.task_id or "", facts.created_at)

    @property
    def counts(self) -> Mapping[tuple[str, int], int]:
        """By status and lane."""
        return self._counts

    def section(self, now: datetime) -> dict[str, Any]:
        self._forget_before(minute_of(now) - MINUTES)
        queue = counts_of(self._counts)
        return {**queue, "lanes": self._lanes(minute_of(now), queue["by_priority"])}

    def _lanes(self, minute: int, queued: dict[str, int]) -> dict[str, Any]:
        """The rates change only with events and with the minute: a value that changes continuously
        would cause a patch for all viewers each time."""
        sums = {lane: [0, 0] for lane in Priority.values}
        for (at, lane), (added, drained) in self._moved.items():
            if minute - MINUTES < at <= minute:
                sums[lane][0] += added
                sums[lane][1] += drained
        return {
            str(lane): {
                "queued": queued[str(lane)],
                "oldest_at": self._heads[lane].oldest_at if queued[str(lane)] else None,
                "added_per_min": round(added / MINUTES, 1),
                "drained_per_min": round(drained / MINUTES, 1),
            }
            for lane, (added, drained) in sums.items()
        }

    def _forget_before(self, minute: int) -> None:
        for key in [key for key in self._moved if key[0] < minute]:
            del self._moved[key]
