"""What the limits build on in other packages: when it is gone, the start says so."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import pytest
from autobahn.twisted.websocket import WebSocketServerProtocol
from daphne import http_protocol
from django.core import checks
from twisted.web import http

from agentcom.servers import daphne_http, daphne_insides, daphne_sockets

GONE = [
    (http.HTTPChannel, "_waitingForTransport", "HTTPChannel._waitingForTransport"),
    (WebSocketServerProtocol, "sendCloseFrame", "WebSocketServerProtocol.sendCloseFrame"),
    (WebSocketServerProtocol, "CONFIG_ATTRS_COMMON", "WebSocketServerProtocol.failByDrop"),
]


async def knows(authorization: str, cookie: str) -> bool:
    return True


def owner_of(cls: type, name: str) -> type:
    return next(base for base in cls.__mro__ if name in vars(base))


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


def test_all_is_there() -> None:
    assert daphne_insides.fault() is None


@pytest.mark.parametrize(("cls", "name", "named"), GONE)
def test_what_is_gone_is_one_line_at_the_start_and_a_finding_of_the_check(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cls: type,
    name: str,
    named: str,
) -> None:
    monkeypatch.delattr(owner_of(cls, name), name)
    before = http_protocol.WebRequest
    daphne_http.install(knows)
    assert http_protocol.WebRequest is before
    [line] = errors(caplog)
    assert named in line
    assert "what clients send may not be bounded. Install the releases" in line
    found = checks.run_checks(tags=["agentcom"], include_deployment_checks=True)
    assert "agentcom.W007" in [finding.id for finding in found]


def test_a_socket_whose_connection_is_hidden_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    daphne_sockets._log_unbounded.cache_clear()

    async def send(message: dict[str, Any]) -> None: ...

    for hidden in (send, partial(send)):
        daphne_sockets.daphne_connection(hidden)
    [line] = errors(caplog)
    assert "hides the connections of sockets" in line
