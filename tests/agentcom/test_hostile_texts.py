"""Markup in every text that the hub stores is shown as text, on every page of the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.db.models import Field, JSONField, Model
from django.db.models.fields import CharField, DateTimeField, TextField
from django.test import Client
from django.utils import timezone

pytestmark = pytest.mark.django_db

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
SIGNS = ("<script>alert", "<img src=x")
MODELS = [
    model
    for model in admin.site._registry
    if model is not LogEntry and model._meta.app_label != "auth"
]
# What no column of texts is.
LANES = [2]
CONDITION = {"code": EVIL, "severity": "warning", "message": EVIL, "since": 0, "subjects": [EVIL]}
OTHERS: dict[tuple[str, str], Any] = {
    ("agents.AgentToken", "lanes"): LANES,
    ("agents.Enrolment", "lanes"): LANES,
    ("worker.HealthReport", "details"): [CONDITION],
}


def hostile(field: Field[Any, Any]) -> Any:
    """A value that this column can have, with markup where it is a text."""
    if (other := OTHERS.get((field.model._meta.label, field.name))) is not None:
        return other
    if isinstance(field, JSONField):
        return {EVIL: EVIL} if field.default is dict else [EVIL]
    if field.choices:
        return field.get_default() or next(iter(field.choices))[0]
    if isinstance(field, CharField | TextField):
        return EVIL[: field.max_length] if field.max_length else EVIL
    if isinstance(field, DateTimeField):
        return timezone.now()
    if field.has_default():
        return field.get_default()
    return None if field.null else 1


def hostile_row(model: type[Model]) -> Model:
    fields = [field for field in model._meta.concrete_fields if not field.auto_created]
    return model._default_manager.create(**{field.attname: hostile(field) for field in fields})


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)
def test_it_is_shown_as_text(model: type[Model], client: Client):
    client.force_login(User.objects.create_superuser(EVIL))
    row = hostile_row(model)
    path = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
    key = quote(row.pk)
    pages = [
        client.get(address)
        for address in (path, f"{path}{key}/change/", f"{path}?q={EVIL}", f"{path}{key}/history/")
    ]
    for page in pages:
        assert page.status_code == 200, page
        for sign in SIGNS:
            assert sign not in page.text
    assert any("&lt;script&gt;" in page.text for page in pages)
