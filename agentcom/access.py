"""Who has access: agents by their tokens; to the dashboard everybody, or staff only.

Staff need the permissions that the admin requires, to view as well as to act. Permissions are read
from the database each time, so that revoking one takes effect at once, on open sockets too.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest

from agentcom import actors
from agentcom.database import viewers
from agentcom.errors import Refused

FORBIDDEN, SESSION_ENDED = "forbidden", "session_ended"

Cookies = Mapping[str, str]


class Forbidden(Refused):
    """Somebody who is known, but lacks a permission."""

    def __init__(self, actor: str, detail: str) -> None:
        super().__init__(FORBIDDEN, detail)
        self.actor = actor


class Entry(Enum):
    ALLOWED = auto()
    LOGIN_NEEDED = auto()
    NOT_STAFF = auto()
    NOT_PERMITTED = auto()  # staff without the permissions to view


def is_open() -> bool:
    """Whether everybody may see the dashboard."""
    return bool(settings.AGENTCOM_DASHBOARD_ACCESS == "open")


async def may_see_dashboard(cookies: Cookies) -> bool:
    """Raises `Unavailable` when the database does not answer."""
    return await entry(cookies) is Entry.ALLOWED


async def entry(cookies: Cookies) -> Entry:
    """Whether these cookies give access to the dashboard. Raises `Unavailable`."""
    if is_open():
        return Entry.ALLOWED
    session_key = _session_key(cookies)
    if session_key is None:
        return Entry.LOGIN_NEEDED
    return await viewers.run(_entry_of_session, session_key)


async def has_session(cookies: Cookies) -> bool:
    """Whether these cookies are of a logged-in user, staff or not. Raises `Unavailable`."""
    session_key = _session_key(cookies)
    if session_key is None:
        return False
    return await viewers.run(_entry_of_session, session_key) is not Entry.LOGIN_NEEDED


async def may_use_admin(cookies: Cookies) -> bool:
    """Whether these cookies are of staff whom the admin shows tasks and agents. Raises
    `Unavailable`."""
    session_key = _session_key(cookies)
    if session_key is None:
        return False
    return await viewers.run(_entry_of_session, session_key) is Entry.ALLOWED


async def actor_of(cookies: Cookies, permission: str) -> str:
    """The actor for an action that requires this permission.

    Raises `Forbidden`, `Refused` with `SESSION_ENDED`, and `Unavailable`. An open dashboard
    requires nothing, but the actor is the user if there is a login.
    """
    session_key = _session_key(cookies)
    if session_key is None:
        if is_open():
            return actors.ANYONE
        raise Refused(SESSION_ENDED)
    return await viewers.run(_actor_of_session, session_key, permission)


def may_view(user: Any, permission: str) -> bool:
    """Whether the user has a permission `APP.view_MODEL`, or the one to change the model."""
    return bool(
        user.has_perm(permission) or user.has_perm(permission.replace(".view_", ".change_"))
    )


def _session_key(cookies: Cookies) -> str | None:
    """None also for a key with characters that a database may refuse in a query."""
    key = cookies.get(settings.SESSION_COOKIE_NAME)
    return key if key and key.isprintable() else None


# --- On a reader's thread


def _entry_of_session(session_key: str) -> Entry:
    return _entry_of(_user_of(session_key))


def _actor_of_session(session_key: str, permission: str) -> str:
    user = _user_of(session_key)
    if is_open():
        return actors.user(user.get_username()) if user.is_authenticated else actors.ANYONE
    if _entry_of(user) is not Entry.ALLOWED:
        raise Refused(SESSION_ENDED)
    actor = actors.user(user.get_username())
    if not user.has_perm(permission):
        raise Forbidden(actor, f"the permission {permission} is needed")
    return actor


def _user_of(session_key: str) -> Any:
    """Anonymous if the session has ended, the password was changed or the user is inactive."""
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    return get_user(request)


def _entry_of(user: Any) -> Entry:
    if not user.is_authenticated or not user.is_active:
        return Entry.LOGIN_NEEDED
    if not user.is_staff:
        return Entry.NOT_STAFF
    needed = settings.AGENTCOM_VIEW_PERMISSIONS
    may = all(may_view(user, permission) for permission in needed)
    return Entry.ALLOWED if may else Entry.NOT_PERMITTED
