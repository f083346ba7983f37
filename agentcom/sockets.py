"""What all sockets share: a lean consumer, who may open one, flow control both ways."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Coroutine
from functools import lru_cache
from typing import Any, ClassVar

import orjson
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from agentcom import doors
from agentcom.addresses import client_address
from agentcom.limits import Bucket, Crowd, failures, note
from agentcom.origins import socket_refusal
from agentcom.servers import running
from agentcom.servers.connection import Send
from agentcom.servers.limits import MAX_FRAME

CLOSE_RESTART = 1012  # the client should reconnect: to another process, or soon to this one
CLOSE_RATE_LIMITED = 4429
PATIENCE_S = 30.0  # with a client that goes on sending too much
STEP_S = 0.1  # for which one that sends too much waits at least: many messages at a time cost less
SHORT_S = 2.0  # in which a client has to identify while many others of its address are silent
RECONNECTS_PER_S = 500  # as many clients as a process can accept without harm


class SocketConsumer(AsyncWebsocketConsumer):
    """One WebSocket.

    Differs from its base class in two ways: messages do not switch to a thread to close old
    database connections (there are none on the event loop), and there is no channel of the layer
    for each socket (the process has one for all). Measured, it handles 3.4 times as many messages.
    """

    open_sockets: ClassVar[set[SocketConsumer]] = set()
    farewell: ClassVar[str] = ""  # the close reason, once all sockets are being closed

    # whether it may be sent `rate_limited`; who does not expect that might take it for an answer
    hears_limits = True
    messages: Bucket | None = None  # made with the first message
    address = ""  # from where it was opened

    _limited_since = 0.0  # 0: it has not been slowed down at its last message
    _told_at = 0.0  # that it is slowed down
    _is_busy = False  # handling a message
    _is_closed = False  # by us; what the client still sends is ignored

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        self.scope = scope
        self.address = sys.intern(client_address(scope))
        self.base_send = send
        self.server_connection = running.connection(send)
        self._tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                message = await receive()
                self._is_busy = True
                if message["type"] == "websocket.receive":
                    await self._slow_down()
                await self.dispatch(message)
                self._is_busy = False
                if self.farewell and self in self.open_sockets:
                    await self.dismiss()
                if message["type"] == "websocket.receive" and self.server_connection.handled():
                    await asyncio.sleep(0)
        except StopConsumer:
            pass
        finally:
            self.open_sockets.discard(self)
            self.gone()

    async def _slow_down(self) -> None:
        """Wait before a message is handled when there were too many lately. While it waits, the
        server stops reading, so that the client cannot send more than the limit. Nothing is lost.
        """
        bucket = self.messages
        if bucket is None:
            rate, burst = settings.AGENTCOM_MESSAGES_PER_S, settings.AGENTCOM_MESSAGE_BURST
            bucket = self.messages = Bucket(rate, burst)
        bucket.take()
        wait_s = bucket.wait_s()
        if not wait_s:
            self._limited_since = 0.0
            return
        now = time.monotonic()
        self._limited_since = self._limited_since or now
        if now - self._limited_since > PATIENCE_S:
            await self.close(CLOSE_RATE_LIMITED, "too many messages for too long")
            return
        wait_s = max(wait_s, STEP_S)
        if now - self._told_at >= 1:
            self._told_at = now
            note("it sends too many messages over a socket", self.address)
            if self.hears_limits:
                told = {"type": "rate_limited", "retry_after_ms": math.ceil(wait_s * 1000)}
                await self.send_json(told)
        await asyncio.sleep(wait_s)

    async def dispatch(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "websocket.connect":
                await self.connect()
            case "websocket.receive" if not self.farewell and not self._is_closed:
                await self._receive(message)
            case "websocket.disconnect":
                raise StopConsumer

    def gone(self) -> None:
        """Called once when the socket is closed, for whatever reason. Must not wait."""

    async def accept(self, subprotocol: str | None = None, headers: Any = None) -> None:
        await super().accept(subprotocol, headers)
        self.open_sockets.add(self)

    async def close(self, code: int | None = None, reason: str | None = None) -> None:
        self._is_closed = True
        self.server_connection.release()
        if code is None or not self.server_connection.close(code, reason):
            await super().close(code, reason)

    def close_soon(self, code: int, reason: str | None = None) -> None:
        """For callers that are no coroutine."""
        self._soon(self.close(code, reason))

    @classmethod
    def dismiss_all(cls) -> None:
        """The process stops: close each socket once its current message has been answered."""
        cls.farewell = reconnect_reason("the hub stops here", len(cls.open_sockets))
        for socket in cls.open_sockets:
            if not socket._is_busy:
                socket._soon(socket.dismiss())

    @classmethod
    async def close_all(cls) -> None:
        """Close all sockets now, and wait until the clients have closed them too."""
        for socket in list(cls.open_sockets):
            await socket.dismiss()
        await cls.all_closed()

    @classmethod
    async def all_closed(cls) -> None:
        while cls.open_sockets:  # noqa: ASYNC110 – once; an event for each socket takes 1 kB
            await asyncio.sleep(0.01)

    async def dismiss(self) -> None:
        await self.close(CLOSE_RESTART, self.farewell)

    def send_soon(self, message: dict[str, Any]) -> None:
        """For callers that are no coroutine."""
        self._soon(self.send_json(message))

    def _soon(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def send_json(self, message: dict[str, Any]) -> None:
        await self._send(orjson.dumps(message))

    async def send_text(self, text: str) -> None:
        """Send a text that other sockets may get as well."""
        await self._send(_encoded(text))

    async def _send(self, payload: bytes) -> None:
        """Send a text frame, or close when the client does not read what it was sent."""
        connection = self.server_connection
        if not connection.allows(len(payload)) or connection.write(payload):
            return
        with connection.sending():
            await self.base_send({"type": "websocket.send", "text": payload.decode()})

    async def _receive(self, message: dict[str, Any]) -> None:
        text = message.get("text")
        if text is None:
            text = message["bytes"].decode("utf-8", "replace")
        if len(text) > MAX_FRAME:
            await self.close(1009)
        else:
            await self.receive(text_data=text)


class IdentifiedSocket(SocketConsumer):
    """A socket whose client has to say who it is, soon."""

    silent: ClassVar[Crowd] = Crowd("many of its sockets do not identify")

    _deadline: asyncio.TimerHandle | None = None

    def expect_soon(self, code: int) -> None:
        """Close it with this code, unless `identified` is called in time. While its address has
        many such sockets, one that says nothing at all gets little time."""
        limit = settings.AGENTCOM_SILENT_PER_ADDRESS
        seconds = settings.AGENTCOM_IDENTIFY_TIMEOUT_S
        loop = asyncio.get_running_loop()
        if limit and self.silent.enter(self.address) > limit and seconds > SHORT_S:
            self._deadline = loop.call_later(SHORT_S, self._expect, seconds - SHORT_S, code)
        else:
            self._deadline = loop.call_later(seconds, self.close_soon, code)

    def _expect(self, seconds: float, code: int) -> None:
        """It has said nothing yet, or it waits for its answer and has more time."""
        if self.messages is None:
            self.silent.note(self.address)
            failures.add(self.address)
            self.close_soon(code)
        else:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(seconds, self.close_soon, code)

    def identified(self) -> None:
        """Or gone."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            if settings.AGENTCOM_SILENT_PER_ADDRESS:
                self.silent.leave(self.address)


class NoSuchSocket(SocketConsumer):
    """At every other address: the handshake is answered with 403."""

    async def connect(self) -> None:
        await self.close()


@lru_cache(maxsize=8)
def _encoded(text: str) -> bytes:
    """Remembered, because all viewers of the dashboard get the same texts."""
    return text.encode()


def reconnect_reason(why: str, sockets: int = 1) -> str:
    """The close reason of a 1012. Clients spread their reconnects over the seconds in it."""
    return f"{why}; come back within {1 + sockets // RECONNECTS_PER_S} s"


class ClosedDoors:
    """Around all sockets: who asks under a foreign `Host`, or from a page of somebody else, gets
    403 to the handshake. The rules are in `origins.py`."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._nowhere = NoSuchSocket.as_asgi()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        refusal = socket_refusal(scope)
        if refusal is not None:
            doors.log(refusal)
        application = self._application if refusal is None else self._nowhere
        await application(scope, receive, send)
