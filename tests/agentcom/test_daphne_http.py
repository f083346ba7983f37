"""A request has a time in which to come: its head, and its body by its size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web import http

from agentcom.servers.daphne_http import BoundedChannel, BoundedRequest
from agentcom.servers.limits import BODY_S, HEAD_S, IDLE_S, LINGER_S, SLOWEST

HEAD = b"POST /api/tasks HTTP/1.1\r\nHost: hub\r\n"
DRIP_S = 5


class Answered(http.Request):
    gotLength = BoundedRequest.gotLength

    def process(self) -> None:
        self.setHeader(b"content-length", b"2")
        self.write(b"ok")
        self.finish()


class Client:
    """A connection whose clock the test moves."""

    def __init__(self) -> None:
        self.clock, self.transport = Clock(), StringTransport()
        self.channel = BoundedChannel()
        self.channel.requestFactory = Answered
        self.channel.callLater = self.clock.callLater
        self.channel.timeOut = IDLE_S
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    def drip(self, data: bytes) -> float:
        """A byte now and then, until the hub has had enough. Give when that was."""
        for byte in data:
            self.send(bytes([byte]))
            self.clock.advance(DRIP_S)
            if self.is_ended():
                break
        return float(self.clock.seconds())

    @property
    def said(self) -> bytes:
        return bytes(self.transport.value())

    def is_ended(self) -> bool:
        return bool(self.transport.disconnecting)


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.channel.setTimeout(None)


def test_a_head_that_does_not_end(client: Client) -> None:
    assert client.drip(HEAD + b"X" * 200) == HEAD_S
    assert client.said.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_does_not_end(client: Client) -> None:
    client.send(HEAD + b"Content-Length: 1000\r\n\r\n")
    assert BODY_S <= client.drip(b"x" * 900) <= BODY_S + DRIP_S
    assert client.said.startswith(b"HTTP/1.1 408 ")


def test_chunks_that_do_not_end(client: Client) -> None:
    client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    assert client.drip(b"1\r\nx\r\n" * 100) <= BODY_S + DRIP_S
    assert client.said.startswith(b"HTTP/1.1 408 ")


def test_a_larger_body_has_more_time(client: Client) -> None:
    client.send(HEAD + f"Content-Length: {SLOWEST}\r\n\r\n".encode())
    client.clock.advance(BODY_S + 0.5)
    assert not client.is_ended()
    client.send(b"x" * SLOWEST)
    assert client.said.startswith(b"HTTP/1.1 200 ")


def test_a_connection_on_which_nothing_is_asked(client: Client) -> None:
    client.clock.advance(IDLE_S - 1)
    client.send(HEAD + b"\r\n")
    client.clock.advance(IDLE_S - 1)
    assert not client.is_ended()
    client.clock.advance(2)
    assert client.is_ended()
    assert client.said.count(b"HTTP/1.1") == 1  # nothing but the answer


def test_a_second_request_has_a_time_of_its_own(client: Client) -> None:
    client.send(HEAD + b"\r\n")
    client.clock.advance(IDLE_S - 1)
    client.send(HEAD)
    client.clock.advance(HEAD_S - 1)
    assert not client.is_ended()
    client.send(b"\r\n")
    assert client.said.count(b"HTTP/1.1 200 ") == 2


def test_a_client_that_was_refused_and_stays_is_cut_off(client: Client) -> None:
    client.send(HEAD + b"Content-Length: 100000\r\n\r\n")
    assert client.said.startswith(b"HTTP/1.1 401 ")
    client.send(b"x" * 1000)
    client.clock.advance(LINGER_S)
    assert client.transport.disconnected
