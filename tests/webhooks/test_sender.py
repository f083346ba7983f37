"""The sender's threads, with the real Writer, a real database and real receivers."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agentcom.clock import steady
from agentcom.writer import writer
from tests.tasks.play import agent, claim
from tests.webhooks.play import add, complete, completed, do, fresh, submit
from tests.webhooks.receiver import (
    Answering,
    Receiver,
    assert_in_order,
    first_ids,
    receiving,
)
from webhooks import sender as sending
from webhooks.endpoints import RotateSecret, SendTest, SwitchOff
from webhooks.models import Attempt, Delivery, Endpoint
from webhooks.post import Answer
from webhooks.sender import AT_ONCE_EACH, UNRECORDABLE, Sender
from worker.tick import commit_together

pytestmark = pytest.mark.django_db(transaction=True)

BOSS = "user:boss"
BOUND_S = 20.0
LIFE = ["task.submitted", "task.assigned", "task.accepted", "task.completed"]


class Senders:
    """Each acts for as long as the test does, unless it is told to stop."""

    def __init__(self) -> None:
        self._started: list[Sender] = []

    def start(self) -> Sender:
        sender = Sender(commit_together)
        sender.keep_up(until=steady() + 600)
        self._started.append(sender)
        return sender

    def stop(self) -> None:
        for sender in self._started:
            sender.stop()
        writer.stop()


@pytest.fixture
def senders(settings) -> Iterator[Senders]:
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = [0.1] * 30
    senders = Senders()
    yield senders
    senders.stop()


def until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def waiting() -> int:
    return Delivery.objects.filter(ended_at=None).count()


def live(count: int) -> None:
    """So many tasks from their submission to their completion."""
    for number in range(count):
        task = submit(needed_capabilities=[f"skill-{number}"])
        holder = agent(f"a-{number}", capabilities=[f"skill-{number}"])
        assert claim(holder)
        complete(task.task_id, holder.agent_id)


def test_a_task_that_ends_is_told_with_a_signature_that_receivers_accept(
    receiver: Receiver, senders: Senders
):
    endpoint = add(receiver.url)
    senders.start()
    task_id = completed(result={"answer": 42})
    [received] = receiver.wait(1)
    told = received.verify(endpoint.secret)
    assert told["type"] == "task.completed"
    assert told["data"]["task"]["id"] == task_id
    assert told["data"]["result"] == {"answer": 42}
    assert abs(int(received.headers["webhook-timestamp"]) - time.time()) < 60
    until(lambda: not waiting())
    [attempt] = Attempt.objects.all()
    assert (attempt.message_id, attempt.status_code) == (received.id, 204)


def test_after_a_rotation_both_secrets_are_good(receiver: Receiver, senders: Senders):
    endpoint = add(receiver.url)
    do(RotateSecret(endpoint.endpoint_id, BOSS))
    senders.start()
    completed()
    [received] = receiver.wait(1)
    new = fresh(endpoint)
    assert new.secret != endpoint.secret
    received.verify(new.secret)
    received.verify(endpoint.secret)
    Endpoint.objects.update(old_secret_until="2020-01-01T00:00:00Z")
    do(SendTest(endpoint.endpoint_id, BOSS))
    received = receiver.wait(2)[1]
    received.verify(new.secret)
    with pytest.raises(Exception, match="No matching signature"):
        received.verify(endpoint.secret)


def test_a_receiver_that_was_down_gets_everything_in_order(receiver: Receiver, senders: Senders):
    add(receiver.url, types=LIFE)
    receiver.stop()
    senders.start()
    live(5)
    until(lambda: Delivery.objects.filter(attempts__gte=2).exists())
    receiver.start()
    until(lambda: Delivery.objects.count() == 20 and not waiting())
    received = receiver.received
    assert len(first_ids(received)) == 20
    assert_in_order(received)


def test_a_receiver_that_fails_half_of_the_time_gets_everything_in_order(
    receiver: Receiver, senders: Senders
):
    add(receiver.url, types=LIFE)
    chance = random.Random(1)
    receiver.answer = lambda _: 500 if chance.random() < 0.5 else 200
    senders.start()
    live(10)
    until(lambda: Delivery.objects.count() == 40 and not waiting())
    assert Delivery.objects.filter(state="delivered").count() == 40
    assert len(first_ids(receiver.received)) == 40
    assert_in_order(receiver.received)
    # each repeat is another attempt of the same message
    assert len(receiver.received) == Attempt.objects.count() > 40


def test_a_slow_receiver_gets_so_many_at_once_and_does_not_delay_others(
    receiver: Receiver, senders: Senders
):
    enough, going = threading.Event(), Counter[str]()
    lock, most = threading.Lock(), 0

    def slow(request: Answering) -> int:
        nonlocal most
        with lock:
            going["now"] += 1
            most = max(most, going["now"])
        enough.wait(BOUND_S)
        with lock:
            going["now"] -= 1
        return 200

    with receiving() as other:
        receiver.answer = slow
        add(receiver.url, types=["task.submitted"])
        add(other.url, types=["task.submitted"])
        senders.start()
        for _ in range(20):
            submit()
        other.wait(20)
        until(lambda: going["now"] == AT_ONCE_EACH)
        enough.set()
        receiver.wait(20)
    assert most == AT_ONCE_EACH


def test_events_of_one_task_are_never_under_way_together(receiver: Receiver, senders: Senders):
    under_way: set[str] = set()
    lock = threading.Lock()
    together: list[str] = []

    def note(request: Answering) -> int:
        task = request.headers["webhook-id"]
        with lock:
            known = Delivery.objects.get(message_id=task).task_id
            connection.close()
            assert known
            if known in under_way:
                together.append(known)
            under_way.add(known)
        time.sleep(0.03)
        with lock:
            under_way.discard(known)
        return 200

    receiver.answer = note
    add(receiver.url, types=LIFE)
    senders.start()
    live(4)
    until(lambda: Delivery.objects.count() == 16 and not waiting())
    assert not together
    assert_in_order(receiver.received)


def test_two_senders_mix_nothing_up(receiver: Receiver, senders: Senders):
    """As when a worker stood still and another has taken over."""
    add(receiver.url, types=LIFE)
    senders.start()
    senders.start()
    live(8)
    until(lambda: Delivery.objects.count() == 32 and not waiting())
    assert Delivery.objects.values("seq").distinct().count() == 32
    assert len(first_ids(receiver.received)) == 32
    assert_in_order(receiver.received)


def test_one_that_stands_by_sends_nothing(receiver: Receiver, senders: Senders):
    add(receiver.url)
    sender = senders.start()
    sender.stand_by()
    completed()
    time.sleep(0.3)
    assert receiver.received == []
    until(lambda: sender._thread is not None and not sender._thread.is_alive())
    sender.keep_up(until=steady() + 60)
    receiver.wait(1)


def test_what_is_switched_off_gets_nothing(receiver: Receiver, senders: Senders):
    endpoint = add(receiver.url)
    add(receiver.url + "/other", types=["task.submitted"])
    do(SwitchOff(endpoint.endpoint_id, BOSS))
    senders.start()
    completed()
    receiver.wait(1)
    time.sleep(0.2)
    assert [received.path for received in receiver.received] == ["/hook/other"]


def test_a_stop_waits_for_nobody(receiver: Receiver, senders: Senders):
    """What was under way is sent again by the next sender, and is no failed attempt."""
    ended = threading.Event()

    def hang(request: Answering) -> int:
        ended.wait(BOUND_S)
        return 200

    receiver.answer = hang
    add(receiver.url)
    sender = senders.start()
    completed()
    until(lambda: bool(sender._under_way))
    began = time.monotonic()
    sender.stop()
    assert time.monotonic() - began < sending.STOP_S + 1
    assert Delivery.objects.get().attempts == 0
    ended.set()
    receiver.answer = 204
    senders.start()
    until(lambda: Delivery.objects.get().state == "delivered")
    assert len(first_ids(receiver.received)) == 1


def test_a_stop_records_what_ends_in_time(receiver: Receiver, senders: Senders):
    def slow(request: Answering) -> int:
        time.sleep(0.3)
        return 200

    receiver.answer = slow
    add(receiver.url)
    sender = senders.start()
    completed()
    until(lambda: bool(sender._under_way))
    sender.stop()
    assert Delivery.objects.get().state == "delivered"


def test_without_endpoints_there_is_one_cheap_query_and_no_thread():
    sender = Sender(commit_together)
    with CaptureQueriesContext(connection) as queries:
        sender.keep_up(until=steady() + 60)
    assert len(queries) == 1
    assert sender._thread is None


def test_the_thread_ends_with_the_last_endpoint(receiver: Receiver, senders: Senders):
    endpoint = add(receiver.url)
    sender = senders.start()
    do(SwitchOff(endpoint.endpoint_id, BOSS))
    until(lambda: sender._thread is not None and not sender._thread.is_alive())


def test_gone_ends_it(receiver: Receiver, senders: Senders):
    receiver.answer = 410
    endpoint = add(receiver.url, types=["task.submitted"])
    senders.start()
    submit()
    until(lambda: not fresh(endpoint).enabled)
    submit()
    time.sleep(0.3)
    assert len(receiver.received) == 1


def test_a_redirect_leads_nowhere(receiver: Receiver, senders: Senders, settings):
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = [0.05]
    with receiving() as other:
        receiver.answer = lambda request: request.reply(307, Location=other.url)
        add(receiver.url)
        senders.start()
        completed()
        until(lambda: Delivery.objects.filter(state="dead").exists())
        assert other.received == []
    assert "redirects are not followed" in Delivery.objects.get().error


def test_an_outcome_that_breaks_the_commit_is_a_failure(receiver: Receiver, settings):
    """As a bug would: neither is it sent for ever, nor are the others held up."""
    settings.AGENTCOM_WEBHOOK_BACKOFF_S = [3600]
    broken = set()

    def send(url: str, *_: object, **__: object) -> Answer:
        if url == receiver.url:
            broken.add(url)
            return Answer(1, "no number", error="bad")  # type: ignore[arg-type]
        return Answer(1, 204)

    bad = add(receiver.url, types=["task.submitted"]).endpoint_id
    good = add(receiver.url + "/other", types=["task.submitted"]).endpoint_id
    sender = Sender(commit_together, send)
    sender.keep_up(until=steady() + 600)
    try:
        submit()
        until(lambda: Delivery.objects.filter(attempts=1).count() == 2)
    finally:
        sender.stop()
        writer.stop()
    assert broken
    found = {one.endpoint_id: (one.state, one.error) for one in Delivery.objects.all()}
    assert found == {bad: ("waiting", UNRECORDABLE.error), good: ("delivered", "")}


def test_a_receiver_that_is_down_is_asked_one_at_a_time(receiver: Receiver, senders: Senders):
    going, most = 0, 0
    lock = threading.Lock()

    def refuse(request: Answering) -> int:
        nonlocal going, most
        with lock:
            going += 1
            if len(receiver.received) > 3 * AT_ONCE_EACH:
                most = max(most, going)
        time.sleep(0.02)
        with lock:
            going -= 1
        return 500

    receiver.answer = refuse
    add(receiver.url, types=["task.submitted"])
    senders.start()
    for _ in range(20):
        submit()
    receiver.wait(5 * AT_ONCE_EACH)
    assert most == 1
