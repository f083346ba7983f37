"""One request under uvicorn and the response to it, between the application and the transport."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools
from django.http import HttpResponse

from agentcom.servers import refusals

logger = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]
Message = dict[str, Any]


@dataclass(eq=False)
class Request:
    """What has arrived of it so far."""

    method: str = ""
    target: bytes = b""
    path: str = ""
    raw_path: bytes = b""
    query: bytes = b""
    version: str = "1.1"
    headers: Headers = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    keeps_alive: bool = True
    is_admitted: bool = False  # its body may exceed FREE_BODY

    def header(self, name: bytes) -> bytes:
        """All values of the header; `name` in lower case."""
        return b"; ".join(value for key, value in self.headers if key == name)

    def split_target(self) -> None:
        """Raises when it has no path, or characters in it that no target may have."""
        self.target.decode("ascii")
        parsed = httptools.parse_url(self.target)
        self.raw_path, self.query = parsed.path or b"/", parsed.query or b""
        self.path = unquote(self.raw_path.decode("ascii"))

    def credentials(self) -> tuple[str, str]:
        return (
            self.header(b"authorization").decode("latin-1"),
            self.header(b"cookie").decode("latin-1"),
        )


class Exchange:
    """Runs the application for a request whose body is complete.

    `on_end(keeps_alive)` is called once, when the response is complete or has to be cut off.
    """

    def __init__(
        self,
        request: Request,
        scope: Message,
        transport: asyncio.Transport,
        writable: asyncio.Event,
        default_headers: Headers,
        on_end: Callable[[bool], None],
    ) -> None:
        self._request = request
        self._scope = scope
        self._transport = transport
        self._writable = writable
        self._default_headers = default_headers
        self._on_end = on_end
        self._head = b""  # waits for the beginning of the body, so that both are one packet
        self._left: int | None = None  # of the announced length
        self._is_chunked = False
        self._has_begun = False
        self._is_received = False
        self._keeps_alive = request.keeps_alive
        self._gone = asyncio.Event()  # the client is, or the response is complete

    async def run(self, application: Any) -> None:
        try:
            await application(self._scope, self._receive, self._send)
        except Exception:
            logger.exception("A request failed")
        if not self._has_begun:
            await self._respond(refusals.failed())
        if not self._gone.is_set():
            self._end(keeps_alive=False)  # the client sees that the response is not complete

    def disconnect(self) -> None:
        self._gone.set()

    async def _respond(self, response: HttpResponse) -> None:
        headers = [(name.encode(), value.encode("latin-1")) for name, value in response.items()]
        headers += [(b"Content-Length", str(len(response.content)).encode())]
        start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": response.content})

    async def _receive(self) -> Message:
        if not self._is_received:
            self._is_received = True
            body, self._request.body = bytes(self._request.body), bytearray()
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._gone.is_set():
            return
        if message["type"] == "http.response.start" and not self._has_begun:
            self._begin(message["status"], list(message.get("headers", ())))
        elif message["type"] == "http.response.body" and self._has_begun:
            self._write(message.get("body", b""), is_last=not message.get("more_body", False))
            if not self._gone.is_set():
                await self._writable.wait()
        else:
            raise RuntimeError(f"{message['type']} is out of order")

    def _begin(self, status: int, headers: Headers) -> None:
        self._has_begun = True
        names = {name.lower(): value for name, value in headers}
        has_body = self._request.method != "HEAD" and status not in (204, 304)
        if has_body and b"content-length" in names:
            self._left = int(names[b"content-length"])
        elif has_body and self._request.version == "1.1":
            self._is_chunked = True
            headers.append((b"Transfer-Encoding", b"chunked"))
        elif has_body:
            self._keeps_alive = False  # the end of the connection is the end of the body
        else:
            self._left = 0
        if b"close" in names.get(b"connection", b"").lower():
            self._keeps_alive = False
        elif not self._keeps_alive:
            headers.append((b"Connection", b"close"))
        self._head = _head(status, [*self._default_headers, *headers])

    def _write(self, body: bytes, is_last: bool) -> None:
        if self._is_chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body += b"0\r\n\r\n" if is_last else b""
        elif self._left is not None:
            body = body[: self._left]  # nothing for HEAD, 204 and 304
            self._left -= len(body)
        self._transport.write(self._head + body)
        self._head = b""
        if is_last:
            self._end(self._keeps_alive and not self._left)

    def _end(self, keeps_alive: bool) -> None:
        self._gone.set()
        self._on_end(keeps_alive)


def _head(status: int, headers: Headers) -> bytes:
    lines = [b"HTTP/1.1 %d %b" % (status, _phrase(status))]
    lines += [b"%b: %b" % header for header in headers]
    head = b"\r\n".join(lines)
    if head.count(b"\n") >= len(lines):
        raise ValueError("a header has a line break in it")
    return head + b"\r\n\r\n"


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
