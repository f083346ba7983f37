"""Where an open dashboard may be served: on this machine, or where a setting says that it is meant.

`AGENTCOM_HOST` is only where `manage.py hub` listens. Servers that are started directly are asked
for their own addresses, see `servers/`.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from django.conf import settings

from agentcom.access import is_open


def open_fault(addresses: Iterable[str]) -> str | None:
    """Why the hub must not listen on these addresses or names, in sentences; None if it may."""
    if not is_open() or settings.AGENTCOM_OPEN_TO_NETWORK:
        return None
    beyond = [address for address in addresses if not is_this_machine(address)]
    if not beyond:
        return None
    return (
        f"The hub would listen on {beyond[0] or 'every address'}, where other machines can reach "
        "it, and its dashboard is open: whoever reaches it may watch, submit, cancel and hold "
        "tasks. Set AGENTCOM_DASHBOARD_ACCESS=staff, which asks for a login; or listen on "
        "127.0.0.1; or, if the network around the hub is closed, set AGENTCOM_OPEN_TO_NETWORK=true."
    )


def is_this_machine(address: str) -> bool:
    """Whether only this machine can reach an IP address, or all that a name stands for."""
    try:
        return _is_loopback(address)
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(address) and all(_is_loopback(str(place[0])) for *_, place in found)


def _is_loopback(address: str) -> bool:
    """Raises ValueError for what is no IP address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        return ip.ipv4_mapped.is_loopback
    return ip.is_loopback
