"""Webhooks in the admin: the real Writer, whose thread commits while a request waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils.html import strip_tags

from agentcom.models import Event
from agentcom.writer import writer
from tests.webhooks.play import add, completed, do, feed, fresh
from webhooks.deliveries import RecordAttempt
from webhooks.endpoints import SwitchOff
from webhooks.models import Attempt, Delivery, Endpoint, Message
from webhooks.post import Answer

pytestmark = pytest.mark.django_db(transaction=True)

ENDPOINTS = "/admin/webhooks/endpoint/"
DELIVERIES = "/admin/webhooks/delivery/"
FORM: dict[str, Any] = {
    "url": "https://receiver.example/hook",
    "description": "billing",
    "types": ["task.completed", "task.failed"],
    "lanes": ["low"],
    "capabilities": "gpu, rust",
}


@pytest.fixture(autouse=True)
def ending() -> Iterator[None]:
    yield
    writer.stop()


def client_of(*permissions: str, **user: Any) -> Client:
    staff = User.objects.create(username="staff", is_staff=True, **user)
    staff.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(staff)
    return client


@pytest.fixture
def boss() -> Client:
    return client_of(is_superuser=True)


def text_of(answer: Any) -> str:
    assert answer.status_code == 200
    return " ".join(strip_tags(answer.content.decode()).split())


def act(client: Client, action: str, *keys: Any, path: str = ENDPOINTS) -> str:
    chosen = {"action": action, "_selected_action": keys, "index": 0, "select_across": 0}
    return text_of(client.post(path, chosen, follow=True))


def failed() -> Delivery:
    """A delivery that was given up."""
    endpoint = add()
    completed()
    feed()
    one = Delivery.objects.get()
    do(RecordAttempt(one.message_id, endpoint.endpoint_id, 0, Answer(7, 500, "<b>no", "bad")))
    Delivery.objects.update(state="dead", ended_at=one.created_at, due_at=None)
    return Delivery.objects.get()


def test_adding_one_shows_its_secret_once(boss: Client):
    said = text_of(boss.post(f"{ENDPOINTS}add/", FORM, follow=True))
    endpoint = Endpoint.objects.get()
    assert endpoint.secret in said
    assert (endpoint.url, endpoint.description) == (FORM["url"], "billing")
    assert (endpoint.types, endpoint.lanes) == (["task.completed", "task.failed"], ["low"])
    assert endpoint.capabilities == ["gpu", "rust"]
    assert (endpoint.created_by, endpoint.enabled) == ("user:staff", True)
    assert Event.objects.get(kind="webhook_created").actor == "user:staff"
    page = f"{ENDPOINTS}{endpoint.endpoint_id}/change/"
    for path in (page, ENDPOINTS, "/admin/agentcom/event/"):
        assert endpoint.secret not in boss.get(path).content.decode()
    assert LogEntry.objects.filter(object_id=endpoint.endpoint_id).exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"url": "ftp://x"}, "must begin with https:// or http://"),
        ({"url": ""}, "This field is required"),
        ({"types": []}, "This field is required"),
        ({"types": ["task.eaten"]}, "Select a valid choice"),
        ({"capabilities": "x" * 65}, "must have 1 to 64 characters"),
    ],
)
def test_what_is_wrong_is_said_in_the_form(boss: Client, wrong: dict[str, Any], said: str):
    assert said in text_of(boss.post(f"{ENDPOINTS}add/", {**FORM, **wrong}))
    assert not Endpoint.objects.exists()


def test_a_private_address_is_refused_in_the_form(boss: Client, settings):
    settings.AGENTCOM_WEBHOOK_ALLOW_PRIVATE = False
    said = text_of(boss.post(f"{ENDPOINTS}add/", {**FORM, "url": "http://10.0.0.1/"}))
    assert "10.0.0.1 is not a public address" in said


def test_changing_one(boss: Client):
    boss.post(f"{ENDPOINTS}add/", FORM)
    endpoint = Endpoint.objects.get()
    page = f"{ENDPOINTS}{endpoint.endpoint_id}/change/"
    form = boss.get(page).context["adminform"].form
    assert form.initial["capabilities"] == "gpu, rust"
    text_of(boss.post(page, {**FORM, "lanes": [], "description": "invoices"}, follow=True))
    changed = fresh(endpoint)
    assert (changed.lanes, changed.description) == ([], "invoices")
    assert (changed.secret, changed.seq) == (endpoint.secret, endpoint.seq)
    assert Event.objects.get(kind="webhook_changed").data["changed"] == ["description", "lanes"]


def test_a_refused_change_is_said_and_changes_nothing(boss: Client, monkeypatch):
    monkeypatch.setattr("webhooks.endpoints.MAX_ENDPOINTS", 0)
    assert "Nothing was changed" in text_of(boss.post(f"{ENDPOINTS}add/", FORM, follow=True))
    assert not Endpoint.objects.exists()


def test_switching_testing_and_removing(boss: Client):
    key = add().endpoint_id
    assert "sent a test" in act(boss, "test", key)
    assert Delivery.objects.get().type == "webhook.test"
    assert "switched off" in act(boss, "switch_off", key)
    assert "because switched off" in act(boss, "test", key)
    assert "switched on" in act(boss, "switch_on", key)
    assert "switched on before" in act(boss, "switch_on", key)
    assert "removed" in act(boss, "remove", key)
    assert not Endpoint.objects.exists()
    kinds = Event.objects.filter(actor="user:staff").order_by("seq")
    assert list(kinds.values_list("kind", flat=True)) == [
        *("webhook_disabled", "webhook_enabled", "webhook_removed"),
    ]


def test_a_new_secret_is_shown_once(boss: Client):
    endpoint = add()
    said = act(boss, "rotate", endpoint.endpoint_id)
    new = fresh(endpoint)
    assert new.secret in said
    assert new.old_secret == endpoint.secret
    assert new.secret not in boss.get(ENDPOINTS).content.decode()


def test_a_delivery_shows_its_attempts_and_its_body(boss: Client):
    one = failed()
    answer = boss.get(f"{DELIVERIES}{one.number}/change/")
    said = text_of(answer)
    assert "500" in said
    assert "bad" in said
    assert "&lt;b&gt;no" in answer.content.decode()
    assert "task.completed" in said


def test_dead_deliveries_are_sent_again_or_discarded(boss: Client):
    one = failed()
    assert "to be sent again" in act(boss, "replay", one.number, path=DELIVERIES)
    assert "kept, because not dead" in act(boss, "discard", one.number, path=DELIVERIES)
    Delivery.objects.update(state="dead", ended_at=one.created_at, due_at=None)
    assert "to be sent again" in act(boss, "replay_dead", one.endpoint_id)
    Delivery.objects.update(state="dead", ended_at=one.created_at, due_at=None)
    assert "discarded" in act(boss, "discard", one.number, path=DELIVERIES)
    assert [model.objects.count() for model in (Delivery, Message, Attempt)] == [0, 0, 0]


def test_lists_filters_and_searches(boss: Client):
    one = failed()
    do(SwitchOff(one.endpoint_id, "user:boss"))
    for query in (
        {"webhook": one.endpoint_id},
        {"state": "dead"},
        {"q": one.message_id},
        {"q": one.task_id or ""},
        {"q": one.endpoint_id},
    ):
        found = boss.get(DELIVERIES, query).context["cl"].result_list
        assert [row.number for row in found] == [one.number], query
    assert not list(boss.get(DELIVERIES, {"state": "delivered"}).context["cl"].result_list)
    assert "off" in text_of(boss.get(ENDPOINTS))


@pytest.mark.parametrize(
    ("permissions", "add_status", "page_says", "operations"),
    [
        (["view_endpoint"], 403, "View webhook", []),
        (["change_endpoint"], 403, "Change webhook", ["test", "switch_off", "rotate"]),
        (["view_endpoint", "add_endpoint"], 200, "View webhook", []),
        (["change_endpoint", "delete_endpoint"], 403, "Change", ["test", "remove"]),
    ],
)
def test_what_staff_may(
    permissions: list[str], add_status: int, page_says: str, operations: list[str]
):
    staff = client_of(*permissions)
    endpoint = add()
    page = f"{ENDPOINTS}{endpoint.endpoint_id}/change/"
    assert staff.get(f"{ENDPOINTS}add/").status_code == add_status
    answer = staff.get(page)
    assert page_says in text_of(answer)
    offered = [operation["name"] for operation in answer.context["operations"]]
    assert set(operations) <= set(offered)
    assert bool(offered) == bool(operations)
    if "change_endpoint" not in permissions:
        assert staff.post(page, {**FORM, "description": "x"}).status_code == 403
        assert fresh(endpoint).description == ""
        act(staff, "switch_off", endpoint.endpoint_id)
        assert fresh(endpoint).enabled
    if "delete_endpoint" not in permissions:
        act(staff, "remove", endpoint.endpoint_id)
        assert Endpoint.objects.exists()
    assert staff.get(f"{ENDPOINTS}{endpoint.endpoint_id}/delete/").status_code == 403
