"""From where a client calls: the connection's address, or the one that a proxy passes on."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest

MAX_ADDRESS = 64  # characters; an IPv6 address with its zone has fewer
FORWARDED = b"x-forwarded-for"


def client_address(scope: dict[str, Any]) -> str:
    """Of an ASGI scope; empty if unknown, as over a Unix socket.

    With `AGENTCOM_PROXY_COUNT` proxies, the header X-Forwarded-For has the address that the
    outermost of them saw: each adds one at the end, and whatever stands before came from the
    client. Fewer addresses than proxies: the request did not come by all of them, and the
    connection's address counts.
    """
    peer = scope.get("client")
    address = str(peer[0]) if peer else ""
    count = settings.AGENTCOM_PROXY_COUNT
    if count:
        headers = [value for name, value in scope.get("headers", ()) if name == FORWARDED]
        told = [part.strip() for part in b",".join(headers).decode("latin-1").split(",")]
        if len(told) >= count and told[-count].isprintable():
            address = told[-count] or address
    return address[:MAX_ADDRESS]


def address_of(request: HttpRequest) -> str:
    """From where a request to a page comes; those of Django's test client have no scope."""
    scope = getattr(request, "scope", None)
    return str(request.META.get("REMOTE_ADDR", "")) if scope is None else client_address(scope)
