"""Fills the database of a hub that is not running, with what it would hold after long work.

    python -m lab.bench.fill history 1000000    completed over the last 30 days
    python -m lab.bench.fill queue 100000       waiting, the first half of it for nobody
    python -m lab.bench.fill needs 20000        waiting for nobody, each with needs of its own
    python -m lab.bench.fill held 100000        queued, half in the lane `low`, half with needs
    python -m lab.bench.fill scheduled 100000   not before many years have passed
    python -m lab.bench.fill fleet 100000       agents that are known, a fifth of them connected

All is as if every row had come through the Writer: one row a batch is made with the models' own
transitions, and the read models with their own projections; the others differ from it in their ids
only. Events older than their retention are left out, as the worker would have dropped them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentcom.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.db.models import Model  # noqa: E402
from django.utils import timezone  # noqa: E402
from django.utils.module_loading import import_string  # noqa: E402

from agentcom import actors, rows  # noqa: E402
from agentcom.database import millis  # noqa: E402
from agentcom.kinds import check_event  # noqa: E402
from agentcom.models import Event, Node  # noqa: E402
from fleet.models import Agent, AgentState  # noqa: E402
from lab.bench import HELD, SOMEBODY  # noqa: E402
from tasks.models import Priority, Task  # noqa: E402
from tasks.queue import new_task_id, title_of  # noqa: E402

BATCH = 1_000  # tasks, submitted at one moment
COMPLETED, DEAD = 0.89, 0.1  # of a batch of history; the rest is queued
SPAN = timedelta(days=29.9)  # within the retention of completions
WORK_TIME = timedelta(seconds=20)
TOKENS = 1_200
SUBMITTER = "submitter"
AGENT = "agent-long-gone"
DESCRIPTION = "Summarise the incident report of last night and propose what to do about it"
NOBODY = "nobody-has-this"
FAR_AWAY = timedelta(days=10_000)
CONNECTED = 0.2  # of the agents that are known
FLEET_NODE = "elsewhere"

Columns = Mapping[str, Sequence[Any]]


class Filler:
    def __init__(self) -> None:
        self._seq = 0
        self._projections = [import_string(path) for path in settings.AGENTCOM_PROJECTIONS]
        days = settings.AGENTCOM_EVENT_RETENTION_DAYS * 0.99  # nothing to prune while measuring
        self._journal_begins = timezone.now() - timedelta(days=days)

    def history(self, total: int) -> None:
        """Most completed, some in the dead letter, few queued."""
        sizes = _sizes(total)
        newest = timezone.now() - 2 * WORK_TIME
        for number, size in enumerate(sizes, start=1):
            moment = newest - SPAN * (1 - number / len(sizes))
            completed, dead = int(size * COMPLETED), int(size * DEAD)
            with transaction.atomic():
                self._completed(completed, moment)
                self._dead(dead, moment)
                self._queued(size - completed - dead, moment, [])

    def queue(self, total: int) -> None:
        """All queued in one lane: first half of them for nobody, then half for `SOMEBODY`."""
        sizes = _sizes(total)
        for number, size in enumerate(sizes):
            capability = NOBODY if number < len(sizes) / 2 else SOMEBODY
            with transaction.atomic():
                self._queued(size, timezone.now(), [capability])

    def needs(self, total: int) -> None:
        """All queued, and each needs what no other does."""
        with transaction.atomic():
            for number in range(total):
                self._queued(1, timezone.now(), [f"{NOBODY}-{number}"])

    def held(self, total: int) -> None:
        """What waits for two holds, which are to be placed: on the lane `low`, and on `HELD`."""
        sizes = _sizes(total)
        for number, size in enumerate(sizes):
            with transaction.atomic():
                if number < len(sizes) / 2:
                    self._queued(size, timezone.now(), [HELD])
                else:
                    self._queued(size, timezone.now(), [], priority=Priority.LOW)

    def scheduled(self, total: int) -> None:
        for size in _sizes(total):
            moment = timezone.now()
            with transaction.atomic():
                self._queued(size, moment, [], not_before=moment + FAR_AWAY)

    def fleet(self, total: int) -> None:
        """Agents of a process that is not there; it must not count as dead at once."""
        now = timezone.now()
        Node.objects.create(
            id=FLEET_NODE, host="elsewhere", pid=1, started_at=now, heartbeat_at=now
        )
        names = [f"agent-{number:06}" for number in range(total)]
        connected = round(total * CONNECTED)
        here = Agent(
            name="",
            capabilities=["review", "write"],
            fsm_state=AgentState.IDLE,
            connection="socket",
            node=FLEET_NODE,
            connected_at=now,
            last_seen=now,
            last_state_change=now,
        )
        gone = Agent(name="", capabilities=["review"], disconnected_at=now - SPAN)
        with transaction.atomic():
            _insert(here, {"agent_id": names[:connected], "name": names[:connected]})
            _insert(gone, {"agent_id": names[connected:], "name": names[connected:]})

    def _queued(self, count: int, moment: datetime, needs: list[str], **more: Any) -> None:
        task = _task(moment, needed_capabilities=needs, **more)
        ids, numbers = self._submitted(task, count, moment)
        _store(task, ids, numbers)

    def _completed(self, count: int, moment: datetime) -> None:
        done = moment + WORK_TIME
        task = _task(moment)
        ids, numbers = self._submitted(task, count, moment)
        self._taken(task, ids, moment)
        duration_ms = task.complete(AGENT, 1, {"ok": True}, TOKENS, done)
        data = {
            "priority": task.priority,
            "generation": 1,
            "duration_ms": duration_ms,
            "tokens_used": TOKENS,
        }
        self._happened("task_complete", task, ids, done, AGENT, data)
        _store(task, ids, numbers)

    def _dead(self, count: int, moment: datetime) -> None:
        died, error = moment + WORK_TIME, "the model did not answer"
        task = _task(moment, max_retries=1)
        ids, numbers = self._submitted(task, count, moment)
        self._taken(task, ids, moment)
        task.fail(AGENT, 1, error, None, died)
        self._happened("task_failed", task, ids, died, AGENT, {"generation": 1, "error": error})
        dead = {
            "priority": task.priority,
            "error": error,
            "was": "assigned",
            "retry_count": task.retry_count,
            "assigned_to": AGENT,
        }
        self._happened("task_dead_letter", task, ids, died, AGENT, dead)
        _store(task, ids, numbers)

    def _submitted(
        self, task: Task, count: int, moment: datetime
    ) -> tuple[list[str], Sequence[int]]:
        ids = [new_task_id() for _ in range(count)]
        data = {
            "priority": task.priority,
            "title": title_of(task),
            "status": task.status,
            "until": millis(task.due_at),
        }
        return ids, self._happened("task_submitted", task, ids, moment, None, data)

    def _taken(self, task: Task, ids: Sequence[str], moment: datetime) -> None:
        task.assign(AGENT, moment)
        data = {"priority": task.priority, "generation": 1, "title": title_of(task)}
        self._happened("task_assigned", task, ids, moment, AGENT, data)
        task.accept(AGENT, 1, moment)
        self._happened("task_accepted", task, ids, moment, AGENT, {"generation": 1})

    def _happened(
        self,
        kind: str,
        task: Task,
        ids: Sequence[str],
        at: datetime,
        agent_id: str | None,
        data: dict[str, Any],
    ) -> Sequence[int]:
        """The same event for each of the tasks; give the journal numbers."""
        seqs = range(self._seq + 1, self._seq + len(ids) + 1)
        self._seq += len(ids)
        if not ids:
            return seqs
        check_event(kind, data)
        event = Event(kind=kind, agent_id=agent_id, at=at, data=data, actor=_actor_of(kind))
        if at > self._journal_begins:
            _insert(event, {"seq": seqs, "task_id": ids})
        many = Many(task, ids, seqs)
        for project in self._projections:
            project(many, event)
        rows.run(many.statements())
        return seqs


def _actor_of(kind: str) -> str:
    known = {"task_submitted": actors.token(SUBMITTER), "task_assigned": actors.HUB}
    return known.get(kind, actors.agent(AGENT))


class Many:
    """What a projection needs of a unit of work, for an event that so many tasks had alike."""

    def __init__(self, task: Task, ids: Sequence[str], seqs: Sequence[int]) -> None:
        self._task = task
        self._ids = ids
        self._seqs = seqs
        self._steps: dict[type[Model], list[tuple[Mapping[str, Any], dict[str, int]]]] = {}

    def get(self, model: type[Model], key: Any) -> Model | None:
        return self._task if model is Task else None

    def append(self, row: Model) -> None:
        _insert(row, {"seq": self._seqs, "task_id": self._ids})

    def increment(self, model: type[Model], key: Mapping[str, Any], **amounts: int) -> None:
        total = {name: amount * len(self._ids) for name, amount in amounts.items()}
        self._steps.setdefault(model, []).append((key, total))

    def statements(self) -> list[rows.Statement]:
        return [rows.increment(model, steps) for model, steps in self._steps.items()]


def _store(task: Task, ids: Sequence[str], numbers: Sequence[int]) -> None:
    _insert(task, {"number": numbers, "task_id": ids})


def _task(moment: datetime, **more: Any) -> Task:
    task = Task(
        description=DESCRIPTION, metadata={"source": "bench"}, submitted_by=SUBMITTER, **more
    )
    task.submit(moment)
    return task


def _sizes(total: int) -> list[int]:
    return [min(BATCH, total - start) for start in range(0, total, BATCH)]


def _insert(template: Model, columns: Columns) -> None:
    """Many rows that are like the template but for the given columns."""
    quoted = connection.ops.quote_name
    fields = template._meta.concrete_fields
    row = [f.get_db_prep_save(getattr(template, f.attname), connection) for f in fields]
    places = [[f.attname for f in fields].index(name) for name in columns]
    names = ", ".join(quoted(f.column or "") for f in fields)
    marks = ", ".join(["%s"] * len(fields))

    def filled(values: Sequence[Any]) -> list[Any]:
        copy = row.copy()
        for place, value in zip(places, values, strict=True):
            copy[place] = value
        return copy

    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {quoted(template._meta.db_table)} ({names}) VALUES ({marks})",  # noqa: S608
            [filled(values) for values in zip(*columns.values(), strict=True)],
        )


FILLS = {
    "history": Filler.history,
    "queue": Filler.queue,
    "needs": Filler.needs,
    "held": Filler.held,
    "scheduled": Filler.scheduled,
    "fleet": Filler.fleet,
}


def main() -> None:
    kind, total = sys.argv[1:]
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA synchronous = OFF")  # for this connection; nothing is lost here
    FILLS[kind](Filler(), int(total))
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")  # as it does by itself after a while
    connection.close()
    os.sync()  # or the writing back would go on while the hub is measured


if __name__ == "__main__":
    main()
