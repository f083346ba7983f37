"""Who may read the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import Any

from django.http.request import split_domain_port

from agentcom.api import ApiView, HasToken
from agentcom.calls import Security
from agentcom.rights import Right

LOCAL_NAMES = {"localhost", "127.0.0.1", "[::1]"}
# What proxies add to the requests that they pass on.
FORWARDED = ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_FORWARDED", "HTTP_X_REAL_IP")


def is_local(meta: Mapping[str, Any]) -> bool:
    """Whether a program on this machine asks directly. `meta` is the request's.

    All requests that a reverse proxy on this machine passes on come from here too, and so do those
    of a web page whose name leads here (DNS rebinding). The former have been forwarded, both name
    another host.
    """
    if any(name.startswith(FORWARDED) for name in meta):
        return False
    host, _ = split_domain_port(meta.get("HTTP_HOST", ""))
    return host in LOCAL_NAMES and _is_loopback(meta.get("REMOTE_ADDR", ""))


def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:  # of a socket that is a file there is none
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped.is_loopback
    return found.is_loopback


class MayReadMetrics(HasToken):
    """From this machine anybody, from elsewhere with a token."""

    @staticmethod
    def security() -> Security:
        return [{}, {"token": []}]

    async def admit(self, view: ApiView, needs: Right | None) -> None:
        if not is_local(view.request.META):
            await super().admit(view, needs)
