"""What the worker does for webhooks besides sending: pruning, the light, a clock set back."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agentcom.models import Event
from agentcom.writer import writer
from tasks.models import Task
from tests.shift import Clock, Shift, clock, shift
from tests.webhooks.play import BOSS, add, completed, do, feed, fresh
from webhooks.deliveries import RecordAttempt
from webhooks.endpoints import RemoveEndpoint, SwitchOff, SwitchOn
from webhooks.models import Attempt, Delivery, Endpoint, Message
from webhooks.post import Answer
from worker import pruning
from worker.facts import gather
from worker.health import Facts, judge
from worker.models import HealthReport

pytestmark = pytest.mark.django_db

__all__ = ["clock", "shift"]

DAY = 24 * 3600.0
GOOD, BAD = Answer(1, 204), Answer(1, 500, error="answered 500")


def prune(clock: Clock) -> int:
    """Until nothing old is left."""
    total = 0
    while dropped := sum(writer.commit(pruning.steps(clock.now))):
        total += dropped
    return total


def attempt(answer: Answer, times: int = 1) -> None:
    for _ in range(times):
        for one in Delivery.objects.filter(ended_at=None):
            do(RecordAttempt(one.message_id, one.endpoint_id, one.attempts, answer))


class TestPruning:
    def test_entries_that_an_endpoint_was_not_given_stay(self, clock: Clock):
        add()
        completed()
        newest = Event.objects.latest("seq").seq
        clock.advance(30 * DAY)
        prune(clock)
        assert Event.objects.filter(kind="task_complete").exists()
        feed()
        prune(clock)
        assert list(Event.objects.values_list("seq", flat=True)) == [newest]
        assert Delivery.objects.count() == 1

    def test_and_so_do_the_tasks_that_they_are_about(self, clock: Clock):
        add()
        task_id = completed(result={"answer": 42})
        clock.advance(100 * DAY)
        prune(clock)
        assert Task.objects.filter(task_id=task_id).exists()
        feed()
        assert '"answer":42' in Message.objects.get().body
        prune(clock)
        assert not Task.objects.exists()

    def test_one_that_is_off_keeps_nothing(self, clock: Clock):
        endpoint = add()
        do(SwitchOff(endpoint.endpoint_id, BOSS))
        completed()
        clock.advance(100 * DAY)
        prune(clock)
        assert not Event.objects.filter(kind="task_submitted").exists()
        assert not Task.objects.exists()
        do(SwitchOn(endpoint.endpoint_id, BOSS))
        feed()
        assert Event.objects.get(kind="webhook_enabled").data["missed"] > 0

    def test_one_that_is_switched_on_in_the_same_commit_keeps_its_entries(self, clock: Clock):
        endpoint = add()
        do(SwitchOff(endpoint.endpoint_id, BOSS))
        completed()
        clock.advance(30 * DAY)
        writer.commit([SwitchOn(endpoint.endpoint_id, BOSS), *pruning.steps(clock.now)])
        feed()
        assert Delivery.objects.count() == 1

    def test_what_arrived_is_kept_for_some_days_and_what_is_dead_for_good(
        self, clock: Clock, settings: Any
    ):
        settings.AGENTCOM_WEBHOOK_BACKOFF_S = [1]
        add()
        completed()
        feed()
        attempt(GOOD)
        completed("a-2")
        feed()
        attempt(BAD, times=2)
        assert list(Delivery.objects.order_by("number").values_list("state", flat=True)) == [
            *("delivered", "dead")
        ]
        clock.advance(6.9 * DAY)
        prune(clock)
        assert Delivery.objects.count() == 2
        clock.advance(300 * DAY)
        prune(clock)
        dead = Delivery.objects.get()
        assert dead.state == "dead"
        assert Message.objects.get().message_id == dead.message_id
        assert Attempt.objects.count() == 2

    def test_what_waits_is_never_dropped(self, clock: Clock):
        add()
        completed()
        feed()
        clock.advance(300 * DAY)
        prune(clock)
        assert Delivery.objects.get().state == "waiting"

    def test_the_deliveries_of_a_removed_endpoint_go_in_small_steps(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(pruning, "STEP", 1)
        gone, stays = add(), add()
        for number in range(3):
            completed(f"a-{number}")
        feed()
        attempt(BAD)
        do(RemoveEndpoint(gone.endpoint_id, BOSS))
        steps = pruning.PruneDeliveries(clock.now)
        assert [do(steps) for _ in range(4)] == [1, 1, 1, 0]
        left = Delivery.objects.all()
        assert {one.endpoint_id for one in left} == {stays.endpoint_id}
        ids = {one.message_id for one in left}
        assert set(Message.objects.values_list("message_id", flat=True)) == ids
        assert set(Attempt.objects.values_list("message_id", flat=True)) == ids


class TestLight:
    def codes(self, shift: Shift) -> list[str]:
        shift.tick(after=1)
        report = HealthReport.objects.first()
        assert report is not None
        return [detail["code"] for detail in report.details]

    @pytest.fixture(autouse=True)
    def no_sender(self, shift: Shift, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its thread would not see what the test has not committed."""
        monkeypatch.setattr(shift.worker._webhooks, "keep_up", lambda until: None)

    def test_an_endpoint_that_the_hub_has_switched_off(self, shift: Shift):
        endpoint = add()
        completed()
        feed()
        attempt(Answer(1, 410, error="answered 410"))
        assert "webhook_failing" in self.codes(shift)
        do(SwitchOn(endpoint.endpoint_id, BOSS))
        assert not fresh(endpoint).off_by_failure

    def test_one_that_a_person_has_switched_off_is_none(self, shift: Shift):
        do(SwitchOff(add().endpoint_id, BOSS))
        assert "webhook_failing" not in self.codes(shift)

    def test_an_event_that_is_undelivered_for_long(self, shift: Shift, settings: Any):
        settings.AGENTCOM_WEBHOOK_LATE_S = 5
        add()
        assert "webhook_failing" not in self.codes(shift)
        completed()
        feed()
        assert "webhook_failing" not in self.codes(shift)
        for _ in range(5):
            found = self.codes(shift)
        assert "webhook_failing" in found

    def test_a_journal_that_nobody_reads_for_it(self, shift: Shift, settings: Any):
        settings.AGENTCOM_WEBHOOK_LATE_S = 5
        add()
        completed()
        for _ in range(7):
            found = self.codes(shift)
        assert "webhook_failing" in found

    def test_in_words(self, clock: Clock):
        facts = Facts(failed_webhooks={"h1": "Billing (h1)"}, late_webhooks={"h2": "x", "h3": "y"})
        [condition] = judge(facts, None, clock.now).details
        assert condition.message == (
            "1 webhook was switched off because of failures: Billing (h1); "
            "2 webhooks have events undelivered for over 15 minutes: x and y"
        )
        assert condition.subjects == ("h1", "h2", "h3")

    def test_without_endpoints_it_costs_one_query(self, shift: Shift, clock: Clock):
        shift.tick()
        worker = shift.worker
        with CaptureQueriesContext(connection) as queries:
            gather(clock.now, worker.watch, worker._light._connections)
        about = [q["sql"] for q in queries.captured_queries if "webhooks_" in q["sql"]]
        assert len(about) == 1
        assert not Endpoint.objects.exists()


def test_a_delivery_is_not_postponed_by_a_clock_that_was_set_back(
    shift: Shift, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shift.worker._webhooks, "keep_up", lambda until: None)
    add()
    completed()
    feed()
    attempt(BAD)
    clock.jump(-10 * DAY)
    shift.worker._may_be_ahead = True
    shift.tick(after=1)
    assert Delivery.objects.get().due_at == clock.now
