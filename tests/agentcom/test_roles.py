"""What the admin shows each role of people, and lets it do: every model and every action."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings as hub_settings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.db.models import Model
from django.test import Client, RequestFactory

pytestmark = pytest.mark.django_db

VIEWER, OPERATOR, ADMIN = hub_settings.AGENTCOM_ROLES
NONE = ""  # staff without a role
LOOK, ACT, ALL = {VIEWER, OPERATOR, ADMIN}, {OPERATOR, ADMIN}, {ADMIN}

# Who sees a model, and who may run its actions; "add": who may add rows of it.
RULES: dict[str, dict[str, set[str]]] = {
    "tasks.Task": {"view": LOOK, "retry": ACT, "cancel": ACT},
    "tasks.Completion": {"view": LOOK},
    "agents.Agent": {"view": LOOK, "forget": ACT},
    "agents.Hold": {"view": LOOK, "lift": ACT},
    "agents.AgentToken": {"view": ACT, "revoke": ACT},
    "agents.Enrolment": {"view": ACT},
    "agentcom.Event": {"view": LOOK},
    "agentcom.Node": {"view": LOOK},
    "agentcom.AuditEntry": {"view": ALL},
    "counters.Minute": {"view": LOOK},
    "worker.HealthReport": {"view": LOOK},
    "worker.QueueSample": {"view": LOOK},
    "webhooks.Endpoint": {
        "view": ACT,
        **dict.fromkeys(
            ("add", "test", "switch_on", "switch_off", "replay_dead", "rotate", "remove"), ALL
        ),
    },
    "webhooks.Delivery": {"view": ACT, "replay": ACT, "discard": ACT},
    "auth.User": {"view": ALL, "add": ALL, "delete_selected": ALL},
    "auth.Group": {"view": ALL, "add": ALL, "delete_selected": ALL},
}


def person(role: str) -> User:
    user = User.objects.create_user(role or "nobody", is_staff=True)
    user.groups.set(Group.objects.filter(name=role))
    return user


def models() -> Iterator[type[Model]]:
    return (model for model in admin.site._registry if model is not LogEntry)


def test_every_model_has_a_rule():
    assert {model._meta.label for model in models()} == RULES.keys()


@pytest.mark.parametrize("role", [NONE, VIEWER, OPERATOR, ADMIN])
@pytest.mark.parametrize("label", RULES)
def test_models_and_actions(label: str, role: str):
    [model] = [model for model in models() if model._meta.label == label]
    request = RequestFactory().get("/")
    request.user = person(role)
    shown = admin.site._registry[model]
    allowed = set(shown.get_actions(request))
    if shown.has_add_permission(request):
        allowed.add("add")
    browser = Client()
    browser.force_login(request.user)
    path = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
    if browser.get(path).status_code == 200:
        allowed.add("view")
    assert allowed == {right for right, roles in RULES[label].items() if role in roles}


@pytest.mark.parametrize("label", RULES)
def test_every_action_has_a_rule(label: str):
    [model] = [model for model in models() if model._meta.label == label]
    request = RequestFactory().get("/")
    request.user = User.objects.create_superuser("root")
    actions = set(admin.site._registry[model].get_actions(request))
    assert actions == RULES[label].keys() - {"view", "add"}


def test_each_migration_sets_the_roles_and_no_other_group():
    own = Group.objects.create(name="mine")
    permission = Permission.objects.get(codename="view_task")
    own.permissions.add(permission)
    Group.objects.get(name=VIEWER).permissions.set(
        Permission.objects.filter(codename="change_task")
    )
    Group.objects.get(name=OPERATOR).delete()
    call_command("migrate", verbosity=0)
    assert list(own.permissions.all()) == [permission]
    for name, wanted in hub_settings.AGENTCOM_ROLES.items():
        granted = Group.objects.get(name=name).permissions.select_related("content_type")
        found = {f"{each.content_type.app_label}.{each.codename}" for each in granted}
        assert found == set(wanted)
