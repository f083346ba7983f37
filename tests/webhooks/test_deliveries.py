"""What becomes of deliveries and endpoints, command by command, by the test's clock."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection

from agentcom.errors import Refused
from agentcom.models import Event
from agentcom.work import Command
from agentcom.writer import writer
from tasks.queue import Accept
from tests.shift import Clock, clock
from tests.webhooks.play import (
    BOSS,
    add,
    assigned,
    complete,
    completed,
    do,
    feed,
    fresh,
)
from webhooks.deliveries import (
    Discard,
    Hasten,
    RecordAttempt,
    Replay,
    due,
    replays,
    reset_late,
)
from webhooks.endpoints import (
    MAX_ENDPOINTS,
    AddEndpoint,
    ChangeEndpoint,
    RemoveEndpoint,
    RotateSecret,
    SendTest,
    SwitchOff,
    SwitchOn,
    Target,
)
from webhooks.feed import next_batches
from webhooks.models import Attempt, Delivery, Endpoint, Message
from webhooks.post import Answer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock")]

__all__ = ["clock"]

GOOD = Answer(12, 204)
BAD = Answer(12, 500, "no", "answered 500")
DAY_S = 24 * 3600


def delivery(number: int = 0) -> Delivery:
    return Delivery.objects.order_by("number")[number]


def record(one: Delivery, answer: Answer) -> bool:
    command = RecordAttempt(one.message_id, one.endpoint_id, one.attempts, answer)
    recorded: bool = do(command)
    return recorded


@pytest.fixture
def endpoint() -> Endpoint:
    return add(types=["task.accepted", "task.completed"])


@pytest.fixture
def waiting(endpoint: Endpoint) -> Delivery:
    """Of a task that two events are told of; this is the first of them."""
    completed()
    feed()
    return delivery()


def test_a_delivery_that_arrived_is_over_and_the_next_of_its_task_is_due(waiting: Delivery):
    assert delivery(1).due_at is None
    assert record(waiting, GOOD)
    first, second = delivery(0), delivery(1)
    assert (first.state, first.due_at, first.attempts) == ("delivered", None, 1)
    assert second.due_at is not None
    [attempt] = Attempt.objects.all()
    assert (attempt.message_id, attempt.status_code) == (waiting.message_id, 204)


def test_an_attempt_that_failed_is_made_again_later(waiting: Delivery, clock: Clock, settings):
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = [10, 100]
    pauses = []
    for _ in range(2):
        record(delivery(), BAD)
        due_at = delivery().due_at
        assert due_at is not None
        pauses.append((due_at - clock.now).total_seconds())
        clock.advance(pauses[-1])
    assert 8 <= pauses[0] <= 12
    assert 80 <= pauses[1] <= 120
    assert (delivery().status_code, delivery().error) == (500, "answered 500")
    assert delivery(1).due_at is None


def test_after_the_last_attempt_it_is_dead_and_the_next_of_its_task_goes(
    waiting: Delivery, settings
):
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = [1]
    record(waiting, BAD)
    record(delivery(), BAD)
    assert (delivery().state, delivery().due_at) == ("dead", None)
    assert delivery(1).due_at is not None


def test_the_pauses_last_about_a_day(settings):
    assert 0.9 * DAY_S < sum(settings.AGENTCOM_WEBHOOK_BACKOFF_S) < 1.1 * DAY_S


@pytest.mark.parametrize(("asked_s", "at_least", "at_most"), [(100, 100, 100), (1e9, 3600, 3600)])
def test_a_receiver_may_ask_for_a_longer_pause_up_to_a_bound(
    waiting: Delivery, clock: Clock, asked_s: float, at_least: float, at_most: float
):
    record(waiting, Answer(1, 429, error="answered 429", retry_after_s=asked_s))
    due_at = delivery().due_at
    assert due_at is not None
    assert at_least <= (due_at - clock.now).total_seconds() <= at_most


def test_an_outcome_of_another_sender_counts_once(waiting: Delivery):
    assert record(waiting, BAD)
    assert not record(waiting, BAD)  # it had 0 attempts when this one began
    assert (delivery().attempts, Attempt.objects.count()) == (1, 1)
    assert record(delivery(), GOOD)
    assert not record(delivery(), BAD)
    assert delivery().state == "delivered"


def test_outcomes_of_one_group_keep_the_order_of_a_task(endpoint: Endpoint):
    """A delivery ends and a later event of its task is added, in one commit."""
    task = assigned()
    do(Accept(task.task_id, "a-1", 1))
    feed()
    complete(task.task_id)
    first = delivery()
    commands: list[Command] = [
        RecordAttempt(first.message_id, first.endpoint_id, 0, GOOD),
        *next_batches([fresh(endpoint)]),
    ]
    assert writer.commit(commands) == [True, True]
    assert delivery(1).due_at is not None


def test_gone_switches_the_endpoint_off_and_keeps_the_delivery(waiting: Delivery):
    record(waiting, Answer(1, 410, error="answered 410"))
    off = fresh(Endpoint.objects.get())
    assert (off.enabled, off.off_by_failure) == (False, True)
    assert "410" in off.off_reason
    assert delivery().state == "waiting"
    event = Event.objects.get(kind="webhook_disabled")
    assert (event.actor, event.data["reason"]) == ("worker", off.off_reason)


def fail_for(days: float, clock: Clock) -> None:
    """An attempt every hour."""
    until = clock.now + timedelta(days=days)
    while clock.now < until:
        record(delivery(), BAD)
        clock.advance(3600)


def test_one_that_fails_for_days_is_switched_off(waiting: Delivery, clock: Clock, settings):
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = [3600] * 100
    fail_for(2.9, clock)
    assert Endpoint.objects.get().enabled
    fail_for(0.2, clock)
    off = Endpoint.objects.get()
    assert (off.enabled, off.off_by_failure) == (False, True)
    assert "3 days" in off.off_reason
    assert "answered 500" in off.off_reason


def test_days_in_which_nothing_was_tried_do_not_count(waiting: Delivery, clock: Clock, settings):
    """The hub was down over the weekend, or its clock jumped."""
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = [3600] * 100
    fail_for(0.5, clock)
    clock.advance(10 * DAY_S)
    fail_for(0.5, clock)
    clock.jump(-12 * DAY_S)
    fail_for(0.5, clock)
    assert Endpoint.objects.get().enabled
    assert Endpoint.objects.get().failing_s < 1.7 * DAY_S


def test_a_success_in_between_begins_it_anew(waiting: Delivery, clock: Clock, settings):
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = [3600] * 100
    fail_for(2.9, clock)
    record(delivery(), GOOD)
    assert Endpoint.objects.get().failing_since is None
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = [3600]
    record(delivery(1), BAD)
    clock.advance(DAY_S)
    record(delivery(1), BAD)
    assert Endpoint.objects.get().enabled


def test_a_single_failure_after_quiet_days_switches_nothing_off(
    waiting: Delivery, clock: Clock, settings
):
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = [1] * 10
    record(waiting, BAD)
    clock.advance(5 * DAY_S)
    record(delivery(), BAD)
    assert Endpoint.objects.get().enabled


class TestReplay:
    def test_of_one_that_arrived(self, waiting: Delivery):
        record(waiting, GOOD)
        body = Message.objects.get(message_id=waiting.message_id).body
        record(delivery(1), GOOD)
        assert do(Replay(waiting.message_id, waiting.endpoint_id, BOSS))
        one = delivery()
        assert (one.state, one.message_id, one.attempts) == ("waiting", waiting.message_id, 1)
        assert one.due_at is not None
        assert Message.objects.get(message_id=one.message_id).body == body

    def test_of_a_dead_one_begins_its_pauses_anew(self, waiting: Delivery, settings):
        settings.AGENTCOM_WEBHOOK_BACKOFF_S = [1]
        record(waiting, BAD)
        record(delivery(), BAD)
        do(Replay(waiting.message_id, waiting.endpoint_id, BOSS))
        record(delivery(), BAD)
        assert (delivery().state, delivery().attempts) == ("waiting", 3)

    def test_waits_while_another_event_of_its_task_is_on_its_way(self, waiting: Delivery):
        record(waiting, GOOD)
        do(Replay(waiting.message_id, waiting.endpoint_id, BOSS))
        assert delivery().due_at is None
        record(delivery(1), GOOD)
        assert delivery().due_at is not None

    def test_of_one_that_waits_for_its_next_attempt_sends_it_now(
        self, waiting: Delivery, clock: Clock
    ):
        record(waiting, BAD)
        assert do(Replay(waiting.message_id, waiting.endpoint_id, BOSS))
        assert delivery().due_at == clock.now
        assert not do(Replay(waiting.message_id, waiting.endpoint_id, BOSS))

    def test_twice_in_one_group(self, waiting: Delivery):
        record(waiting, GOOD)
        record(delivery(1), GOOD)
        commands = [Replay(delivery(n).message_id, waiting.endpoint_id, BOSS) for n in (0, 1)]
        assert writer.commit(commands) == [True, True]
        assert [delivery(n).due_at is not None for n in (0, 1)] == [True, False]

    def test_of_a_range_of_time(self, endpoint: Endpoint, clock: Clock):
        for number in range(3):
            completed(f"a-{number}")
            feed()
            clock.advance(60)
        for one in Delivery.objects.order_by("seq"):
            record(Delivery.objects.get(pk=one.pk), GOOD)
        since = clock.now - timedelta(seconds=130)
        until = clock.now - timedelta(seconds=70)
        commands = list(replays(endpoint.endpoint_id, since, until, BOSS))
        assert writer.commit(commands) == [True, True]
        waits = Delivery.objects.filter(ended_at=None).values_list("happened_at", flat=True)
        assert all(since <= at < until for at in waits)

    def test_of_nothing(self, waiting: Delivery):
        with pytest.raises(Refused, match="delivery_not_found"):
            do(Replay("msg_none", waiting.endpoint_id, BOSS))
        record(waiting, GOOD)
        do(RemoveEndpoint(waiting.endpoint_id, BOSS))
        with pytest.raises(Refused, match="webhook_not_found"):
            do(Replay(waiting.message_id, waiting.endpoint_id, BOSS))


def test_only_dead_ones_are_discarded(waiting: Delivery, settings):
    assert not do(Discard(waiting.message_id, BOSS))
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = [1]
    record(waiting, BAD)
    record(delivery(), BAD)
    assert do(Discard(waiting.message_id, BOSS))
    assert not Message.objects.filter(message_id=waiting.message_id).exists()
    assert not Attempt.objects.exists()


def test_a_receiver_that_is_back_gets_the_rest_soon(waiting: Delivery, clock: Clock, settings):
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = [3600]
    record(waiting, BAD)
    assert do(Hasten(waiting.endpoint_id)) == 0  # it still fails
    succeed_with_another("a-2")
    assert do(Hasten(waiting.endpoint_id)) == 1
    assert delivery().due_at <= clock.now + timedelta(seconds=5)  # type: ignore[operator]
    assert (delivery().tries, delivery().attempts) == (0, 1)
    assert do(Hasten(waiting.endpoint_id)) == 0


def test_one_that_fails_again_in_between_is_not_forgotten(
    waiting: Delivery, clock: Clock, settings
):
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = [3600]
    record(waiting, BAD)
    succeed_with_another("a-2")
    newest = Delivery.objects.latest("number").number
    clock.advance(1)
    completed("a-3")
    feed()
    record(Delivery.objects.get(number=newest + 1), BAD)
    assert do(Hasten(waiting.endpoint_id)) == 0
    succeed_with_another("a-4")
    assert do(Hasten(waiting.endpoint_id)) == 2


def succeed_with_another(agent_id: str) -> None:
    newest = Delivery.objects.latest("number").number
    completed(agent_id)
    feed()
    record(Delivery.objects.get(number=newest + 1), GOOD)


def test_what_a_receiver_never_accepts_keeps_its_pauses(waiting: Delivery, clock: Clock, settings):
    """Though other messages succeed all the time: its attempts last for a day."""
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = [3600] * 10
    record(waiting, BAD)
    for number in range(5):
        succeed_with_another(f"b-{number}")
        do(Hasten(waiting.endpoint_id))
        if delivery().due_at - clock.now < timedelta(seconds=6):  # type: ignore[operator]
            clock.advance(6)
            record(delivery(), BAD)
        clock.advance(60)
    assert delivery().attempts <= 2
    assert delivery().due_at - clock.now > timedelta(seconds=2000)  # type: ignore[operator]


def test_what_is_due_too_late_after_the_clock_was_set_back(waiting: Delivery, clock: Clock):
    record(waiting, BAD)
    clock.jump(-2 * DAY_S)
    assert due(waiting.endpoint_id, clock.now, 8, set()) == []

    class Reset:
        actor = "worker"

        def rows(self):
            return []

        def apply(self, work):
            return reset_late(work)

    assert do(Reset()) == 1
    assert [one.pk for one in due(waiting.endpoint_id, clock.now, 8, set())] == [waiting.pk]


class TestEndpoints:
    def test_the_journal_says_what_was_done_and_by_whom_and_no_secret(self):
        endpoint = add()
        do(ChangeEndpoint(endpoint.endpoint_id, BOSS, Target(endpoint.url, description="mine")))
        do(RotateSecret(endpoint.endpoint_id, BOSS))
        do(SwitchOff(endpoint.endpoint_id, BOSS, "a holiday"))
        do(SwitchOn(endpoint.endpoint_id, BOSS))
        do(RemoveEndpoint(endpoint.endpoint_id, BOSS))
        events = list(Event.objects.filter(kind__startswith="webhook_").order_by("seq"))
        assert [event.kind for event in events] == [
            *("webhook_created", "webhook_changed", "webhook_changed"),
            *("webhook_disabled", "webhook_enabled", "webhook_removed"),
        ]
        assert {event.actor for event in events} == {BOSS}
        assert events[1].data["changed"] == ["description"]
        assert events[2].data["changed"] == ["secret"]
        assert "whsec_" not in str([event.data for event in events])

    def test_the_journal_has_no_query_of_a_url(self):
        add("https://receiver.example/hook?key=hush")
        assert Event.objects.get(kind="webhook_created").data["webhook"]["url"] == (
            "https://receiver.example/hook"
        )

    def test_and_nothing_is_left(self):
        endpoint = add()
        do(RemoveEndpoint(endpoint.endpoint_id, BOSS))
        assert not Endpoint.objects.exists()

    def test_a_command_that_fails_does_not_show_the_secret(self):
        assert "whsec_" not in repr(AddEndpoint(BOSS, Target("https://receiver.example/")))
        assert "whsec_" not in repr(RotateSecret("hook-1", BOSS))

    def test_the_same_again_is_no_change(self):
        endpoint = add(lanes=["low", "high"], capabilities=["b", "a"])
        same = Target(endpoint.url, lanes=["high", "low"], capabilities=["a", "b", "a"])
        assert not do(ChangeEndpoint(endpoint.endpoint_id, BOSS, same))
        assert not do(SwitchOn(endpoint.endpoint_id, BOSS))
        do(SwitchOff(endpoint.endpoint_id, BOSS))
        assert not do(SwitchOff(endpoint.endpoint_id, BOSS))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"url": "ftp://x"},
            {"types": []},
            {"types": ["task.eaten"]},
            {"lanes": ["fast"]},
            {"capabilities": [""]},
            {"capabilities": [" "]},
            {"capabilities": ["x"] * 65},
            {"description": "x" * 501},
        ],
    )
    def test_what_is_wrong_is_said_before_anything_changes(self, wrong: dict):
        [name] = wrong
        with pytest.raises(ValueError, match=f"^{name}: "):
            Target(**{"url": "https://receiver.example/", **wrong})

    def test_there_may_be_so_many(self):
        for _ in range(MAX_ENDPOINTS):
            add()
        with pytest.raises(Refused, match="too_many_webhooks"):
            add()

    def test_on_what_is_not_there(self):
        for command in (SwitchOff("hook-0", BOSS), SendTest("hook-0", BOSS)):
            with pytest.raises(Refused, match="webhook_not_found"):
                do(command)

    def test_switched_on_it_goes_on_where_it_was(self, endpoint: Endpoint):
        do(SwitchOff(endpoint.endpoint_id, BOSS))
        completed()
        do(SwitchOn(endpoint.endpoint_id, BOSS))
        feed()
        assert Delivery.objects.count() == 2
        assert Event.objects.get(kind="webhook_enabled").data["missed"] == 0

    def test_switched_on_after_its_place_is_gone_it_says_what_it_missed(self, endpoint: Endpoint):
        do(SwitchOff(endpoint.endpoint_id, BOSS))
        completed()
        newest = Event.objects.latest("seq").seq
        Event.objects.exclude(seq=newest).delete()
        do(SwitchOn(endpoint.endpoint_id, BOSS))
        assert Event.objects.get(kind="webhook_enabled").data["missed"] == newest - 1 - endpoint.seq
        assert fresh(endpoint).seq == newest - 1

    def test_a_test_event_is_due_at_once(self, endpoint: Endpoint):
        message_id = do(SendTest(endpoint.endpoint_id, BOSS))
        assert (delivery().message_id, delivery().type) == (message_id, "webhook.test")
        do(SwitchOff(endpoint.endpoint_id, BOSS))
        with pytest.raises(Refused, match="webhook_is_off"):
            do(SendTest(endpoint.endpoint_id, BOSS))


@pytest.mark.sqlite_only
def test_what_is_due_is_found_by_an_index():
    query = Delivery.objects.filter(endpoint_id="hook-1", due_at__lte="2026-01-01T00:00:00Z")
    with connection.cursor() as cursor:
        sql, parameters = query.order_by("due_at", "number")[:8].query.sql_with_params()
        plan = str(cursor.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall())
        assert "delivery_due" in plan
        waits = Delivery.objects.filter(endpoint_id="hook-1", task_id="t", ended_at=None)
        sql, parameters = waits.order_by("seq")[:1].query.sql_with_params()
        plan = str(cursor.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall())
        assert "delivery_of_task" in plan
        assert "TEMP B-TREE" not in plan
        sql, parameters = (
            Delivery.objects.filter(endpoint_id="hook-1", ended_at=None)
            .order_by("happened_at")[:1]
            .query.sql_with_params()
        )
        plan = str(cursor.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall())
        assert "delivery_oldest" in plan
