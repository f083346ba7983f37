"""Which addresses webhooks may be sent to: by default none inside the network around the hub."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

URL_MAX = 2_000  # characters
PORTS = {"http": 80, "https": 443}
# The part of IPv6 that is assigned for global use; the rest is special (RFC 4291, 2.4).
GLOBAL_UNICAST = IPv6Network("2000::/3")
# An IPv4 address is in the last 32 bits (RFC 6052, 2.1).
NAT64 = IPv6Network("64:ff9b::/96")
# Tunnels that carry an IPv4 address (RFC 3056, RFC 4380): where they end is not known.
TUNNELS = (IPv6Network("2002::/16"), IPv6Network("2001::/32"))


class NotAllowed(Exception):
    """A host that no webhook is sent to; the text says why."""


def check_url(url: str, *, allow_private: bool) -> str:
    """The URL. Raises ValueError with the rest of a sentence about it.

    What a host's name means is only known when something is sent there.
    """
    if len(url) > URL_MAX:
        raise ValueError(f"must have at most {URL_MAX:,} characters")
    if "\\" in url:  # browsers and servers do not agree on what it means
        raise ValueError("must not have a backslash")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must have visible ASCII characters only; encode the others")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in PORTS:
        raise ValueError("must begin with https:// or http://")
    if not parts.hostname or parts.port == 0:
        raise ValueError("must name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not have a user name or a password")
    if parts.fragment:
        raise ValueError("must not have a fragment")
    if not allow_private:
        _check_literal(parts.hostname)
    return url


def _check_literal(host: str) -> None:
    try:
        address = ip_address(host)
    except ValueError:
        return  # a name
    if not is_public(address):
        raise ValueError(f"must be public: {_not_public(host)}")


def resolve(parts: SplitResult, *, allow_private: bool) -> list[tuple[str, int]]:
    """The host's addresses, each with the port. Asks the system's resolver once.

    Raises `NotAllowed` if any of them is not public: of a name that means several addresses, one
    may be meant to lead inside. Raises OSError if the name is unknown.
    """
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    texts = list(dict.fromkeys(str(address[0]) for *_, address in found))
    for text in texts:
        if not allow_private and not is_public(ip_address(text)):
            raise NotAllowed(_not_public(text))
    return [(text, port) for text in texts]


def is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast
    inner = _ipv4_in(address)
    if inner is not None:
        return is_public(inner)
    if any(address in tunnel for tunnel in TUNNELS):
        return False
    return address.is_global and address in GLOBAL_UNICAST


def _ipv4_in(address: IPv6Address) -> IPv4Address | None:
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped


def _not_public(address: str) -> str:
    return f"{address} is not a public address, see AGENTCOM_WEBHOOK_ALLOW_PRIVATE"
