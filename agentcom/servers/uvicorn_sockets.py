"""Sockets under uvicorn, with the same limits and close codes as under Daphne.

uvicorn's own protocols parse all that has arrived at once, and let whoever sends wait for a client
that does not read. So the hub brings this one, on the same library as uvicorn's
"websockets-sansio".
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import os
from typing import Any

from django.http import HttpResponse
from websockets.frames import Opcode
from websockets.protocol import OPEN, SERVER
from websockets.protocol import Protocol as Frames

from agentcom.servers import refusals
from agentcom.servers.connection import Backlog, Connection, Send, Waiting
from agentcom.servers.frames import text_frame
from agentcom.servers.limits import CLOSE_TIMEOUT_S, MAX_FRAME

logger = logging.getLogger(__name__)

LIBRARY = logging.getLogger("websockets.server")

Message = dict[str, Any]

CONNECT_TIMEOUT_S = 60  # for the application to accept the socket, as Daphne is configured
KEY_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of the handshake, RFC 6455, section 1.3
# Bytes that are parsed at a time, and frames of one socket before the other connections get their
# turn.
STEP, FRAMES_A_TURN = 512, 32
CLOSE_NOT_TEXT, CLOSE_INTERNAL_ERROR = 1007, 1011


class SocketProtocol(asyncio.Protocol):
    """One socket, from its handshake on."""

    def __init__(self, config: Any, server_state: Any, application: Any) -> None:
        self._server = server_state
        self._application = application
        self._ping_interval_s: float | None = config.ws_ping_interval
        self._ping_timeout_s: float | None = config.ws_ping_timeout
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(SERVER, state=OPEN, max_size=MAX_FRAME, logger=LIBRARY)
        self._state = "connecting"  # then "open", then "closing" once a close frame was sent
        self._unread = b""
        self._message = bytearray()  # the frames of an incomplete one
        self._is_text = False
        self._queue: list[Message] = [{"type": "websocket.connect"}]  # few, see `Waiting`
        self._wake: asyncio.Future[None] | None = None
        self._is_lost = False
        self._is_paused = False
        self._is_scheduled = False  # to parse on in the next iteration of the loop
        self._ping = b""  # the payload of the ping that is not answered yet
        self._timer: asyncio.TimerHandle | None = None  # the handshake's, then that of pings
        self._close_timer: asyncio.TimerHandle | None = None
        self.backlog = Backlog()
        self.waiting = Waiting(self._parse_soon)

    def begin(self, transport: asyncio.Transport, scope: Message, unread: bytes) -> None:
        """`unread` has arrived behind the handshake."""
        self._transport = transport
        self._server.connections.add(self)
        self._headers = dict(scope["headers"])
        self._unread = unread
        if refusal := _handshake_refusal(scope, self._headers):
            return self._reject(refusal)
        protocols = self._headers.get(b"sec-websocket-protocol", b"").decode("latin-1")
        scope["subprotocols"] = [name.strip() for name in protocols.split(",") if name]
        self._timer = self._loop.call_later(CONNECT_TIMEOUT_S, transport.abort)
        task = self._loop.create_task(self._run(scope))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    # --- The transport

    def connection_lost(self, error: Exception | None) -> None:
        self._server.connections.discard(self)
        self._is_lost = True
        for timer in (self._timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        self._put({"type": "websocket.disconnect", "code": self._frames.close_code or 1006})

    def pause_writing(self) -> None:
        self.backlog.begin()

    def resume_writing(self) -> None:
        self.backlog.end()

    def shutdown(self) -> None:
        """uvicorn ends."""
        self._transport.abort()

    def abort(self) -> None:
        self._transport.abort()

    # --- The application

    async def _run(self, scope: Message) -> None:
        try:
            await self._application(scope, self._receive, self.send)
        except Exception:
            logger.exception("A socket failed")
        if self._state == "open" and not self._is_lost:
            self._close(CLOSE_INTERNAL_ERROR)
        elif self._state == "connecting" and not self._is_lost:
            self._reject(refusals.failed())

    async def _receive(self) -> Message:
        while not self._queue:
            self._wake = self._loop.create_future()
            await self._wake
        return self._queue.pop(0)

    def _put(self, message: Message) -> None:
        self._queue.append(message)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def send(self, message: Message) -> None:
        """Never waits. What the client is sent after it has gone is dropped."""
        match message["type"]:
            case _ if self._is_lost or self._state == "closing":
                return
            case "websocket.send" if self._state == "open":
                self._send_frame(message)
            case "websocket.close" if self._state == "open":
                self._close(message.get("code") or 1000, message.get("reason") or "")
            case "websocket.accept" if self._state == "connecting":
                self._accept(message)
            case "websocket.close" if self._state == "connecting":
                self._reject(refusals.forbidden())
            case unexpected:
                raise RuntimeError(f"{unexpected} is out of order")

    def _send_frame(self, message: Message) -> None:
        text = message.get("text")
        if text is not None:
            self._frames.send_text(text.encode())
        else:
            self._frames.send_binary(message["bytes"])
        self._write(self._frames.data_to_send())

    def write_text(self, payload: bytes) -> bool:
        """Send a frame without the library, which keeps no account of those; False if the socket is
        not open."""
        if self._state != "open" or self._transport.is_closing():
            return False
        self._transport.write(text_frame(payload))
        return True

    def _accept(self, message: Message) -> None:
        self._state = "open"
        key = self._headers[b"sec-websocket-key"] + KEY_SUFFIX
        digest = hashlib.sha1(key, usedforsecurity=False)
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest.digest()),
            *(b"%b: %b" % header for header in message.get("headers") or ()),
        ]
        if subprotocol := message.get("subprotocol"):
            lines.append(b"Sec-WebSocket-Protocol: " + subprotocol.encode())
        self._transport.write(b"\r\n".join([*lines, b"", b""]))
        self._ping_later()
        self._parse()

    def _reject(self, response: HttpResponse) -> None:
        self._begin_closing()
        self._transport.write(refusals.as_bytes(response))
        self._transport.close()

    def _close(self, code: int, reason: str = "") -> None:
        """Send a close frame, and wait for the client's for a while."""
        if self._frames.state is OPEN:  # otherwise the client's close frame has been parsed
            self._frames.send_close(code, reason)
        self._begin_closing()
        self._write(self._frames.data_to_send())
        self._parse_soon()  # what waited behind a full queue, up to the client's close frame

    def _begin_closing(self) -> None:
        if self._state != "closing":
            self._state = "closing"
            self._close_timer = self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def _write(self, pieces: list[bytes]) -> None:
        """What the library has to send; an empty piece is the end of the connection."""
        for data in pieces:
            if data:
                self._transport.write(data)
            elif self._frames.parser_exc is not None and self._transport.can_write_eof():
                # If it were closed at once, data that still arrives would reset it before the
                # client has read the close frame.
                self._transport.write_eof()
            else:
                self._transport.close()

    # --- Frames that arrive

    def data_received(self, data: bytes) -> None:
        self._unread = self._unread + data if self._unread else data
        if not self._is_scheduled:
            self._parse()

    def _parse_soon(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._parse_on)

    def _parse_on(self) -> None:
        self._is_scheduled = False
        if not self._is_lost:
            self._parse()

    def _parse(self) -> None:
        """A few frames, then the others have their turn. None while too many wait."""
        unread, at, frames = memoryview(self._unread), 0, 0
        while at < len(unread) and self._may_parse() and frames < FRAMES_A_TURN:
            self._frames.receive_data(bytes(unread[at : at + STEP]))
            at += STEP
            events = self._frames.events_received()
            frames += len(events)
            for event in events:
                self._take(event)
            self._respond()
        self._unread = bytes(unread[at:])
        if self._unread and self._may_parse():
            self._parse_soon()
        self._pause(bool(self._unread))

    def _may_parse(self) -> bool:
        """Once the hub closes the socket, all is parsed, and dropped."""
        return self._state == "closing" or (self._state == "open" and not self.waiting.is_full)

    def _pause(self, is_paused: bool) -> None:
        if is_paused != self._is_paused and not self._transport.is_closing():
            self._is_paused = is_paused
            (self._transport.pause_reading if is_paused else self._transport.resume_reading)()

    def _respond(self) -> None:
        """Pongs, the answer to a close frame, or a close frame if a frame was not allowed."""
        pieces = self._frames.data_to_send()
        if pieces and not self.backlog.allows(sum(map(len, pieces))):
            return self._transport.abort()
        if self._frames.state is not OPEN:
            self._begin_closing()
        self._write(pieces)
        return None

    def _take(self, frame: Any) -> None:
        if self._state != "open":
            return
        match frame.opcode:
            case Opcode.TEXT | Opcode.BINARY | Opcode.CONT:
                self._take_data(frame)
            case Opcode.PONG if bytes(frame.data) == self._ping:
                self._ping_later()

    def _take_data(self, frame: Any) -> None:
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        if frame.fin and not self._message:
            self._hand_over(frame.data)
            return
        self._message += frame.data
        if frame.fin:
            data, self._message = self._message, bytearray()
            self._hand_over(data)

    def _hand_over(self, data: bytes | bytearray) -> None:
        message: Message = {"type": "websocket.receive"}
        try:
            message |= {"text": str(data, "utf-8")} if self._is_text else {"bytes": bytes(data)}
        except UnicodeDecodeError:
            return self._close(CLOSE_NOT_TEXT, "the text is not UTF-8")
        self.waiting.add(len(data))
        self._put(message)
        return None

    # --- Pings

    def _ping_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ping_interval_s:
            self._timer = self._loop.call_later(self._ping_interval_s, self._send_ping)

    def _send_ping(self) -> None:
        if self._state != "open":
            return
        self._ping = os.urandom(4)
        if not self.backlog.allows(len(self._ping)):
            return self._transport.abort()
        self._frames.send_ping(self._ping)
        self._write(self._frames.data_to_send())
        self._await_pong()
        return None

    def _await_pong(self) -> None:
        if self._ping_timeout_s:
            self._timer = self._loop.call_later(self._ping_timeout_s, self._on_missed_pong)
        else:
            self._ping_later()

    def _on_missed_pong(self) -> None:
        """Not while reading is paused: the pong may be unread."""
        if self._is_paused:
            self._await_pong()
        else:
            self._transport.abort()


class UvicornConnection(Connection):
    def __init__(self, protocol: SocketProtocol) -> None:
        self._protocol = protocol

    @property
    def is_behind(self) -> bool:
        return self._protocol.backlog.is_behind

    def allows(self, size: int) -> bool:
        if self._protocol.backlog.allows(size):
            return True
        self._protocol.abort()
        return False

    def handled(self) -> bool:
        return self._protocol.waiting.handled()

    def write(self, payload: bytes) -> bool:
        return self._protocol.write_text(payload)


def uvicorn_connection(send: Send) -> Connection:
    protocol = getattr(send, "__self__", None)
    assert isinstance(protocol, SocketProtocol)
    return UvicornConnection(protocol)


def _handshake_refusal(scope: Message, headers: dict[bytes, bytes]) -> HttpResponse | None:
    """Why this request cannot become a WebSocket."""
    if scope["method"] != "GET" or scope["http_version"] != "1.1":
        return refusals.bad_request("a WebSocket begins with GET and HTTP/1.1")
    if headers.get(b"sec-websocket-version") != b"13":
        response = refusals.bad_request("Sec-WebSocket-Version has to be 13")
        response.status_code = 426
        response.headers["Sec-WebSocket-Version"] = "13"
        return response
    try:
        key = base64.b64decode(headers.get(b"sec-websocket-key", b""), validate=True)
    except binascii.Error:
        key = b""
    return None if len(key) == 16 else refusals.bad_request("Sec-WebSocket-Key has to be 16 bytes")
