"""What both kinds of sockets share: a lean consumer, the Origin check, flow control both ways."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import cache, lru_cache
from typing import Any, ClassVar

import orjson
from autobahn.exception import Disconnected
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.security.websocket import OriginValidator
from django.conf import settings

from agentcom.shutdown import served_by_daphne

logger = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], Awaitable[None]]

# autobahn's states of a protocol that is closed, of one whose handshake is not complete, and of one
# that is open
_STATE_CLOSED, _STATE_CONNECTING, _STATE_OPEN = 0, 1, 3

_FINAL_TEXT = 0x81  # the first byte of a text frame that is no part of a longer message

CLOSE_RESTART = 1012  # the client should reconnect: to another process, or soon to this one
RECONNECTS_PER_S = 500  # as many clients as a process can accept without harm
MAX_FRAME = 256 * 1024  # bytes a client may send at once
MAX_BACKLOG = 4 * 1024 * 1024  # bytes queued for a client that has stopped reading
FRAME_COST = 64  # bytes that an outgoing frame takes besides its content
# Of one socket, what may wait to be handled. Beyond that, nothing is read from it until half of it
# has been handled.
MAX_WAITING_FRAMES, MAX_WAITING_BYTES = 64, 4 * MAX_FRAME
# Of one socket, before the other connections get their turn: steps of the parser (two a frame), and
# handled frames.
PARSER_STEPS, FRAMES_IN_A_ROW = 64, 16
# How long a client has to receive what is queued for it and the close frame; then its connection is
# aborted. autobahn rounds down to a full second, so it may be up to one second less. With
# autobahn's default of 1 s that was often no time at all, and the close frame was never sent.
CLOSE_TIMEOUT_S = 2


class SocketConsumer(AsyncWebsocketConsumer):
    """One WebSocket.

    Differs from its base class in two ways: messages do not switch to a thread to close old
    database connections (there are none on the event loop), and there is no channel of the layer
    for each socket (the process has one for all). Measured, it handles 3.4 times as many messages.
    """

    open_sockets: ClassVar[set[SocketConsumer]] = set()
    farewell: ClassVar[str] = ""  # the close reason, once all sockets are being closed

    _is_busy = False  # handling a message
    _is_closed = False  # by us; what the client still sends is ignored

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        self.scope = scope
        self.base_send = send
        self.daphne = DaphneConnection(send)
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
                if message["type"] == "websocket.receive" and self.daphne.handled():
                    await asyncio.sleep(0)
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
        self.daphne.release()
        if code is None or not self.daphne.close(code, reason):
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
        await self._send(orjson.dumps(message))

    async def send_text(self, text: str) -> None:
        """Send a text that other sockets may get as well."""
        await self._send(_encoded(text))

    async def _send(self, payload: bytes) -> None:
        """Send a text frame, or close when the client does not read what it was sent."""
        if not self.daphne.allows(len(payload)) or self.daphne.write(payload):
            return
        # the client may have just disconnected; then `gone` is about to be called
        with contextlib.suppress(Disconnected), self.daphne.any_size():
            await self.base_send({"type": "websocket.send", "text": payload.decode()})

    async def _receive(self, message: dict[str, Any]) -> None:
        text = message.get("text")
        if text is None:
            text = message["bytes"].decode("utf-8", "replace")
        if len(text) > MAX_FRAME:
            await self.close(1009)
        else:
            await self.receive(text_data=text)


class NoSuchSocket(SocketConsumer):
    """At every other address: the handshake is answered with 403."""

    async def connect(self) -> None:
        await self.close()


class Intake:
    """Bounds the number of frames that a client has sent and that are not handled yet.

    By itself, autobahn parses all received data at once, and Daphne queues each frame for the
    consumer. Here it parses a few frames and then yields to the event loop. While many frames wait,
    the transport is paused, so that the client's own buffers fill up.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._sizes: deque[int] = deque()  # of the waiting frames
        self._bytes = 0
        self._is_full = False
        self._is_paused = False  # the transport
        self._is_scheduled = False  # to parse on in the next iteration of the loop
        self._in_a_row = 0  # handled frames, each while the next one was waiting
        self._queue = protocol.onMessage
        protocol.onMessage = self._on_message
        protocol.consumeData = self._on_data
        protocol.onAutoPingTimeout = self._on_missed_pong

    def handled(self) -> bool:
        """Note a handled frame. Returns whether to yield to the loop before the next one."""
        sizes = self._sizes
        self._bytes -= sizes.popleft()
        if self._is_full and self._is_half_done():
            self._is_full = False
            self._continue_soon()
        if not sizes:
            self._in_a_row = 0
            return False
        self._in_a_row = self._in_a_row % FRAMES_IN_A_ROW + 1
        return self._in_a_row == FRAMES_IN_A_ROW

    def _is_half_done(self) -> bool:
        return len(self._sizes) <= MAX_WAITING_FRAMES // 2 and self._bytes <= MAX_WAITING_BYTES // 2

    def _on_message(self, payload: bytes, is_binary: bool) -> None:
        size = len(payload)
        self._sizes.append(size)
        self._bytes += size
        if len(self._sizes) >= MAX_WAITING_FRAMES or self._bytes >= MAX_WAITING_BYTES:
            self._is_full = True
        self._queue(payload, is_binary)

    def _on_data(self) -> None:
        """Called for new data, and after the handshake."""
        if self._is_full or self._is_scheduled or self._protocol.state == _STATE_CONNECTING:
            self._pause()
        elif self._protocol.state == _STATE_CLOSED:
            self._protocol.data = b""
        else:
            self._parse()

    def _parse(self) -> None:
        protocol = self._protocol
        for _ in range(PARSER_STEPS):
            if not protocol.processData() or protocol.state == _STATE_CLOSED:
                self._resume()
                return
            if self._is_full:
                self._pause()
                return
        self._continue_soon()

    def _continue_soon(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._continue)

    def _continue(self) -> None:
        self._is_scheduled = False
        self._on_data()

    def _pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._protocol.transport.pauseProducing()

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._protocol.transport.resumeProducing()

    def _on_missed_pong(self) -> None:
        """The client has not answered a ping. Ignored while paused: the pong may be unread."""
        if self._is_paused:
            self._protocol.autoPingTimeoutCall = None
        else:
            type(self._protocol).onAutoPingTimeout(self._protocol)


class DaphneConnection:
    """Access to a socket's connection that ASGI does not offer.

    Disconnects a client that has stopped reading, so that memory stays bounded and other clients
    are not affected. Daphne writes whatever it gets into the transport's buffer. Twisted notifies a
    registered producer when that buffer is full and when it has drained; what is sent in between is
    counted. The names of the last three methods are Twisted's.
    """

    def __init__(self, send: Send) -> None:
        # Daphne hands over `partial(server.handle_reply, protocol)`
        self._protocol: Any = next(iter(getattr(send, "args", ())), None)
        if self._protocol is None and served_by_daphne():
            _say_unbounded()
        self._behind: int | None = None
        # to be called after each handled frame, see `Intake.handled`
        self.handled: Callable[[], bool] = lambda: False
        if self._protocol is not None:
            self.handled = Intake(self._protocol).handled
            self._protocol.onPing = self._answer_ping
            self._protocol.maxMessagePayloadSize = self._protocol.maxFramePayloadSize = MAX_FRAME
            self._protocol.failByDrop = False  # send a close frame with code 1009 first
            self._protocol.closeHandshakeTimeout = CLOSE_TIMEOUT_S
            self._protocol.unregisterProducer()  # the producer of the upgraded HTTP request
            self._protocol.registerProducer(self, True)

    def _answer_ping(self, payload: bytes) -> None:
        """Pongs take memory too if the client does not read them."""
        if self.allows(len(payload)):
            self._protocol.sendPong(payload)

    @property
    def is_behind(self) -> bool:
        """Whether the client has not read yet what it was sent."""
        return self._behind is not None

    def allows(self, size: int) -> bool:
        if self._behind is None:
            return True
        self._behind += size + FRAME_COST
        if self._behind <= MAX_BACKLOG:
            return True
        self._protocol.transport.abortConnection()
        return False

    def write(self, payload: bytes) -> bool:
        """Send a text frame. Returns False where it has to go through the server: when the
        connection is not open, or not Daphne's.

        The server's own way takes ten times as long: for each frame of each socket autobahn formats
        what it would log.
        """
        protocol = self._protocol
        if protocol is None or protocol.state != _STATE_OPEN or protocol.send_queue:
            return False
        protocol.transport.write(_head(len(payload)) + payload)
        return True

    @contextlib.contextmanager
    def any_size(self) -> Iterator[None]:
        """Lift the size limit while sending: autobahn applies it to both directions.

        Daphne sends without waiting, so no frame is received in the meantime.
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
        """To be called before closing: Twisted waits for a paused producer, perhaps forever."""
        if self._protocol is not None:
            self._protocol.unregisterProducer()

    def close(self, code: int, reason: str | None = None) -> bool:
        """Send one of the protocol's own close codes, which ASGI's close does not allow."""
        if self._protocol is None or not 1000 < code < 3000:
            return False
        self._protocol.sendCloseFrame(code, reason.encode() if reason else None)
        return True

    def pauseProducing(self) -> None:
        if self._behind is None:  # Twisted repeats the call with each further write
            self._behind = 0

    def resumeProducing(self) -> None:
        self._behind = None

    def stopProducing(self) -> None:
        self._behind = None


@lru_cache(maxsize=8)
def _encoded(text: str) -> bytes:
    """Remembered, because all viewers of the dashboard get the same texts."""
    return text.encode()


def _head(size: int) -> bytes:
    """Of a text frame with so many bytes (RFC 6455, section 5.2)."""
    if size < 126:
        return bytes((_FINAL_TEXT, size))
    if size < 65_536:
        return bytes((_FINAL_TEXT, 126)) + size.to_bytes(2, "big")
    return bytes((_FINAL_TEXT, 127)) + size.to_bytes(8, "big")


@cache  # once is enough
def _say_unbounded() -> None:
    logger.error(
        "This release of Daphne hides the connections of sockets: what clients send and do not "
        "read is not bounded. Install the releases that requirements.txt names."
    )


def reconnect_reason(why: str, sockets: int = 1) -> str:
    """The close reason of a 1012. Clients spread their reconnects over the seconds in it."""
    return f"{why}; come back within {1 + sockets // RECONNECTS_PER_S} s"


class HubOriginValidator(OriginValidator):
    """A browser's Origin must be one of the hub's hosts. Without an Origin it is no browser."""

    def valid_origin(self, parsed_origin: Any) -> bool:
        return parsed_origin is None or super().valid_origin(parsed_origin)


def check_origin(application: Any) -> HubOriginValidator:
    return HubOriginValidator(application, settings.ALLOWED_HOSTS)
