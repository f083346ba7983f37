"""Small commands for the tests of the spine, on one of its own models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import OperationalError, connection, transaction

from agentcom import actors
from agentcom.errors import Refused
from agentcom.models import Event, Node
from agentcom.work import Wanted, Work


@dataclass(frozen=True)
class Note:
    """Makes a node of this name and tells the journal; gives the event's number."""

    name: str

    actor = actors.HUB

    def rows(self) -> Wanted:
        return [(Node, [self.name])]

    def apply(self, work: Work) -> int:
        work.add(node(self.name, work))
        return work.emit("token_created", agent_id=self.name).seq


@dataclass(frozen=True)
class Renamed:
    """Changes a node's host; gives what it was."""

    name: str
    host: str

    actor = actors.HUB

    def rows(self) -> Wanted:
        return [(Node, [self.name])]

    def apply(self, work: Work) -> str:
        found = work.get(Node, self.name)
        if found is None:
            raise Refused("not_found")
        before, found.host = found.host, self.host
        work.emit("agent_forgotten", agent_id=self.name)
        return before


@dataclass(frozen=True)
class Refusing:
    """Does all that a command can do, then is refused."""

    name: str = "refused"

    actor = actors.HUB

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> Any:
        Note(self.name).apply(work)
        for known in Node.objects.all():
            found = work.get(Node, known.id)
            if found is not None:
                found.host = "changed"
        raise Refused("no", "because")


@dataclass(frozen=True)
class Broken:
    """Has a bug."""

    actor = actors.HUB

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> Any:
        raise ZeroDivisionError("a bug")


@dataclass(frozen=True)
class Counting:
    """Gives whose events the group has so far."""

    actor = actors.HUB

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> list[str | None]:
        return [event.agent_id for event in work.events]


@dataclass(frozen=True)
class Holding:
    """Keeps the Writer busy until it is let go, so that others gather behind it."""

    started: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    actor = actors.HUB

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> None:
        self.started.set()
        assert self.released.wait(10)


def node(name: str, work: Work) -> Node:
    return Node(id=name, host="here", pid=1, started_at=work.now, heartbeat_at=work.now)


def names() -> list[str]:
    """The nodes that are there, and that the journal tells of the same ones."""
    noted = list(Node.objects.order_by("id").values_list("id", flat=True))
    told = Event.objects.filter(kind="token_created").values_list("agent_id", flat=True)
    assert sorted(str(name) for name in told) == noted
    return noted


def names_in_a_thread() -> list[str]:
    """For a thread that nobody else uses: it leaves no connection open."""
    try:
        return names()
    finally:
        connection.close()


@dataclass(frozen=True)
class Impossible(Note):
    """Fails as if the database were away, however well that is."""

    def apply(self, work: Work) -> int:
        super().apply(work)
        raise OperationalError("no such table")


def losing_answers(
    times: int, *, committed: bool, error: type[Exception] = OperationalError
) -> Callable[[], Any]:
    """A `transaction.atomic` whose first commits end with a lost connection."""
    atomic, left = transaction.atomic, [times]

    @contextmanager
    def losing() -> Iterator[None]:
        lost = left[0] > 0
        left[0] -= 1
        with atomic():
            yield
            if lost and not committed:
                raise error("the connection broke before the commit")
        if lost:
            raise error("the connection broke after the commit")

    return losing
