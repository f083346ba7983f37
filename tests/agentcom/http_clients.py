"""An HTTP connection to each server's protocol, without a network, and with a clock to move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web import http

from agentcom.servers.daphne_http import BoundedChannel, BoundedRequest
from agentcom.servers.limits import IDLE_S
from agentcom.servers.uvicorn_http import HttpProtocol

TURNS = 10  # of the loop, more than any answer takes


class Answered(http.Request):
    gotLength = BoundedRequest.gotLength

    def process(self) -> None:
        self.setHeader(b"content-length", b"2")
        self.write(b"ok")
        self.finish()


class Client:
    """What both have."""

    clock: Clock
    is_known = True

    async def send(self, data: bytes) -> None:
        self.receive(data)
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def drip(self, data: bytes, step_s: float) -> float:
        """A byte now and then, until the hub has had enough. Returns when that was."""
        for byte in data:
            await self.send(bytes([byte]))
            self.clock.advance(step_s)
            if self.is_ended():
                break
        return float(self.clock.seconds())

    def receive(self, data: bytes) -> None:
        raise NotImplementedError

    def is_ended(self) -> bool:
        raise NotImplementedError

    @property
    def said(self) -> bytes:
        raise NotImplementedError


class DaphneClient(Client):
    def __init__(self) -> None:
        self.clock, self.transport = Clock(), StringTransport()
        self.channel = BoundedChannel()
        self.channel.is_known = self._is_known
        self.channel.requestFactory = Answered
        self.channel.callLater = self.clock.callLater
        self.channel.timeOut = IDLE_S
        self.channel.makeConnection(self.transport)

    async def _is_known(self, authorization: str, cookie: str) -> bool:
        return self.is_known

    def receive(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    @property
    def said(self) -> bytes:
        return bytes(self.transport.value())

    def is_ended(self) -> bool:
        return bool(self.transport.disconnecting)

    def is_cut(self) -> bool:
        return bool(self.transport.disconnected)


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.is_ended = self.is_cut = False
        self.is_read = True

    def write(self, data: Any) -> None:
        assert not self.is_ended, "nothing is written after the end"
        self.said += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_ended = True

    def close(self) -> None:
        self.is_ended = True

    def abort(self) -> None:
        self.is_ended = self.is_cut = True

    def is_closing(self) -> bool:
        return self.is_ended

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


class ClockLoop:
    """The running loop, but for its timers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.create_task = asyncio.get_running_loop().create_task

    def call_later(self, seconds: float, call: Callable[[], None]) -> Any:
        timer = self._clock.callLater(seconds, call)
        return SimpleNamespace(cancel=lambda: timer.active() and timer.cancel())


def server_state() -> Any:
    return SimpleNamespace(connections=set(), tasks=set(), default_headers=[], total_requests=0)


async def answer_ok(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


class UvicornClient(Client):
    def __init__(self, application: Any = answer_ok) -> None:
        self.clock, self.transport = Clock(), Transport()
        loop: Any = ClockLoop(self.clock)
        self.protocol = HttpProtocol(None, server_state(), {}, loop)
        self.protocol.application = application
        self.protocol.is_known = self._is_known
        self.protocol.connection_made(self.transport)

    async def _is_known(self, authorization: str, cookie: str) -> bool:
        return self.is_known

    def receive(self, data: bytes) -> None:
        self.protocol.data_received(data)

    @property
    def said(self) -> bytes:
        return self.transport.said

    def is_ended(self) -> bool:
        return self.transport.is_ended

    def is_cut(self) -> bool:
        return self.transport.is_cut
