"""The unit of work: what it reads, what it writes, and what a refused command leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agentcom import actors, rows
from agentcom.errors import Refused
from agentcom.models import Event, Lease, Node
from agentcom.work import Projection, Work
from counters.models import Minute
from tests.agentcom.notes import node

pytestmark = pytest.mark.django_db

NOW = timezone.now()
MINUTE = {"start": NOW.replace(second=0, microsecond=0)}


def begin(*projections: Projection, last_seq: int = 0) -> Work:
    work = Work(NOW, last_seq, projections)
    work.actor = actors.HUB
    return work


def there(*names: str) -> None:
    """Nodes that are in the database already."""
    work = begin()
    for name in names:
        work.add(node(name, work))
    work.close()


def get(work: Work, name: str) -> Node:
    found = work.get(Node, name)
    assert found is not None
    return found


def refused(work: Work, *commands: Callable[[], Any]) -> None:
    """Do it all as one command, which is refused at its end."""

    def apply() -> None:
        with work.step(actors.HUB):
            for command in commands:
                command()
            raise Refused("no")

    with pytest.raises(Refused):
        apply()


def hosts() -> dict[str, str]:
    return dict(Node.objects.order_by("id").values_list("id", "host"))


# --- Reading


def test_all_named_rows_are_read_at_once():
    there("a", "b")
    work = begin()
    with CaptureQueriesContext(connection) as queries:
        work.load([(Node, ["a"]), (Lease, ["x"]), (Node, ["b", "c"]), (Node, [])])
        assert [work.get(Node, name) is None for name in "abc"] == [False, False, True]
        assert work.get(Lease, "x") is None
    assert len(queries) == (1 if connection.vendor == "postgresql" else 2)  # else one a model


def test_a_row_is_the_same_object_for_everyone():
    there("a")
    work = begin()
    assert get(work, "a") is get(work, "a")
    assert work.track(Node.objects.get()) is get(work, "a")


def test_a_row_found_by_a_query_does_not_undo_what_was_changed():
    there("a")
    work = begin()
    get(work, "a").host = "changed"
    assert work.track(Node.objects.get()).host == "changed"


def test_an_added_row_can_be_got_before_it_is_written():
    work = begin()
    added = node("a", work)
    work.add(added)
    assert work.get(Node, "a") is added


def test_a_removed_row_is_gone_at_once():
    there("a")
    work = begin()
    work.remove(get(work, "a"))
    assert work.get(Node, "a") is None
    work.close()
    assert hosts() == {}


# --- Writing


def test_only_the_columns_that_changed_are_written():
    there("a")
    work = begin()
    get(work, "a").host = "changed"
    Node.objects.update(pid=99)
    work.close()
    assert list(Node.objects.values_list("host", "pid")) == [("changed", 99)]


def test_what_was_only_looked_at_is_not_written():
    there("a")
    work = begin()
    get(work, "a").host = "here"
    with CaptureQueriesContext(connection) as queries:
        work.close()
    assert len(queries) == 0


def test_a_new_row_that_was_changed_later_is_written_as_it_is_last():
    work = begin()
    work.add(node("a", work))
    get(work, "a").host = "one"
    work.flush()
    assert hosts() == {"a": "one"}
    get(work, "a").host = "two"
    work.close()
    assert hosts() == {"a": "two"}


def test_events_are_numbered_without_holes_and_written_last():
    work = begin(last_seq=7)
    assert work.next_seq == 8
    for name in "ab":
        work.emit("token_created", agent_id=name)
    work.flush()
    assert not Event.objects.exists()
    work.close()
    assert list(Event.objects.order_by("seq").values_list("seq", "agent_id", "at")) == [
        (8, "a", NOW),
        (9, "b", NOW),
    ]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("no_such_kind", {}),
        ("token_created", {"more": 1}),
        ("task_submitted", {}),
        ("task_submitted", {"priority": 1, "more": 2}),
    ],
)
def test_an_event_carries_exactly_what_its_kind_declares(kind: str, data: dict[str, Any]):
    work = begin()
    with pytest.raises(ValueError, match=kind):
        work.emit(kind, **data)
    assert work.events == []


def test_counters_are_added_up_and_made_where_there_are_none():
    work = begin()
    work.increment(Minute, MINUTE, completed=1)
    work.increment(Minute, MINUTE, completed=2, tokens=5)
    work.close()
    work = begin()
    work.increment(Minute, MINUTE, failed=1, completed=1)
    work.close()
    assert Minute.objects.values("completed", "failed", "tokens", "duration_ms").get() == {
        "completed": 4,
        "failed": 1,
        "tokens": 5,
        "duration_ms": 0,
    }


def test_every_projection_hears_every_event_in_order():
    heard = []
    work = begin(
        lambda work, event: heard.append(("one", event.seq)),
        lambda work, event: heard.append(("two", event.seq)),
    )
    work.emit("token_created", agent_id="a")
    work.emit("token_created", agent_id="b")
    assert heard == [("one", 1), ("two", 1), ("one", 2), ("two", 2)]


# --- What a refused command leaves behind: nothing


def test_a_change_is_undone():
    there("a")
    work = begin()
    refused(work, lambda: setattr(get(work, "a"), "host", "changed"))
    assert get(work, "a").host == "here"
    work.close()
    assert hosts() == {"a": "here"}


def test_what_an_earlier_command_changed_stays():
    there("a")
    work = begin()
    with work.step(actors.HUB):
        get(work, "a").host = "one"
    refused(work, lambda: setattr(get(work, "a"), "host", "two"))
    assert get(work, "a").host == "one"
    work.close()
    assert hosts() == {"a": "one"}


def test_a_change_to_a_row_that_an_earlier_command_added_is_undone():
    work = begin()
    with work.step(actors.HUB):
        work.add(node("a", work))
    refused(work, lambda: setattr(get(work, "a"), "host", "changed"))
    work.close()
    assert hosts() == {"a": "here"}


def test_a_change_to_a_row_found_by_a_query_is_undone():
    there("a")
    work = begin()
    refused(work, lambda: setattr(work.track(Node.objects.get()), "host", "changed"))
    work.close()
    assert hosts() == {"a": "here"}


def test_added_and_appended_rows_are_dropped():
    work = begin()
    refused(work, lambda: work.add(node("a", work)), lambda: work.append(node("b", work)))
    assert work.get(Node, "a") is None
    work.close()
    assert hosts() == {}


def test_a_removed_row_is_back():
    there("a")
    work = begin()
    refused(work, lambda: work.remove(get(work, "a")))
    assert get(work, "a").host == "here"
    work.close()
    assert hosts() == {"a": "here"}


def test_counters_and_events_are_taken_back():
    work = begin()
    refused(
        work,
        lambda: work.increment(Minute, MINUTE, completed=1),
        lambda: work.emit("token_created", agent_id="a"),
    )
    assert work.next_seq == 1
    work.close()
    assert not Minute.objects.exists()
    assert not Event.objects.exists()


def test_the_next_command_goes_on_where_the_last_good_one_ended():
    work = begin()
    with work.step(actors.HUB):
        work.emit("token_created", agent_id="a")
    refused(work, lambda: work.emit("token_created", agent_id="b"))
    with work.step(actors.HUB):
        work.emit("token_created", agent_id="c")
    work.close()
    assert list(Event.objects.order_by("seq").values_list("seq", "agent_id")) == [
        (1, "a"),
        (2, "c"),
    ]


# --- Rows that are made without the model's constructor


def test_a_new_row_is_as_the_model_makes_it():
    made, usual = rows.new(Event, seq=1, kind="k"), Event(seq=1, kind="k")
    assert {**made.__dict__, "_state": None} == {**usual.__dict__, "_state": None}
    assert made._state.adding
    assert rows.new(Event).data is not rows.new(Event).data


def test_a_new_row_has_no_other_columns():
    with pytest.raises(TypeError, match="Event has no sort"):
        rows.new(Event, sort="k")
