"""The unit of work: the rows that a group of commands reads and changes in one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol, TypeVar

from django.db.models import Model

from agentcom import rows
from agentcom.kinds import check_event
from agentcom.models import Event
from agentcom.remembered import Rows

M = TypeVar("M", bound=Model)
Wanted = Iterable[tuple[type[Model], Iterable[str]]]
Columns = Mapping[str, Any]  # the values of a row, by the names of its attributes


class Projection(Protocol):
    """Keeps one read model: called for each event, inside the transaction that commits it.

    May have a method ``rows(command) -> Wanted`` that names the rows it will read.
    """

    def __call__(self, work: Work, event: Event) -> None: ...


class Command(Protocol):
    """A requested change of state. Immutable, and safe to apply again after a rollback."""

    @property
    def actor(self) -> str:
        """Who requested it, see `agentcom.actors`; recorded in each of its journal entries."""
        ...

    def rows(self) -> Wanted:
        """The rows that `apply` will read, so that those of a whole group are loaded at once."""
        ...

    def apply(self, work: Work) -> Any:
        """Apply it to the unit of work. If it raises `Refused`, nothing is changed."""
        ...


class Work:
    """Identity map, pending writes and new events of one transaction.

    Rows are found by their model's `key_field`. Changes are found by comparing each row with its
    values when it was read. The changes of a refused command are undone.
    """

    def __init__(
        self,
        now: datetime,
        last_seq: int,
        projections: Iterable[Projection],
        remembered: Rows | None = None,
    ) -> None:
        """`remembered` has rows as they are in the database, see `agentcom.remembered`."""
        self.now = now
        self.has_written = False
        self._remembered: Rows = {} if remembered is None else remembered
        self.actor = ""  # of the command that is being applied
        self.events: list[Event] = []
        self._first_seq = last_seq + 1
        self._projections = tuple(projections)
        self._rows: dict[tuple[type[Model], Any], Model | None] = {}
        self._read: dict[int, tuple[Model, Columns]] = {}  # as they are in the database
        self._added: list[Model] = []
        self._appended: list[Model] = []
        self._removed: list[Model] = []
        self._steps: list[tuple[type[Model], Mapping[str, Any], dict[str, int]]] = []
        self._undo: dict[int, tuple[Model, dict[str, Any]]] = {}

    @property
    def next_seq(self) -> int:
        return self._first_seq + len(self.events)

    def load(self, wanted: Wanted) -> None:
        """Read all named rows that are not loaded yet, with one query for each model."""
        missing: dict[Any, set[Any]] = defaultdict(set)
        for model, keys in wanted:
            missing[model].update(key for key in keys if (model, key) not in self._rows)
        for model, keys in missing.items():
            for key in list(keys):
                if (known := self._remembered.get((model, key))) is not None:
                    self.track(known)
                    keys.remove(key)
            self._rows.update(((model, key), None) for key in keys)
        for row in rows.read((m, m.key_field, list(keys)) for m, keys in missing.items()):
            self.track(row)

    def get(self, model: type[M], key: Any) -> M | None:
        """The row, or None if there is none; read now if it was not loaded before."""
        if (model, key) not in self._rows:
            self.load([(model, [key])])
        row = self._rows[model, key]
        if row is not None:
            self._undo.setdefault(id(row), (row, dict(row.__dict__)))
        return row  # type: ignore[return-value]

    def track(self, row: M) -> M:
        """Add a row that a command queried itself. Returns the loaded row if there is one."""
        key = (type(row), getattr(row, row.key_field))  # type: ignore[attr-defined]
        known = self._rows.get(key)
        if known is not None:
            row = known  # type: ignore[assignment]
        else:
            self._rows[key] = row
            self._read[id(row)] = (row, dict(row.__dict__))
        self._undo.setdefault(id(row), (row, dict(row.__dict__)))
        return row

    def known(self, model: type[M]) -> Iterator[tuple[M, Columns | None]]:
        """The rows of a model that commands have read or added, each with its columns in the
        database; None: it is not there yet."""
        for (of, _), row in self._rows.items():
            if of is model and row is not None:
                _, stored = self._read.get(id(row), (row, None))
                yield row, stored  # type: ignore[misc]

    def touches(self, model: type[Model]) -> bool:
        """Whether a command has named, added or removed rows of this model."""
        return any(of is model for of, _ in self._rows)

    def add(self, row: Model) -> None:
        """Insert a row that later commands of the group may read."""
        self._rows[type(row), getattr(row, row.key_field)] = row  # type: ignore[attr-defined]
        self._added.append(row)

    def append(self, row: Model) -> None:
        """Insert a row that no command of the group reads."""
        self._appended.append(row)

    def remove(self, row: Model) -> None:
        self._rows[type(row), getattr(row, row.key_field)] = None  # type: ignore[attr-defined]
        self._removed.append(row)

    def increment(self, model: type[Model], key: Mapping[str, Any], **amounts: int) -> None:
        """Add to the counters of the row with these unique columns; inserted if missing."""
        self._steps.append((model, key, amounts))

    def emit(
        self, kind: str, *, task_id: str | None = None, agent_id: str | None = None, **data: Any
    ) -> Event:
        """Append to the journal and update the read models.

        Raises ValueError if the data does not match the kind, and outside of a command's `step`.
        """
        check_event(kind, data)
        if not self.actor:
            raise ValueError(f"event {kind!r} has no actor")
        event = rows.new(
            Event,
            seq=self.next_seq,
            kind=kind,
            task_id=task_id,
            agent_id=agent_id,
            at=self.now,
            data=data,
            actor=self.actor,
        )
        self.events.append(event)
        for project in self._projections:
            project(self, event)
        return event

    @contextmanager
    def step(self, actor: str) -> Iterator[None]:
        """One command by this actor; everything is undone if it raises."""
        self.actor = actor
        self._undo.clear()
        marks = [
            (pending, len(pending))
            for pending in (
                self.events,
                self._added,
                self._removed,
                self._appended,
                self._steps,
            )
        ]
        try:
            yield
        except BaseException:
            for row in self._added[marks[1][1] :]:
                del self._rows[type(row), getattr(row, row.key_field)]  # type: ignore[attr-defined]
            for row in self._removed[marks[2][1] :]:
                self._rows[type(row), getattr(row, row.key_field)] = row  # type: ignore[attr-defined]
            for pending, length in marks:
                del pending[length:]
            for row, before in self._undo.values():
                row.__dict__.clear()
                row.__dict__.update(before)
            raise

    def flush(self) -> None:
        """Write all but the events, for a query. Only before the command changes anything."""
        changed = self._changed()
        rows.run(self._statements(changed))
        for row in (*self._added, *(row for group in changed.values() for row in group)):
            self._read[id(row)] = (row, dict(row.__dict__))
        self._added.clear()
        self._appended.clear()
        self._removed.clear()
        self._steps.clear()

    def close(self) -> None:
        """Write everything before the commit, the events last."""
        events = [rows.insert(Event, self.events)] if self.events else []
        self.has_written = rows.run([*self._statements(self._changed()), *events])

    def left_in_memory(self) -> Rows:
        """Rows as they are in the database after the commit: those that were remembered before, and
        those of this unit of work that are `in_use`."""
        for key, row in self._rows.items():
            if row is not None and getattr(row, "in_use", False):
                self._remembered[key] = row
            else:
                self._remembered.pop(key, None)
        return self._remembered

    def _changed(self) -> dict[tuple[type[Model], tuple[str, ...]], list[Model]]:
        """The changed rows, by model and changed columns."""
        changed: dict[tuple[type[Model], tuple[str, ...]], list[Model]] = defaultdict(list)
        for row, before in self._read.values():
            now = row.__dict__
            if now != before:
                names = rows.columns(type(row))
                differ = tuple([name for name in names if now[name] != before[name]])
                if differ:
                    changed[type(row), differ].append(row)
        return changed

    def _statements(
        self, changed: Mapping[tuple[type[Model], tuple[str, ...]], list[Model]]
    ) -> Iterator[rows.Statement]:
        for model, added in _by_model((*self._added, *self._appended)).items():
            yield rows.insert(model, added)
        for (model, names), group in changed.items():
            yield rows.update(model, group, names)
        for model, removed in _by_model(self._removed).items():
            yield rows.delete(model, removed)
        steps: dict[type[Model], list[rows.Step]] = defaultdict(list)
        for model, key, amounts in self._steps:
            steps[model].append((key, amounts))
        for model, its_steps in steps.items():
            yield rows.increment(model, its_steps)


def _by_model(pending: Iterable[Model]) -> dict[type[Model], list[Model]]:
    groups: dict[type[Model], list[Model]] = defaultdict(list)
    for row in pending:
        groups[type(row)].append(row)
    return groups
