"""What the Writer remembers of the rows of its last commit, and when it must read them again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest
from django.db import OperationalError, transaction

from agentcom import actors, remembered, rows
from agentcom.commit import Begun, Transaction
from agentcom.errors import Refused
from agentcom.models import Node
from agentcom.nodes import RemoveNode
from agentcom.remembered import Remembered, after
from agentcom.work import Wanted, Work
from agentcom.writer import Writer
from tests.agentcom.notes import Broken, Impossible, Note, Refusing, Renamed, losing_answers

committed = pytest.mark.django_db(transaction=True)


@dataclass(frozen=True)
class Quietly:
    """Changes a node's host without an event."""

    name: str
    host: str

    actor = actors.HUB

    def rows(self) -> Wanted:
        return [(Node, [self.name])]

    def apply(self, work: Work) -> None:
        found = work.get(Node, self.name)
        assert found is not None
        found.host = self.host


@dataclass(frozen=True)
class Forgotten(RemoveNode):
    """Removes a node without an event, as old tasks are dropped."""


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    """One that keeps nodes in memory, and knows one of them."""
    monkeypatch.setattr(Node, "in_use", True, raising=False)
    writer = Writer()
    writer.call(Note("a"))
    yield writer
    writer.stop()


@pytest.fixture
def reads(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The nodes that are read from the database from now on."""
    found: list[str] = []
    read = rows.read

    def noted(wanted: Any) -> Any:
        asked = list(wanted)
        found.extend(key for _, _, keys in asked for key in keys)
        return read(asked)

    monkeypatch.setattr("agentcom.work.rows.read", noted)
    return found


@committed
@pytest.mark.sqlite_only  # on PostgreSQL other databases of the server count too
def test_a_row_is_not_read_again(writer: Writer, reads: list[str]) -> None:
    assert writer.call(Renamed("a", "one")) == "here"
    assert writer.call(Renamed("a", "two")) == "one"
    assert reads == []
    assert Node.objects.get().host == "two"


@committed
@pytest.mark.sqlite_only  # on PostgreSQL other databases of the server count too
def test_what_was_changed_without_an_event_is_remembered_as_it_is(
    writer: Writer, reads: list[str]
) -> None:
    writer.call(Quietly("a", "quiet"))
    assert writer.call(Renamed("a", "loud")) == "quiet"
    assert reads == []


@committed
@pytest.mark.postgresql
def test_a_row_is_not_read_again_while_nobody_writes_to_the_server(
    writer: Writer, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tests write to its other databases, so the ids are those of a server without them."""
    begin, ids = Transaction.begin, count(7)

    def begin_alone(one: Transaction) -> Begun:
        begun, next_id = begin(one), next(ids)
        return replace(begun, version=f"{next_id}:{next_id}:")

    monkeypatch.setattr(Transaction, "begin", begin_alone)
    writer.call(Renamed("a", "first"))
    reads.clear()
    writer.call(Renamed("a", "second"))
    assert reads == []


@committed
def test_what_somebody_else_changed_is_read_again(writer: Writer, reads: list[str]) -> None:
    """Another connection, as of another process; the journal does not say it."""
    Node.objects.update(host="elsewhere")
    assert writer.call(Renamed("a", "back")) == "elsewhere"
    assert reads == ["a"]


@committed
def test_what_somebody_else_deleted_is_gone(writer: Writer) -> None:
    Node.objects.all().delete()
    with pytest.raises(Refused, match="not_found"):
        writer.call(Renamed("a", "back"))


@committed
def test_what_another_writer_committed_is_read_again(writer: Writer, reads: list[str]) -> None:
    other = Writer()
    other.call(Renamed("a", "other"))
    other.stop()
    assert writer.call(Renamed("a", "back")) == "other"


@committed
def test_what_a_command_removed_is_gone(writer: Writer) -> None:
    writer.call(Forgotten("a"))
    with pytest.raises(Refused, match="not_found"):
        writer.call(Renamed("a", "back"))


@committed
def test_what_a_refused_command_changed_is_not_remembered(writer: Writer, reads: list[str]) -> None:
    with pytest.raises(Refused):
        writer.call(Refusing())
    assert writer.call(Renamed("a", "one")) == "here"


@committed
@pytest.mark.parametrize("poison", [Broken(), Impossible("b")], ids=["broken", "impossible"])
def test_after_a_rollback_everything_is_read_again(
    writer: Writer, reads: list[str], poison: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentcom.commit.time.sleep", lambda _: None)
    with pytest.raises((ZeroDivisionError, OperationalError)):
        writer.call(poison)
    reads.clear()
    assert writer.call(Renamed("a", "one")) == "here"
    assert reads == ["a"]


@committed
@pytest.mark.parametrize("is_there", [True, False], ids=["there", "not there"])
def test_after_a_lost_reply_everything_is_read_again(
    writer: Writer, reads: list[str], is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentcom.commit.time.sleep", lambda _: None)
    lossy = losing_answers(1, committed=is_there)
    with monkeypatch.context() as patched:
        patched.setattr("agentcom.commit.transaction.atomic", lossy)
        assert writer.call(Renamed("a", "one")) == "here"
    Node.objects.update(host="two")
    assert writer.call(Renamed("a", "three")) == "two"
    assert Node.objects.get().host == "three"


@committed
@pytest.mark.postgresql
def test_a_change_that_was_under_way_meanwhile_is_not_missed(writer: Writer) -> None:
    """It took its transaction id before ours, and is committed after it."""
    writer.call(Note("b"))
    with transaction.atomic():
        Node.objects.filter(id="b").update(host="late")
        writer.call(Renamed("a", "early"))
    assert writer.call(Renamed("b", "back")) == "late"


@committed
@pytest.mark.sqlite_only  # on PostgreSQL other databases of the server count too
def test_rows_that_are_not_in_use_are_not_kept(
    writer: Writer, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Node, "in_use", False)
    writer.call(Renamed("a", "one"))
    writer.call(Renamed("a", "two"))
    assert reads == ["a"]


@pytest.mark.parametrize(
    ("version", "has_written", "expected"),
    [
        ("7:7:", True, "8:8:"),
        ("7:7:", False, "7:7:"),
        ("6:7:6", True, None),
        ("6:8:6,7", True, None),
        (("connection", 3), True, ("connection", 3)),
    ],
)
def test_the_next_version_if_nobody_else_writes(
    version: Any, has_written: bool, expected: Any
) -> None:
    assert after(version, has_written) == expected


def test_too_many_rows_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MAX_ROWS", 1)
    kept, version = Remembered(), "7:7:"
    kept.keep({(Node, "a"): Node(), (Node, "b"): Node()}, version, False)
    assert kept.take(version) == {}


def test_what_was_taken_and_not_kept_again_is_forgotten() -> None:
    kept, version = Remembered(), "7:7:"
    kept.keep({(Node, "a"): Node(id="a")}, version, False)
    assert kept.take(version)
    assert kept.take(version) == {}
