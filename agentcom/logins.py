"""Logins: slowed down where they fail, one password at a time, and in the audit trail.

Only failures count, in this process's memory, by user name and by address. Over a limit the form
says how many seconds to wait, with status 429, and no password is checked. Where somebody else has
used up the tries of a name, its owner still gets in from an address from which they logged in
before; from a new one, one try in `NAME_S` is left to whoever comes first.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm, AdminPasswordChangeForm
from django.contrib.auth import get_user_model, update_session_auth_hash
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse_lazy

from agentcom import actors
from agentcom.addresses import address_of
from agentcom.audit import acting
from agentcom.audit.entries import Act, Entry, What
from agentcom.audit.gathered import gathered
from agentcom.models import AuditEntry, Outcome
from agentcom.texts import plain

NAME_TRIES, NAME_S = 5, 30.0  # so many at once, then one in so many seconds
ADDRESS_TRIES, ADDRESS_S = 20, 3.0
KEPT = 10_000  # names and addresses in memory; of more, those that failed longest ago are forgotten
# Logins that wait for their password to be checked, the one that is being checked included. Others
# are told at once to come back: each takes a thread, and a good part of a second.
ROOM = 4
BUSY_S = 2.0
FAILED, BUSY = "too_many_failures", "too_many_at_once"
REASONS = {FAILED: "Too many logins have failed.", BUSY: "Too many people log in at this moment."}
UNKNOWN = "unknown"  # instead of a name that no user has: people type passwords into that field


class Failures:
    """Counts failures by key: `tries` at once, then one every `per_s` seconds."""

    def __init__(self, tries: int, per_s: float, kept: int = KEPT) -> None:
        self._spare_s = (tries - 1) * per_s
        self._most_s = tries * per_s
        self._per_s = per_s
        self._kept = kept
        self._free_at: OrderedDict[str, float] = OrderedDict()  # when all tries are there again

    def wait_s(self, key: str, now: float) -> float:
        """Until the next try; 0 if there is one. `now`: a monotonic time in s."""
        return max(0.0, self._free_at.get(key, now) - self._spare_s - now)

    def add(self, key: str, now: float) -> None:
        """However many there are, the next try is never further away than `per_s`."""
        free_at = max(self._free_at.pop(key, now), now) + self._per_s
        self._free_at[key] = min(free_at, now + self._most_s)
        while len(self._free_at) > self._kept:
            self._free_at.popitem(last=False)

    def __len__(self) -> int:
        return len(self._free_at)


class Turns:
    """One at a time; few wait, and the others are sent away."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = threading.BoundedSemaphore(room)
        self._turn = threading.Lock()

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Whether it is one's turn; False at once if too many wait."""
        if not self._room.acquire(blocking=False):
            yield False
            return
        try:
            with self._turn:
                yield True
        finally:
            self._room.release()


class LoginLimits:
    """Of one process. For threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.names = Failures(NAME_TRIES, NAME_S)
        self.pairs = Failures(NAME_TRIES, NAME_S)  # of a name at one address
        self.addresses = Failures(ADDRESS_TRIES, ADDRESS_S)
        self.turns = Turns()

    def wait_s(self, name: str, address: str) -> float:
        """Until a login may be tried; 0: now."""
        now, network = time.monotonic(), _network(address)
        with self._lock:
            address_s = self.addresses.wait_s(network, now) if network else 0.0
            name_s = self.names.wait_s(name, now)
            pair_s = self.pairs.wait_s(_pair(name, network), now)
        if name_s and not pair_s and _has_logged_in(name, address):
            name_s = 0.0
        return max(address_s, name_s)

    def failed(self, name: str, address: str) -> None:
        now, network = time.monotonic(), _network(address)
        with self._lock:
            self.names.add(name, now)
            self.pairs.add(_pair(name, network), now)
            if network:
                self.addresses.add(network, now)


limits = LoginLimits()


def _pair(name: str, network: str) -> str:
    """A key; no name has a NUL."""
    return f"{name}\0{network}"


def _has_logged_in(name: str, address: str) -> bool:
    known = AuditEntry.objects.filter(actor=actors.user(name), address=address)
    return bool(address) and known.filter(what=What.LOGIN, outcome=Outcome.DONE).exists()


def _network(address: str) -> str:
    """What counts as one address: of IPv6 the half that a provider gives to one customer."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address


class LoginForm(AdminAuthenticationForm):
    wait_s = 0  # whole seconds until the next try; 0: this one was checked

    def clean(self) -> Any:
        name, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if not name or not password:
            return super().clean()  # no password is checked
        assert self.request is not None
        address = address_of(self.request)
        self._refuse_until(limits.wait_s(name, address), address, FAILED)
        with limits.turns.taken() as is_my_turn:
            self._refuse_until(0.0 if is_my_turn else BUSY_S, address, BUSY)
            wait_s = limits.wait_s(name, address)  # others may have failed meanwhile
            self._refuse_until(wait_s, address, FAILED)
            try:
                return super().clean()
            except ValidationError as error:
                limits.failed(name, address)
                _note(_subject(name), address, error.code or "invalid_login")
                raise

    def _refuse_until(self, wait_s: float, address: str, why: str) -> None:
        if wait_s <= 0:
            return
        self.wait_s = math.ceil(wait_s)
        _note(UNKNOWN, address, why)
        seconds = "1 second" if self.wait_s == 1 else f"{self.wait_s} seconds"
        raise ValidationError(f"{REASONS[why]} Try again in {seconds}.", why)


def _note(subject: str, address: str, code: str) -> None:
    act = Act(What.LOGIN, subject)
    gathered.note(Entry(act, actors.ANYONE, address, Outcome.REFUSED, code))


def _subject(name: str) -> str:
    users = get_user_model()._default_manager
    return plain(name) if users.filter(username=name).exists() else UNKNOWN


# --- The pages, in place of the admin's own


def login(request: HttpRequest) -> HttpResponse:
    response = admin.site.login(request)
    if request.method == "POST" and response.status_code == 302:
        # before the middleware stores the session: no login is without its entry
        _record(What.LOGIN, request, request.user.get_username())
    form = (getattr(response, "context_data", None) or {}).get("form")
    if isinstance(form, LoginForm) and form.wait_s:
        response.status_code = 429
        response.headers["Retry-After"] = str(form.wait_s)
    return response


def logout(request: HttpRequest) -> HttpResponse:
    name = request.user.get_username()
    response = admin.site.logout(request)
    if request.method == "POST" and name:
        _record(What.LOGOUT, request, name)
    return response


class ChangeOwnPassword(PasswordChangeView):
    """As the admin's own; the password and its entry are one transaction."""

    form_class = AdminPasswordChangeForm
    success_url = reverse_lazy("admin:password_change_done")

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return {**super().get_context_data(**kwargs), **admin.site.each_context(self.request)}

    def form_valid(self, form: Any) -> HttpResponse:
        user = form.save(commit=False)  # takes long, so before the transaction
        name = user.get_username()
        act = Act(What.USER_CHANGE, name, detail="Changed own password.")
        with transaction.atomic():
            user.save()
            acting.write_with(Entry(act, actors.user(name), address_of(self.request)))
        update_session_auth_hash(self.request, user)
        return redirect(self.get_success_url())


def _record(what: What, request: HttpRequest, name: str) -> None:
    acting.record_now(Entry(Act(what, name), actors.user(name), address_of(request)))
