"""The first tasks of a lane, however many wait behind them."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Self

from agentcom.database import millis
from tasks.models import Status, Task

KEPT = 1_000  # read at once; of more than twice as many, the last ones are dropped
LOW = 250  # left: time to read the next ones


class Heads:
    """Queued tasks by number. Unless they are all there are, the lane goes on after `_last`."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str, int]] = []  # number, task id, submitted at (ms)
        self._ids: set[str] = set()  # of the tasks that are still queued
        self._last: int | None = None  # None: these are all

    @classmethod
    def read(cls, lane: int) -> Self:
        heads = cls()
        queued = Task.objects.filter(status=Status.QUEUED, priority=lane).order_by("number")
        for number, task_id, at in queued.values_list("number", "task_id", "created_at")[:KEPT]:
            heads._heap.append((number, task_id, millis(at)))  # sorted, and so a heap
            heads._ids.add(task_id)
        if len(heads._heap) == KEPT:
            heads._last = heads._heap[-1][0]
        return heads

    @property
    def run_low(self) -> bool:
        return self._last is not None and len(self._ids) < LOW

    @property
    def are_unknown(self) -> bool:
        return self._last is not None and not self._ids

    @property
    def oldest_at(self) -> int | None:
        """When the first task was submitted, in ms."""
        while self._heap and self._heap[0][1] not in self._ids:
            heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def enter(self, number: int, task_id: str, submitted_at: int) -> None:
        if self._last is not None and number > self._last:
            return
        self._ids.add(task_id)
        heappush(self._heap, (number, task_id, submitted_at))
        if len(self._heap) > 2 * KEPT:
            self._shrink()

    def leave(self, task_id: str) -> None:
        self._ids.discard(task_id)

    def _shrink(self) -> None:
        """Drop those that are not queued any more, and the last ones of too many."""
        # a task that left and came back is there twice
        queued = sorted({entry for entry in self._heap if entry[1] in self._ids})  # also a heap
        if len(queued) > KEPT:
            del queued[KEPT:]
            self._last = queued[-1][0]
            self._ids = {task_id for _, task_id, _ in queued}
        self._heap = queued
