"""Who comes in: agents by their tokens, and at the dashboard everyone or staff alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from importlib import import_module

from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest

from agentcom.database import viewers


@dataclass(frozen=True, slots=True)
class Caller:
    """The agent whose token came with a request."""

    agent_id: str
    token_hash: str


class Entry(Enum):
    ALLOWED = auto()
    LOGIN_NEEDED = auto()
    NOT_STAFF = auto()


async def may_look(cookies: Mapping[str, str]) -> bool:
    """Raises `Unavailable` when the database does not answer."""
    return await entry(cookies) is Entry.ALLOWED


async def entry(cookies: Mapping[str, str]) -> Entry:
    """What the bearer of these cookies is told. Raises `Unavailable`."""
    if settings.AGENTCOM_DASHBOARD_ACCESS == "open":
        return Entry.ALLOWED
    session_key = cookies.get(settings.SESSION_COOKIE_NAME)
    if not session_key:
        return Entry.LOGIN_NEEDED
    return await viewers.run(_entry_of_session, session_key)


async def has_session(cookies: Mapping[str, str]) -> bool:
    """Whether somebody has logged in, who may be no staff. Raises `Unavailable`."""
    session_key = cookies.get(settings.SESSION_COOKIE_NAME)
    if not session_key:
        return False
    return await viewers.run(_entry_of_session, session_key) is not Entry.LOGIN_NEEDED


def _entry_of_session(session_key: str) -> Entry:
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user = get_user(request)  # nobody, when the session has ended or the password was changed
    if not user.is_authenticated or not user.is_active:
        return Entry.LOGIN_NEEDED
    return Entry.ALLOWED if user.is_staff else Entry.NOT_STAFF
