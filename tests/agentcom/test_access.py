"""In whose name a viewer acts."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings as project
from django.contrib.auth.models import Permission, User
from django.test import Client

from agentcom import access
from agentcom.errors import Refused

pytestmark = pytest.mark.django_db

CHANGE = "tasks.change_task"
ALL = ("view_task", "view_agent", "change_task")


def session_of(*permissions: str, **user: Any) -> str:
    somebody = User.objects.create(username="eve", **user)
    somebody.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(somebody)
    return client.cookies[project.SESSION_COOKIE_NAME].value


def refusal(session_key: str) -> str:
    with pytest.raises(Refused) as refused:
        access._actor_of_session(session_key, CHANGE)
    return refused.value.code


class TestAnOpenDashboard:
    @pytest.mark.parametrize("cookies", [{}, {project.SESSION_COOKIE_NAME: "nul\0"}])
    async def test_nobody_is_asked_who_brings_no_login(self, cookies: dict[str, str]):
        assert await access.actor_of(cookies, CHANGE) == "anyone"

    def test_a_login_is_named_whatever_it_may(self):
        assert access._actor_of_session(session_of(), CHANGE) == "user:eve"

    def test_a_session_that_ended_is_nobodys(self):
        assert access._actor_of_session("a" * 32, CHANGE) == "anyone"

    def test_who_may_not_log_in_any_more_is_nobody(self):
        session_key = session_of(is_staff=True)
        User.objects.update(is_active=False)
        assert access._actor_of_session(session_key, CHANGE) == "anyone"


class TestStaffAccess:
    @pytest.fixture(autouse=True)
    def for_staff(self, settings: Any) -> None:
        settings.AGENTCOM_DASHBOARD_ACCESS = "staff"

    def test_who_has_the_permission_acts_by_name(self):
        assert access._actor_of_session(session_of(*ALL, is_staff=True), CHANGE) == "user:eve"
        User.objects.all().delete()
        assert access._actor_of_session(session_of(is_superuser=True, is_staff=True), CHANGE)

    def test_who_may_only_look_is_refused(self):
        assert refusal(session_of(*ALL[:2], is_staff=True)) == "forbidden"

    @pytest.mark.parametrize("missing", ALL[:2])
    def test_who_may_not_look_has_no_session_here(self, missing: str):
        may = [permission for permission in ALL[:2] if permission != missing]
        assert refusal(session_of(*may, is_staff=True)) == "session_ended"

    def test_the_permission_alone_is_not_enough(self):
        assert refusal(session_of(*ALL)) == "session_ended"

    def test_no_session(self):
        assert refusal("a" * 32) == "session_ended"

    async def test_no_cookie(self):
        with pytest.raises(Refused, match="session_ended"):
            await access.actor_of({}, CHANGE)
