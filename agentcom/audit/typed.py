"""Users that Django's own commands make or change, on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models.signals import post_save

from agentcom import actors
from agentcom.audit import acting
from agentcom.audit.entries import Act, Entry, What


@contextmanager
def saved_users_noted(detail: str) -> Iterator[None]:
    """Each user that is saved inside gets an entry, directly after its commit: these commands ask
    questions, and an open transaction would meanwhile keep everybody else from writing."""

    def note(instance: Any, created: bool, **kwargs: Any) -> None:
        what = What.USER_ADD if created else What.USER_CHANGE
        act = Act(what, instance.get_username(), detail=f"{detail}, {acting.os_user()}")
        acting.write_with(Entry(act, actors.HUB))

    users = get_user_model()
    post_save.connect(note, sender=users, weak=False)
    try:
        yield
    finally:
        post_save.disconnect(note, sender=users)
