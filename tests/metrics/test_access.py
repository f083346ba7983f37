"""Who may read the metrics without a token: a program on the hub's machine that asks directly."""

from __future__ import annotations

import pytest

from metrics.access import is_local

DIRECT = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:4000"}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1:4000", "localhost", "localhost:80", "[::1]:4000"])
def test_from_this_machine_directly(address: str, host: str):
    assert is_local({"REMOTE_ADDR": address, "HTTP_HOST": host})


@pytest.mark.parametrize(
    "meta",
    [
        {**DIRECT, "REMOTE_ADDR": "10.0.0.7"},
        {**DIRECT, "REMOTE_ADDR": "::ffff:10.0.0.7"},
        {**DIRECT, "REMOTE_ADDR": ""},
        {**DIRECT, "REMOTE_ADDR": "a name"},
        {"HTTP_HOST": "localhost"},  # a socket that is a file
        {**DIRECT, "HTTP_HOST": "hub.example.org"},  # of a proxy, or of a page that rebinds it
        {**DIRECT, "HTTP_HOST": "127.0.0.1.example.org"},
        {**DIRECT, "HTTP_HOST": "localhost:4000@evil"},
        {"REMOTE_ADDR": "127.0.0.1"},
        {**DIRECT, "HTTP_X_FORWARDED_FOR": "127.0.0.1"},
        {**DIRECT, "HTTP_X_FORWARDED_PROTO": "https"},  # all that deploy/nginx adds
        {**DIRECT, "HTTP_X_REAL_IP": "127.0.0.1"},
        {**DIRECT, "HTTP_FORWARDED": "for=127.0.0.1"},
        {**DIRECT, "HTTP_VIA": "1.1 proxy"},
    ],
)
def test_from_elsewhere_with_a_token_only(meta: dict[str, str]):
    assert not is_local(meta)
