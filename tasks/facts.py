"""What never changes of a task and is not in its journal entries.

For readers that keep a copy of the fleet's state in memory.

The entries of this process's own commits get it while they are written; those of other processes
are completed by one query, whenever that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from django.db.models.functions import Left

from agentcom.database import millis
from agentcom.models import Event
from agentcom.work import Work
from tasks.models import Task
from tasks.moves import MOVES

SHOWN_MAX = 1_001  # characters of a description that readers may need
READ_AT_ONCE = 1_000
MOVING = frozenset(kind for kind, move in MOVES.items() if move.to is not None)


class Facts(NamedTuple):
    number: int
    created_at: int  # ms
    description: str  # its beginning


def project_facts(work: Work, event: Event) -> None:
    task_id = _subject(event)
    task = work.get(Task, task_id) if task_id else None
    if task is not None:
        event.facts = Facts(task.number, millis(task.created_at), task.description[:SHOWN_MAX])


def complete(events: Sequence[Event]) -> None:
    """Add the facts to entries that were read from the journal; a deleted task has none."""
    wanted = {id: None for event in events if event.facts is None and (id := _subject(event))}
    known = read_facts(wanted)
    for event in events:
        event.facts = event.facts or known.get(_subject(event) or "")


def read_facts(task_ids: Iterable[str]) -> dict[str, Facts]:
    ids = list(task_ids)
    known: dict[str, Facts] = {}
    for first in range(0, len(ids), READ_AT_ONCE):
        tasks = Task.objects.filter(task_id__in=ids[first : first + READ_AT_ONCE]).order_by()
        rows = tasks.values_list("task_id", "number", "created_at", Left("description", SHOWN_MAX))
        known |= {
            task_id: Facts(number, millis(created_at), description)
            for task_id, number, created_at, description in rows
        }
    return known


def _subject(event: Event) -> str | None:
    """The task whose facts readers need."""
    if event.kind in MOVING:
        return event.task_id
    return event.data.get("held") if event.kind == "agent_joined" else None
