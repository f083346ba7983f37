"""Which web pages may talk to the hub: its own, and those whose origins a setting lists.

A browser names the page that asks in `Origin`, and says in `Sec-Fetch-Site` how that page is
related to the address that it asks; no script can set either. Programs send neither, and are not
looked at here. An origin is a scheme, a host and a port (RFC 6454): a page on another port of the
same host is somebody else's, although the browser sends it the hub's cookies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.http.request import split_domain_port, validate_host

DEFAULT_PORTS = {"http": ":80", "https": ":443"}
CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, section 9.2.1
OTHER_SITES = frozenset({"cross-site", "same-site"})  # same-site: another port or subdomain
ORIGIN = re.compile(r"https?://(\*\.)?([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
MAX_SHOWN = 100  # characters of a header in a log line

ADD_HOST = "if people or agents use that name, add it to AGENTCOM_ALLOWED_HOSTS"
ADD_ORIGIN = "if that page may, add its origin to AGENTCOM_TRUSTED_ORIGINS"
KEEP_PORT = (
    "if that is the hub's own page, its proxy has to pass on Host with the port (in nginx "
    "$http_host), or AGENTCOM_TRUSTED_ORIGINS has to list the origin"
)
TELL_SCHEME = (
    "if that is the hub's own page, its proxy has to set X-Forwarded-Proto, and the hub needs "
    "AGENTCOM_SECURE=true; or AGENTCOM_TRUSTED_ORIGINS has to list the origin"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Under which address a browser asked for the hub."""

    scheme: str  # http or https
    host: str  # as in the header `Host`, with a port unless it is the scheme's own

    @property
    def origin(self) -> str:
        return normalized(f"{self.scheme}://{self.host}")


def normalized(origin: str) -> str:
    """In lower case and without the scheme's own port, so that equal origins are equal texts."""
    scheme, mark, place = origin.strip().lower().partition("://")
    return scheme + mark + place.removesuffix(DEFAULT_PORTS.get(scheme, "/"))


def is_origin(text: str) -> bool:
    """Whether a setting may list this; `*.` stands for every name below."""
    return ORIGIN.fullmatch(text.lower()) is not None


def is_host_allowed(host: str) -> bool:
    """Whether this value of `Host` is one of the names of `AGENTCOM_ALLOWED_HOSTS`."""
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


def is_allowed(origin: str, address: Address) -> bool:
    """Whether a page of this origin may talk to the hub at this address."""
    return normalized(origin) == address.origin or is_trusted(origin)


def is_trusted(origin: str) -> bool:
    """Whether `AGENTCOM_TRUSTED_ORIGINS` lists it; `https://*.example.org` is every name below."""
    scheme, _, place = normalized(origin).partition("://")
    for listed in settings.CSRF_TRUSTED_ORIGINS:
        trusted_scheme, _, trusted_place = normalized(listed).partition("://")
        if scheme != trusted_scheme:
            continue
        if place == trusted_place:
            return True
        if trusted_place.startswith("*.") and place.endswith(trusted_place[1:]):
            return True
    return False


# --- Requests


def foreign_host(request: HttpRequest) -> str | None:
    """Why this request's `Host` is refused, for the log; None if it is a name of the hub."""
    host = _host(request)
    return None if is_host_allowed(host) else _host_refusal(request.method or "", host)


def foreign_change(request: HttpRequest) -> str | None:
    """Why a request that changes something is refused, for the log; None if it is not.

    Without `Sec-Fetch-Site` it is a program, or a browser that reached the hub without TLS: such a
    one has no token, and forms have Django's own check of the origin and a secret.
    """
    if request.method in CHANGES_NOTHING:
        return None
    if request.headers.get("Sec-Fetch-Site", "").strip().lower() not in OTHER_SITES:
        return None
    origin = request.headers.get("Origin", "")
    address = Address(request.scheme or "http", _host(request))
    if origin and is_allowed(origin, address):
        return None
    return _origin_refusal(request.method or "", origin, address)


def _host(request: HttpRequest) -> str:
    """HTTP/1.0 has no `Host`: where the server listens."""
    named = "{SERVER_NAME}:{SERVER_PORT}".format_map(request.META)
    return str(request.META.get("HTTP_HOST") or named)


# --- Sockets


def socket_refusal(scope: Mapping[str, Any]) -> str | None:
    """Why the handshake of a socket is refused, for the log; None if it is not."""
    headers = _first_of_each(scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1")
    if not is_host_allowed(host):
        return _host_refusal("socket", host)
    origin = headers.get(b"origin", b"").decode("latin-1")
    address = Address(_scheme(scope, headers), host)
    if not origin or is_allowed(origin, address):
        return None
    return _origin_refusal("socket", origin, address)


def _first_of_each(headers: Iterable[Sequence[bytes]]) -> dict[bytes, bytes]:
    return {name: value for name, value in reversed([*headers])}  # noqa: C416 – of lists or tuples


def _scheme(scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> str:
    """As `HttpRequest.scheme`. Some proxies call it wss for a socket."""
    forwarded = headers.get(b"x-forwarded-proto")
    if settings.SECURE_PROXY_SSL_HEADER and forwarded is not None:
        first = forwarded.split(b",", 1)[0].strip().lower()
        return "https" if first in (b"https", b"wss") else "http"
    return "https" if scope.get("scheme") == "wss" else "http"


# --- In words


def _host_refusal(what: str, host: str) -> str:
    return f"Refused a {what} for {_shown(host)}, which is no name of this hub: {ADD_HOST}."


def _origin_refusal(what: str, origin: str, address: Address) -> str:
    return (
        f"Refused a {what} of a page of {_shown(origin) if origin else 'another site'}, because "
        f"the hub was asked for as {_shown(address.origin)}: {_advice(origin, address)}."
    )


def _advice(origin: str, address: Address) -> str:
    """The usual mistakes of proxies keep the name and lose the port or the scheme."""
    scheme, _, place = normalized(origin).partition("://")
    own_place = address.origin.partition("://")[2]
    if place == own_place and scheme != address.scheme:
        return TELL_SCHEME
    if split_domain_port(place)[0] == split_domain_port(own_place)[0] and ":" not in own_place:
        return KEEP_PORT
    return ADD_ORIGIN


def _shown(text: str) -> str:
    """For a log line: what a client sent may contain anything."""
    return repr(text[:MAX_SHOWN])
