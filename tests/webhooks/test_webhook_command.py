"""`manage.py webhook`: through the real Writer, whose thread needs committed rows."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from agentcom.clock import steady
from agentcom.models import Event
from tests.webhooks.play import completed, feed
from tests.webhooks.receiver import Receiver
from webhooks.deliveries import RecordAttempt
from webhooks.management.commands import webhook as command
from webhooks.models import Delivery, Endpoint
from webhooks.post import Answer
from webhooks.sender import Sender
from worker.tick import commit_together

pytestmark = pytest.mark.django_db(transaction=True)

URL = "https://receiver.example/hook"


def run(*args: str) -> tuple[str, str]:
    """Give what it wrote to standard output and to standard error."""
    out, err = StringIO(), StringIO()
    call_command("webhook", *args, stdout=out, stderr=err, no_color=True)
    return out.getvalue(), err.getvalue()


def add(*args: str, url: str = URL) -> str:
    return run("add", url, *args)[0].split()[0]


@pytest.fixture
def sender() -> Iterator[Sender]:
    sender = Sender(commit_together)
    yield sender
    sender.stop()


def test_add_prints_id_and_secret_once():
    out, err = run("add", URL, "--type", "task.completed", "--lane", "low", "--capability", "gpu")
    endpoint_id, secret = out.split()
    endpoint = Endpoint.objects.get()
    assert (endpoint.endpoint_id, endpoint.secret) == (endpoint_id, secret)
    assert (endpoint.types, endpoint.lanes) == (["task.completed"], ["low"])
    assert endpoint.capabilities == ["gpu"]
    assert secret not in err
    assert secret not in run("list")[0]
    assert Event.objects.get(kind="webhook_created").actor == "hub"


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["ftp://receiver.example/"], "url: must begin with"),
        ([URL, "--type", "task.eaten"], "types: task.eaten is not one of"),
        ([URL, "--capability", ""], "capabilities: "),
    ],
)
def test_add_says_what_is_wrong(args: list[str], why: str):
    with pytest.raises(CommandError, match=why):
        run("add", *args)
    assert not Endpoint.objects.exists()


def test_list_says_how_they_stand():
    assert "none yet" in run("list")[1]
    endpoint_id = add()
    run("off", endpoint_id)
    lines = run("list")[0].splitlines()
    assert lines[1].split() == [endpoint_id, "off", "0", "0", URL]
    assert "by hand" in lines[2]


def test_on_off_rotate_and_remove():
    endpoint_id = add()
    before = Endpoint.objects.get().secret
    assert run("off", endpoint_id)[0] == "Switched off.\n"
    assert run("off", endpoint_id)[0] == "It was off.\n"
    assert run("on", endpoint_id)[0] == "Switched on.\n"
    assert run("rotate", endpoint_id)[0].strip() == Endpoint.objects.get().secret != before
    run("remove", endpoint_id)
    assert not Endpoint.objects.exists()


@pytest.mark.parametrize("verb", ["on", "off", "rotate", "remove", "test"])
def test_what_is_not_there_is_an_error(verb: str):
    with pytest.raises(CommandError, match="no such webhook"):
        run(verb, "hook-none")


def test_a_test_says_what_came_of_it(receiver: Receiver, sender: Sender):
    endpoint_id = add(url=receiver.url)
    sender.keep_up(until=steady() + 60)
    assert run("test", endpoint_id)[0] == "Delivered: it answered 204.\n"
    assert receiver.received[0].json["type"] == "webhook.test"
    receiver.answer = 500
    with pytest.raises(CommandError, match="Not delivered: answered 500"):
        run("test", endpoint_id)


def test_a_test_without_a_worker_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "TEST_S", 0.3)
    endpoint_id = add()
    with pytest.raises(CommandError, match="is a worker running"):
        run("test", endpoint_id)
    run("off", endpoint_id)
    with pytest.raises(CommandError, match="switched off"):
        run("test", endpoint_id)


def test_replay_of_a_range():
    endpoint_id = add()
    for number in range(3):
        completed(f"a-{number}")
    feed()
    for one in Delivery.objects.all():
        answer = Answer(1, 204)
        commit_together([RecordAttempt(one.message_id, endpoint_id, one.attempts, answer)])
    day = "2020-01-01"
    assert run("replay", endpoint_id, "--since", day, "--until", day)[0].startswith("0 ")
    assert run("replay", endpoint_id, "--since", day, "--dead")[0].startswith("0 ")
    assert run("replay", endpoint_id, "--since", "2020-01-01T08:00:00Z")[0].startswith("3 ")
    assert Delivery.objects.filter(state="waiting").count() == 3
    with pytest.raises(CommandError, match="not a time"):
        run("replay", endpoint_id, "--since", "yesterday")
