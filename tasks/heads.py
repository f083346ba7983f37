"""Reading what waits in the queue: for claims, and to explain why a task is not running."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import orjson
from django.db import connection

from agentcom.work import Work
from tasks.models import Status, Tally, Task
from tasks.needs import filed_for, mark_of

MAX_HEADS = 200  # parts of one compound query; SQLite allows 500


@dataclass(frozen=True, slots=True)
class QueuedTask:
    number: int
    task_id: str
    needs: str


def waiting_needs(
    capabilities: Iterable[str], agent_ids: Iterable[str] = ()
) -> list[tuple[int, dict[str, int]]]:
    """For each lane with queued tasks, most urgent first, the number of tasks with each needs.

    Reads only needs that are filed under one of these capabilities or for one of these agents, so
    the cost does not depend on how many others are waiting. Some may need further capabilities.
    """
    wanted, agents = ["", *capabilities], [filed_for(mark_of(id_)) for id_ in agent_ids]
    is_postgresql = connection.vendor == "postgresql"
    one_of = "= ANY(%s)" if is_postgresql else "IN (SELECT value FROM json_each(%s))"
    part = (
        f"SELECT priority, needs, count FROM {Tally._meta.db_table} "
        f"WHERE status = 'queued' AND filed_under {one_of} AND count > 0"
    )
    # agents are looked up only while there are tasks that name one
    any_for_one = (
        f"SELECT 1 FROM {Task._meta.db_table} WHERE status = 'queued' AND assign_to IS NOT NULL"
    )
    with connection.cursor() as cursor:  # run for every claim; the ORM takes ten times as long
        cursor.execute(
            f"{part} UNION ALL {part} AND EXISTS ({any_for_one})",
            [
                names if is_postgresql else orjson.dumps(names).decode()
                for names in (wanted, agents)
            ],
        )
        lanes: dict[int, dict[str, int]] = defaultdict(dict)
        for lane, needs, count in cursor.fetchall():
            lanes[lane][needs] = count
    return sorted(lanes.items())


def heads(priority: int, needs: Sequence[str], limit: int) -> list[QueuedTask]:
    """The first `limit` tasks of a lane for each of these needs, in the queue's order.

    One lookup in the index `task_queue` for each of the needs, however many other tasks come before
    or between. The needs are a range, and part of the order, so that no other index has that order:
    with an equality PostgreSQL would scan the whole queue by number.
    """
    quoted = connection.ops.quote_name
    head = (
        f"SELECT * FROM (SELECT number, task_id, needs FROM {quoted(Task._meta.db_table)} "
        "WHERE status = 'queued' AND priority = %s AND needs >= %s AND needs <= %s "
        "ORDER BY needs, number LIMIT %s) AS h"
    )
    found: list[QueuedTask] = []
    with connection.cursor() as cursor:
        for start in range(0, len(needs), MAX_HEADS):
            keys = needs[start : start + MAX_HEADS]
            values = [value for key in keys for value in (priority, key, key, limit)]
            cursor.execute(" UNION ALL ".join([head] * len(keys)), values)
            found += [QueuedTask(*row) for row in cursor.fetchall()]
    return sorted(found, key=attrgetter("number"))


class Queue:
    """The queue as a unit of work has it: as in the database, but for the tasks that its commands
    have read, changed or added. So they need not be written before a claim."""

    def __init__(self, work: Work) -> None:
        self._known: set[str] = set()
        self._moved = 0  # known tasks that wait as far as the database knows
        self._waiting: dict[int, dict[str, list[QueuedTask]]] = defaultdict(dict)
        for task, stored in work.known(Task):
            self._known.add(task.task_id)
            self._moved += stored is not None and stored["status"] == Status.QUEUED
            if task.status == Status.QUEUED:
                queued = QueuedTask(task.number, task.task_id, task.needs)
                self._waiting[task.priority].setdefault(task.needs, []).append(queued)

    def waiting_needs(
        self, capabilities: Iterable[str], agent_ids: Iterable[str]
    ) -> list[tuple[int, dict[str, int]]]:
        """Like the function, which may count tasks that do not wait any more."""
        lanes = defaultdict(dict, waiting_needs(capabilities, agent_ids))
        for lane, by_needs in self._waiting.items():
            for needs, tasks in by_needs.items():
                lanes[lane][needs] = lanes[lane].get(needs, 0) + len(tasks)
        return sorted(lanes.items())

    def heads(self, priority: int, needs: Sequence[str], limit: int) -> list[QueuedTask]:
        """Like the function, and perhaps some more."""
        stored = heads(priority, needs, limit + self._moved)
        found = [queued for queued in stored if queued.task_id not in self._known]
        here = self._waiting.get(priority, {})
        for key in needs:
            found += here.get(key, ())
        return sorted(found, key=attrgetter("number"))


def count_before(priority: int, needs: Sequence[str], number: int, limit: int) -> int:
    """How many tasks of a lane with any of these needs come before a number; at most `limit`."""
    quoted = connection.ops.quote_name
    part = (
        f"SELECT * FROM (SELECT 1 FROM {quoted(Task._meta.db_table)} WHERE status = 'queued' "
        "AND priority = %s AND needs >= %s AND needs <= %s AND number < %s LIMIT %s) AS h"
    )
    count = 0
    with connection.cursor() as cursor:
        for start in range(0, len(needs), MAX_HEADS):
            if count >= limit:
                break
            keys = needs[start : start + MAX_HEADS]
            values = [value for key in keys for value in (priority, key, key, number, limit)]
            parts = " UNION ALL ".join([part] * len(keys))
            cursor.execute(
                f"SELECT COUNT(*) FROM ({parts} LIMIT %s) AS all_of_them", [*values, limit]
            )
            count += cursor.fetchone()[0]
    return min(count, limit)
