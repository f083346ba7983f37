"""Which addresses nothing is sent to, and what an endpoint's URL may look like."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

import pytest

from webhooks.addresses import NotAllowed, check_url, is_public, resolve

pytestmark = pytest.mark.sqlite_only


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1"),
        *("255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd00::1", "ff02::1", "fec0::1"),
        # an IPv4 address inside: mapped, compatible, NAT64, 6to4, Teredo
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::10.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b:1::8.8.8.8", "2002:7f00:1::", "2001:0:4136:e378::1"),
        *("2001:db8::1", "100::1"),
    ],
)
def test_what_is_not_public(address: str):
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"],
)
def test_what_is_public(address: str):
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://receiver.example/", "http"),
        ("receiver.example/hook", "http"),
        ("file:///etc/passwd", "http"),
        ("https:///hook", "host"),
        ("https://receiver.example:0/", "host"),
        ("https://receiver.example:99999/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://me:secret@receiver.example/", "user name"),
        ("https://me@receiver.example/", "user name"),
        ("https://receiver.example/#part", "fragment"),
        ("https://receiver.example\\@inside/", "backslash"),
        ("https://receiver.example/a b", "visible ASCII"),
        ("https://receiver.example/\r\nHost: inside", "visible ASCII"),
        ("https://empfänger.example/", "visible ASCII"),
        ("https://receiver.example/" + "x" * 2000, "2,000"),
        ("http://127.0.0.1/", "public"),
        ("http://[::ffff:10.0.0.1]/", "public"),
    ],
)
def test_what_is_no_url_of_an_endpoint(url: str, why: str):
    with pytest.raises(ValueError, match=why):
        check_url(url, allow_private=False)


@pytest.mark.parametrize(
    "url", ["https://receiver.example/hook?key=1&x=%20", "http://receiver.example:8080"]
)
def test_what_is_one(url: str):
    assert check_url(url, allow_private=False) == url


def test_private_addresses_may_be_allowed():
    assert check_url("http://127.0.0.1:8000/", allow_private=True)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "127.1"]
)
def test_a_name_that_leads_inside_is_refused(host: str):
    with pytest.raises((NotAllowed, socket.gaierror)):
        resolve(urlsplit(f"http://{host}:80/"), allow_private=False)


def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch):
    """A name server of an attacker may give both."""

    def found(host: str, port: int, **_: object) -> list[tuple]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("8.8.8.8", port)), (*kind, ("10.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    with pytest.raises(NotAllowed, match=r"10\.0\.0\.1 is not a public address"):
        resolve(urlsplit("https://receiver.example/"), allow_private=False)
    allowed = resolve(urlsplit("https://receiver.example/"), allow_private=True)
    assert allowed == [("8.8.8.8", 443), ("10.0.0.1", 443)]
