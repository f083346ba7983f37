"""What both kinds of sockets share: a lean consumer, the Origin check, and flow control."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, ClassVar

import orjson
from autobahn.exception import Disconnected
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.security.websocket import OriginValidator
from django.conf import settings

Send = Callable[[dict[str, Any]], Awaitable[None]]

CLOSE_RESTART = 1012  # come back: another process, or this one soon, has a place
RETURNS_A_SECOND = 500  # as many as come back without hurting who receives them
MAX_FRAME = 256 * 1024  # bytes a client may send at once
MAX_BACKLOG = 4 * 1024 * 1024  # bytes that a client which stopped reading may be behind
# How long a client has to take in a good-bye and what was said before it; then its connection is
# cut. autobahn counts to the beginning of a second, so it is up to one second less; with its own
# default of 1 s that was often nothing at all, and the good-bye never left.
CLOSE_TIMEOUT_S = 2


class SocketConsumer(AsyncWebsocketConsumer):
    """One WebSocket.

    Differs from its base in two ways: messages don't hop to a thread to close old database
    connections (we hold none on the event loop), and no channel of the layer is made per socket
    (the process has one for all). Measured, that is 3.4 times the messages.
    """

    open_sockets: ClassVar[set[SocketConsumer]] = set()
    farewell: ClassVar[str] = ""  # why all are sent away, once they are

    _is_busy = False  # with a message

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        self.scope = scope
        self.base_send = send
        self.below = DaphneConnection(send)
        self.ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                message = await receive()
                self._is_busy = True
                await self.dispatch(message)
                self._is_busy = False
                if self.farewell and self in self.open_sockets:
                    await self.dismiss()
        except StopConsumer:
            pass
        finally:
            self.open_sockets.discard(self)
            self.ended.set()
            self.gone()

    async def dispatch(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "websocket.connect":
                await self.connect()
            case "websocket.receive" if not self.farewell:
                await self._receive(message)
            case "websocket.disconnect":
                raise StopConsumer

    def gone(self) -> None:
        """The socket is closed, however that came about. Always called, once, and cannot wait."""

    async def accept(self, subprotocol: str | None = None, headers: Any = None) -> None:
        await super().accept(subprotocol, headers)
        self.open_sockets.add(self)

    async def close(self, code: int | None = None, reason: str | None = None) -> None:
        self.below.release()
        if code is None or not self.below.close(code, reason):
            await super().close(code, reason)

    def close_soon(self, code: int, reason: str | None = None) -> None:
        """For callers that are no coroutine."""
        self._soon(self.close(code, reason))

    @classmethod
    def dismiss_all(cls) -> None:
        """The process stops: each is closed once the message in hand is answered."""
        cls.farewell = come_back("the hub stops here", len(cls.open_sockets))
        for socket in cls.open_sockets:
            if not socket._is_busy:
                socket._soon(socket.dismiss())

    @classmethod
    async def close_all(cls) -> None:
        """Wait for nobody any longer but the other ends."""
        for socket in list(cls.open_sockets):
            await socket.dismiss()
        await cls.all_closed()

    @classmethod
    async def all_closed(cls) -> None:
        while cls.open_sockets:
            await next(iter(cls.open_sockets)).ended.wait()

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
        await self.send_text(orjson.dumps(message).decode())

    async def send_text(self, text: str) -> None:
        """Send a text frame, or close when the client does not read what it was sent."""
        if self.below.allows(len(text)):
            # suppressed: it left a moment ago; `gone` is on the way
            with contextlib.suppress(Disconnected), self.below.any_size():
                await self.base_send({"type": "websocket.send", "text": text})

    async def _receive(self, message: dict[str, Any]) -> None:
        text = message.get("text")
        if text is None:
            text = message["bytes"].decode("utf-8", "replace")
        if len(text) > MAX_FRAME:
            await self.close(1009)
        else:
            await self.receive(text_data=text)


class DaphneConnection:
    """What ASGI does not offer of the connection under a socket.

    Cuts off a client that stopped reading: it alone suffers, and memory stays bounded.

    Daphne takes whatever it is given into the transport's buffer. Twisted tells a registered
    producer when that buffer is full and when it has drained; what is sent in between is counted.
    The names of the last three methods are Twisted's.
    """

    def __init__(self, send: Send) -> None:
        # Daphne hands over `partial(server.handle_reply, protocol)`
        self._protocol: Any = next(iter(getattr(send, "args", ())), None)
        self._behind: int | None = None
        if self._protocol is not None:
            self._protocol.maxMessagePayloadSize = self._protocol.maxFramePayloadSize = MAX_FRAME
            self._protocol.failByDrop = False  # say 1009 before going
            self._protocol.closeHandshakeTimeout = CLOSE_TIMEOUT_S
            self._protocol.unregisterProducer()  # that of the HTTP request which was upgraded
            self._protocol.registerProducer(self, True)

    def allows(self, size: int) -> bool:
        if self._behind is None:
            return True
        self._behind += size
        if self._behind <= MAX_BACKLOG:
            return True
        self._protocol.transport.abortConnection()
        return False

    @contextlib.contextmanager
    def any_size(self) -> Iterator[None]:
        """Send whatever it takes: autobahn would hold what we say to the limit of what we hear.

        Daphne sends without waiting, so nothing is received in between.
        """
        if self._protocol is None:
            yield
            return
        self._protocol.maxMessagePayloadSize = 0
        try:
            yield
        finally:
            self._protocol.maxMessagePayloadSize = MAX_FRAME

    def release(self) -> None:
        """Before closing: Twisted waits for a producer that is paused, perhaps for ever."""
        if self._protocol is not None:
            self._protocol.unregisterProducer()

    def close(self, code: int, reason: str | None = None) -> bool:
        """Send the protocol's own close codes, which the ASGI way leaves to libraries."""
        if self._protocol is None or not 1000 < code < 3000:
            return False
        self._protocol.sendCloseFrame(code, reason.encode() if reason else None)
        return True

    def pauseProducing(self) -> None:
        if self._behind is None:  # Twisted says so again with every further write
            self._behind = 0

    def resumeProducing(self) -> None:
        self._behind = None

    def stopProducing(self) -> None:
        self._behind = None


def come_back(why: str, sockets: int = 1) -> str:
    """The reason of a 1012: clients read the seconds in it, and spread over them."""
    return f"{why}; come back within {1 + sockets // RETURNS_A_SECOND} s"


class HubOriginValidator(OriginValidator):
    """A browser's Origin must be one of the hub's hosts; a client without Origin is no browser."""

    def valid_origin(self, parsed_origin: Any) -> bool:
        return parsed_origin is None or super().valid_origin(parsed_origin)


def check_origin(application: Any) -> HubOriginValidator:
    return HubOriginValidator(application, settings.ALLOWED_HOSTS)
