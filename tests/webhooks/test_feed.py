"""From the journal to deliveries: nothing lost, nothing doubled, only what the filter lets pass."""

from __future__ import annotations

import json

import pytest

from agentcom.models import Event
from agentcom.writer import writer
from tasks.models import Task
from tasks.queue import Fail
from tasks.steering import Cancel, Retry
from tests.webhooks.play import (
    BOSS,
    add,
    assigned,
    complete,
    completed,
    dead,
    do,
    feed,
    fresh,
    submit,
    types,
)
from webhooks import bodies
from webhooks import feed as feeding
from webhooks.endpoints import ChangeEndpoint, SwitchOff, SwitchOn, Target
from webhooks.feed import next_batches
from webhooks.kinds import TYPES
from webhooks.models import Delivery, Endpoint, Message

pytestmark = pytest.mark.django_db


def bodies_of(endpoint: Endpoint) -> list[dict]:
    ids = Delivery.objects.filter(endpoint_id=endpoint.endpoint_id).order_by("number")
    found = dict(Message.objects.values_list("message_id", "body"))
    return [json.loads(found[one]) for one in ids.values_list("message_id", flat=True)]


def test_it_begins_with_its_creation():
    completed()
    endpoint = add()
    feed()
    assert types(endpoint) == []
    completed("a-2")
    feed()
    assert types(endpoint) == ["task.completed"]


def test_by_default_it_hears_of_the_ends_of_tasks():
    endpoint = add()
    completed()
    dead("a-2")
    do(Cancel(submit().task_id, BOSS))
    feed()
    assert types(endpoint) == ["task.completed", "task.dead_letter", "task.cancelled"]


def test_all_types_are_there_to_be_chosen():
    endpoint = add(types=list(TYPES.values()))
    completed()
    do(Retry(dead("a-2").task_id, BOSS))
    feed()
    assert types(endpoint) == [
        *("task.submitted", "task.assigned", "task.accepted", "task.completed"),
        *("task.submitted", "task.assigned", "task.failed", "task.dead_letter", "task.retried"),
    ]


def test_each_entry_is_given_once_however_often_it_is_read():
    endpoint = add()
    completed()
    batches = next_batches([fresh(endpoint)])
    again = next_batches([fresh(endpoint)])
    assert writer.commit(batches) == [True]
    assert writer.commit(batches) == [False]  # as after a commit whose reply was lost
    assert writer.commit(again) == [False]
    assert types(endpoint) == ["task.completed"]


def test_two_endpoints_get_their_own():
    one, two = add(), add(types=["task.submitted"])
    completed()
    feed()
    assert (types(one), types(two)) == (["task.completed"], ["task.submitted"])
    assert Delivery.objects.values("message_id").distinct().count() == 2


def test_one_that_is_behind_gets_what_it_lacks_and_the_others_nothing_twice():
    one = add()
    completed()
    feed()
    do(SwitchOff(one.endpoint_id, BOSS))
    two = add()
    completed("a-2")
    feed()
    do(SwitchOn(one.endpoint_id, BOSS))
    feed()
    assert (types(one), types(two)) == (["task.completed"] * 2, ["task.completed"])


def test_only_its_lanes():
    endpoint = add(lanes=["urgent", "low"])
    for lane in range(4):
        completed(f"a-{lane}", priority=lane)
    feed()
    assert [body["data"]["task"]["priority"] for body in bodies_of(endpoint)] == [0, 3]


def test_only_tasks_that_need_one_of_its_capabilities():
    endpoint = add(types=["task.submitted"], capabilities=["gpu", "rust"])
    for needs in (["gpu"], ["gpu", "python"], ["python"], []):
        submit(needed_capabilities=needs)
    feed()
    told = [body["data"]["task"]["needed_capabilities"] for body in bodies_of(endpoint)]
    assert told == [["gpu"], ["gpu", "python"]]


def test_a_new_filter_counts_for_what_was_not_read_yet():
    endpoint = add(types=["task.submitted"])
    submit()
    [stale] = next_batches([fresh(endpoint)])
    do(ChangeEndpoint(endpoint.endpoint_id, BOSS, Target(endpoint.url)))
    assert writer.commit([stale]) == [False]
    feed()
    assert types(endpoint) == []


def test_one_that_was_switched_off_or_removed_meanwhile_gets_nothing():
    endpoint = add()
    completed()
    [stale] = next_batches([fresh(endpoint)])
    do(SwitchOff(endpoint.endpoint_id, BOSS))
    assert writer.commit([stale]) == [False]
    Endpoint.objects.all().delete()
    assert writer.commit([stale]) == [False]
    assert not Delivery.objects.exists()


def test_a_later_event_of_a_task_waits_for_the_one_before():
    add(types=["task.submitted", "task.assigned", "task.accepted"])
    first, other = assigned().task_id, assigned("a-2").task_id
    feed()
    for task_id in (first, other):
        due = Delivery.objects.filter(task_id=task_id).order_by("seq")
        assert [one.due_at is not None for one in due] == [True, False]


def test_a_later_event_waits_also_when_it_is_read_later():
    add(types=["task.submitted", "task.completed"])
    task = assigned()
    feed()
    complete(task.task_id)
    feed()
    due = Delivery.objects.filter(task_id=task.task_id).order_by("seq")
    assert [one.due_at is not None for one in due] == [True, False]


def test_small_batches_lose_nothing(monkeypatch: pytest.MonkeyPatch):
    endpoint = add(types=list(TYPES.values()))
    completed()
    dead("a-2")
    monkeypatch.setattr(feeding, "BATCH", 2)
    monkeypatch.setattr(feeding, "BATCH_BYTES", 1)
    monkeypatch.setattr(feeding, "READ_AT_ONCE", 1)
    feed()
    known = Event.objects.filter(kind__in=TYPES, seq__gt=endpoint.seq).order_by("seq")
    given = Delivery.objects.order_by("number").values_list("seq", flat=True)
    assert list(given) == list(known.values_list("seq", flat=True))


def test_a_receiver_that_is_behind_leaves_the_rest_in_the_journal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feeding, "WAITING_MAX", 3)
    monkeypatch.setattr(feeding, "BATCH", 1)
    endpoint = add(types=["task.submitted"])
    for _ in range(5):
        submit()
    feed()
    assert len(types(endpoint)) == 3
    Delivery.objects.filter(number=Delivery.objects.earliest("number").number).delete()
    feed()
    assert Delivery.objects.count() == 3


class TestBody:
    def one(self, **target) -> dict:
        endpoint = add(**target)
        completed(result={"answer": 42}, description="Say hello\nplease", metadata={"order": 7})
        feed()
        [body] = bodies_of(endpoint)
        return body

    def test_says_how_the_task_ended(self):
        body = self.one()
        data = body["data"]
        event = Event.objects.get(kind="task_complete")
        assert body["type"] == "task.completed"
        assert body["timestamp"].startswith(f"{event.at:%Y-%m-%dT%H:%M:%S.}")
        assert body["timestamp"].endswith("Z")
        assert (data["seq"], data["kind"]) == (event.seq, "task_complete")
        assert (data["agent_id"], data["actor"]) == ("a-1", "agent:a-1")
        assert data["result"] == {"answer": 42}
        assert data["error"] is None
        assert data["cut"] == []
        assert data["task"]["title"] == "Say hello\nplease"
        assert data["task"]["metadata"] == {"order": 7}
        assert (data["task"]["status"], data["task"]["generation"]) == ("completed", 1)

    def test_of_a_dead_letter_has_the_error(self):
        endpoint = add()
        dead()
        feed()
        [body] = bodies_of(endpoint)
        assert body["data"]["error"] == "broken"
        assert body["data"]["task"]["status"] == "dead_letter"
        assert body["data"]["result"] is None

    def test_tells_the_status_of_that_moment(self):
        """Read late, when the task has moved on."""
        endpoint = add(types=["task.submitted", "task.assigned", "task.completed"])
        completed()
        feed()
        told = [(b["type"], b["data"]["task"]["status"]) for b in bodies_of(endpoint)]
        assert told == [
            ("task.submitted", "queued"),
            ("task.assigned", "assigned"),
            ("task.completed", "completed"),
        ]

    def test_leaves_out_a_result_that_is_too_large_and_says_so(self):
        endpoint = add()
        completed(result={"text": "x" * bodies.BODY_MAX}, metadata={"order": 7})
        feed()
        [body] = bodies_of(endpoint)
        assert body["data"]["result"] is None
        assert body["data"]["cut"] == ["result"]
        assert body["data"]["task"]["metadata"] == {"order": 7}

    def test_never_has_more_bytes_than_it_may(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(bodies, "BODY_MAX", 1500)
        monkeypatch.setattr(bodies, "TEXT_MAX", 200)
        endpoint = add(types=["task.failed"])
        task = assigned(metadata={"text": "m" * 1000})
        do(Fail(task.task_id, "a-1", 1, error="e" * 3000))
        feed()
        [text] = Message.objects.values_list("body", flat=True)
        assert len(text.encode()) <= 1500
        assert bodies_of(endpoint)[0]["data"]["cut"] == ["task.metadata", "error"]

    def test_of_a_task_that_was_deleted_has_what_the_entry_has(self):
        endpoint = add(lanes=["normal"], capabilities=["gpu"])
        task_id = completed()
        Task.objects.all().delete()
        feed()
        [body] = bodies_of(endpoint)
        assert body["data"]["task"]["id"] == task_id
        assert body["data"]["task"]["status"] == "completed"


def test_every_kind_has_a_body():
    """Also entries of an older version, which lack fields."""
    task = submit()
    facts = bodies.read_facts([task.task_id])[task.task_id]
    for kind in TYPES:
        event = Event(seq=1, kind=kind, task_id=task.task_id, at=task.created_at)
        event.data = {"status": "queued", "was": "assigned"}
        body = json.loads(bodies.body_of(event, facts, None))
        assert body["type"] == TYPES[kind]
        assert body["data"]["task"]["status"]
