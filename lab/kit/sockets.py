"""Connections that cost little: raw HTTP and WebSocket on asyncio's protocols, JSON by orjson.

They believe the server: what a careful client checks (the handshake's key, fragments, reserved
bits) is left out. Frames are masked with zeros, which is valid and needs no work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import orjson

Message = dict[str, Any]

HOST = "127.0.0.1"
CONNECT_TIMEOUT_S = 60
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
BROKEN = 1006  # the close code of a connection that ended without one
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
FINAL, MASKED, NO_MASK = 0x80, 0x80, b"\0\0\0\0"


class Failed(Exception):
    """The hub did not do what the scenario needs."""


class Closed(Failed):
    """The hub closed the socket, with this code, or 1006 when the connection broke."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the hub closed the socket with {code}")
        self.code = code


class WebSocket(asyncio.Protocol):
    """`on_text` is called with the bytes of each text frame, as they come.

    `closed` gives the hub's close code, or 1006 when the connection broke.
    """

    def __init__(
        self, port: int, path: str, on_text: Callable[[bytes], None], headers: Mapping[str, str]
    ) -> None:
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._hello = (
            f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            f"Sec-WebSocket-Version: 13\r\n{more}\r\n"
        ).encode()
        self._on_text = on_text
        self._rest = b""
        self._open = False
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[int] = loop.create_future()
        self.transport: Any = None

    @classmethod
    async def connect(
        cls,
        port: int,
        path: str,
        on_text: Callable[[bytes], None],
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Self:
        loop = asyncio.get_running_loop()
        _, socket = await loop.create_connection(
            lambda: cls(port, path, on_text, headers), HOST, port
        )
        await asyncio.wait_for(socket.opened, CONNECT_TIMEOUT_S)
        return socket

    def send(self, **message: Any) -> None:
        self.send_raw(orjson.dumps(message))

    def send_raw(self, payload: bytes, opcode: int = TEXT) -> None:
        self.transport.write(frame(opcode, payload))

    def close(self) -> None:
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(self._hello)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(Failed("the hub closed a socket in the handshake"))
        self._note_closed(BROKEN)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        if not self._open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            self._begin(head)
        self._rest = self._take_frames(data)

    def _begin(self, head: bytes) -> None:
        self._open = True
        if self.opened.done():
            return
        if head.startswith(b"HTTP/1.1 101"):
            self.opened.set_result(None)
        else:
            self.opened.set_exception(Failed(head.partition(b"\r\n")[0].decode()))

    def _take_frames(self, data: bytes) -> bytes:
        """Give what is left: the beginning of a frame that is not all here."""
        at = 0
        while len(data) - at >= 2:
            size, start = data[at + 1], at + 2
            if size > 125:
                start += 2 if size == 126 else 8
                size = int.from_bytes(data[at + 2 : start], "big")
            if len(data) < start + size:
                break
            self._take(data[at] & 0x0F, data[start : start + size])
            at = start + size
        return data[at:]

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            self._on_text(payload)
        elif opcode == PING:
            self.transport.write(frame(PONG, payload))
        elif opcode == CLOSE:
            self._note_closed(int.from_bytes(payload[:2], "big"))
            self.transport.close()

    def _note_closed(self, code: int) -> None:
        if not self.closed.done():
            self.closed.set_result(code)


def frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((FINAL | opcode, MASKED | size))
    elif size < 65_536:
        head = bytes((FINAL | opcode, MASKED | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((FINAL | opcode, MASKED | 127)) + size.to_bytes(8, "big")
    return head + NO_MASK + payload


class Http(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, port: int, token: str) -> None:
        self._common = f"Host: {HOST}:{port}\r\nAuthorization: Bearer {token}\r\n"
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._received = b""
        self.transport: Any = None

    @classmethod
    async def connect(cls, port: int, token: str = "") -> Http:
        loop = asyncio.get_running_loop()
        _, http = await loop.create_connection(lambda: cls(port, token), HOST, port)
        return http

    async def get(self, path: str) -> bytes:
        return await self._ask(f"GET {path} HTTP/1.1\r\n{self._common}\r\n".encode(), 200)

    async def submit(self, tasks: Message | Sequence[Message]) -> Message:
        """Give the hub's receipt. Raises `Failed` when it is none."""
        return await self.post("/api/tasks", tasks, 201)

    async def post(self, path: str, data: Any, wanted: int) -> Message:
        """Raises `Failed` when the answer has another status than `wanted`."""
        body = orjson.dumps(data)
        head = (
            f"POST {path} HTTP/1.1\r\n{self._common}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        answer: Message = orjson.loads(await self._ask(head.encode() + body, wanted))
        return answer

    def close(self) -> None:
        self.transport.abort()

    async def _ask(self, request: bytes, wanted: int) -> bytes:
        self._answer = asyncio.get_running_loop().create_future()
        self._received = b""
        self.transport.write(request)
        status, body = await self._answer
        if status != wanted:
            raise Failed(f"HTTP {status}: {body[:200]!r}")
        return body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Failed("the hub closed an HTTP connection"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) >= _content_length(head) and self._answer is not None:
            self._answer.set_result((int(head[9:12]), body))


def _content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"content-length:")
    return int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
