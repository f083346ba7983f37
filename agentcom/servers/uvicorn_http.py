"""HTTP connections under uvicorn, with the same limits as under Daphne.

uvicorn's own protocols read bodies and headers of any size, however long that takes, and start the
application before the body is there. So the hub brings this one, on httptools like uvicorn's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import httptools
from django.http import HttpResponse

from agentcom.servers import refusals
from agentcom.servers.limits import (
    BODY_S,
    FREE_BODY,
    HEAD_S,
    IDLE_S,
    LINGER_S,
    MAX_BODY,
    MAX_HEAD,
    SLOWEST,
)
from agentcom.servers.uvicorn_exchange import Exchange, Request
from agentcom.servers.uvicorn_sockets import SocketProtocol

# Bytes that are parsed at a time. A client may send many requests without waiting for responses;
# those in one step are kept, what is behind them is not parsed yet.
STEP = 2048


class Deadline:
    """A timer that is replaced by the next one. `of` is a name for what it is for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.of = ""

    def set(self, seconds: float, then: Callable[[], None], of: str = "") -> None:
        self.clear()
        self._timer = self._loop.call_later(seconds, then)
        self.of = of

    def clear(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.of = ""


class HttpProtocol(asyncio.Protocol):
    """One connection. The callbacks whose names begin with `on_` are httptools'."""

    is_known: refusals.IsKnown
    application: Any

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        """uvicorn calls it with these names."""
        self._config = config
        self._server = server_state
        self._loop: asyncio.AbstractEventLoop = _loop or asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._unread = b""
        self._part = ""  # of a request that is being received: "head", "body", or "" between them
        self._head_size = 0
        self._length: int | None = 0  # of the body; None: chunked
        self._request = Request()
        self._complete: deque[Request] = deque()
        self._exchange: Exchange | None = None
        self._asking: asyncio.Task[None] | None = None
        self._upgrade: Request | None = None
        self._deadline = Deadline(self._loop)
        self._writable = asyncio.Event()
        self._writable.set()
        self._is_refused = False  # nothing more is read
        self._last_words: HttpResponse | None = None  # a refusal, behind pending responses
        self._is_paused = False

    # --- The transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)
        self._deadline.set(IDLE_S, self._close)

    def connection_lost(self, error: Exception | None) -> None:
        self._server.connections.discard(self)
        self._is_refused = True
        self._deadline.clear()
        self._complete.clear()
        self._writable.set()
        if self._exchange is not None:
            self._exchange.disconnect()
        if self._asking is not None:
            self._asking.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()
        self._deadline.set(IDLE_S, self._transport.abort)  # for a client that does not read

    def resume_writing(self) -> None:
        self._writable.set()
        self._deadline.clear()
        if self._exchange is None and not self._is_refused:
            self._go_on()

    def shutdown(self) -> None:
        """uvicorn ends."""
        self._transport.abort()

    def _close(self) -> None:
        self._is_refused = True
        self._transport.close()
        self._deadline.set(IDLE_S, self._transport.abort)  # for a client that does not read

    # --- Reading

    def data_received(self, data: bytes) -> None:
        if not self._is_refused:
            self._unread += data
            self._parse()

    def _parse(self) -> None:
        """Parse until a request is complete; what is behind it waits until it is answered."""
        unread, at = memoryview(self._unread), 0
        while at < len(unread) and not self._is_busy():
            at += self._parse_some(unread[at : at + STEP])
        self._unread = b"" if self._is_refused else bytes(unread[at:])
        if self._is_refused:
            return
        if self._upgrade is not None and self._exchange is None:
            return self._become_socket(self._upgrade)
        self._pause(bool(self._unread))
        self._time_part()

    def _is_busy(self) -> bool:
        return bool(
            self._is_refused
            or self._exchange
            or self._complete
            or self._asking
            or self._upgrade
            or not self._writable.is_set()
        )

    def _parse_some(self, data: memoryview) -> int:
        """How many bytes were parsed."""
        part = self._part = self._part or "head"
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return int(upgrade.args[0])
        except httptools.HttpParserError:
            self._refuse(refusals.bad_request())
        if part == self._part == "head":
            self._count_head(len(data))
        return len(data)

    def _count_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD:
            self._refuse(refusals.head_too_large())

    def _pause(self, is_paused: bool) -> None:
        if is_paused != self._is_paused and not self._transport.is_closing():
            self._is_paused = is_paused
            (self._transport.pause_reading if is_paused else self._transport.resume_reading)()

    # --- The parser

    def on_message_begin(self) -> None:
        self._part = "head"
        self._head_size = 0
        self._request = Request()

    def on_url(self, url: bytes) -> None:
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part == "head":  # otherwise it comes behind a chunked body, and nobody asked
            self._request.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """What it raises is a refusal: `feed_data` raises it as an `HttpParserError`."""
        if self._is_refused:
            return
        request, parser = self._request, self._parser
        request.method = parser.get_method().decode("ascii")
        request.version = parser.get_http_version()
        request.keeps_alive = request.version == "1.1" and parser.should_keep_alive()
        request.split_target()
        head = sum(len(name) + len(value) for name, value in request.headers)
        if head + len(request.target) > MAX_HEAD:
            return self._refuse(refusals.head_too_large())
        is_chunked = bool(request.header(b"transfer-encoding"))
        self._length = None if is_chunked else int(request.header(b"content-length") or 0)
        refusal = refusals.body_refusal(self._length or 0, any(request.credentials()))
        if refusal is not None:
            return self._refuse(refusal)
        self._part = "body"
        if self._length is not None and self._length > FREE_BODY:
            self._ask(request)
        else:
            self._let_send(request)
        return None

    def on_body(self, body: bytes) -> None:
        if self._is_refused:
            return
        request = self._request
        request.body += body
        if self._length is not None or len(request.body) <= FREE_BODY:
            return
        if request.is_admitted and len(request.body) <= MAX_BODY:
            return
        if refusal := refusals.body_refusal(len(request.body), any(request.credentials())):
            self._refuse(refusal)
        elif self._asking is None:
            self._ask(request)

    def on_message_complete(self) -> None:
        self._part = ""
        if self._is_refused:
            return
        if self._parser.should_upgrade() and _is_socket(self._request):
            self._upgrade = self._request
            return
        self._complete.append(self._request)
        if self._exchange is None:
            self._answer_next()

    # --- Deadlines

    def _time_part(self) -> None:
        """For what has not arrived completely. Most requests come in one piece."""
        if not self._part or self._exchange is not None or self._deadline.of == self._part:
            return
        size = FREE_BODY if self._length is None else min(self._length, FREE_BODY)
        self._time(HEAD_S if self._part == "head" else BODY_S + size / SLOWEST)

    def _time(self, seconds: float) -> None:
        self._deadline.set(seconds, lambda: self._refuse(refusals.too_slow()), of=self._part)

    # --- Who sends a large body

    def _ask(self, request: Request) -> None:
        self._asking = self._loop.create_task(self._admit(request, self._asking))

    async def _admit(self, request: Request, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        refusal = await refusals.caller_refusal(self.is_known, *request.credentials())
        if self._asking is asyncio.current_task():
            self._asking = None
        if refusal is not None:
            if request in self._complete:
                self._complete.remove(request)
            self._refuse(refusal)
        elif not self._is_refused:
            request.is_admitted = True
            if self._part == "body" and self._request is request:
                self._time(BODY_S + (self._length or MAX_BODY) / SLOWEST)
                self._let_send(request)
            self._go_on()

    def _let_send(self, request: Request) -> None:
        """Some clients ask whether they may send a body. Others send without waiting."""
        is_asked = request.header(b"expect").lower() == b"100-continue" and not request.body
        if is_asked and self._exchange is None and not self._complete:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # --- Responses

    def _go_on(self) -> None:
        self._answer_next()
        self._parse()

    def _answer_next(self) -> None:
        is_held = self._exchange or self._asking or not self._writable.is_set()
        if not self._complete or is_held:
            return
        self._deadline.clear()
        request = self._complete.popleft()
        self._exchange = Exchange(
            request,
            self._scope(request),
            self._transport,
            self._writable,
            self._server.default_headers,
            self._on_answered,
        )
        task = self._loop.create_task(self._exchange.run(self.application))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def _on_answered(self, keeps_alive: bool) -> None:
        self._exchange = None
        self._server.total_requests += 1
        if self._transport.is_closing():
            return
        if not keeps_alive:
            return self._close()
        if self._writable.is_set():
            self._deadline.set(IDLE_S, self._close)
        self._go_on()
        if self._last_words is not None and not self._is_answering():
            self._respond_last(self._last_words)

    def _is_answering(self) -> bool:
        return self._exchange is not None or bool(self._complete)

    def _refuse(self, response: HttpResponse) -> None:
        """Respond before the request is complete, and close."""
        if self._is_refused:
            return
        self._is_refused = True
        self._part = ""
        if self._is_answering():
            self._last_words = response
        else:
            self._respond_last(response)

    def _respond_last(self, response: HttpResponse) -> None:
        self._pause(False)
        self._transport.write(refusals.as_bytes(response))
        # If it were closed at once, data that still arrives would reset it before the client has
        # read the response.
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()
        self._deadline.set(LINGER_S, self._transport.abort)

    def _scope(self, request: Request) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.version,
            "method": request.method,
            "scheme": "https" if self._transport.get_extra_info("sslcontext") else "http",
            "path": request.path,
            "raw_path": request.raw_path,
            "root_path": "",
            "query_string": request.query,
            # as Daphne does: a header with an underscore could be taken for another one
            "headers": [header for header in request.headers if b"_" not in header[0]],
            "client": _address(self._transport, "peername"),
            "server": _address(self._transport, "sockname"),
        }

    def _become_socket(self, request: Request) -> None:
        self._deadline.clear()
        self._server.connections.discard(self)
        socket = SocketProtocol(self._config, self._server, self.application)
        scope = {**self._scope(request), "type": "websocket", "subprotocols": []}
        scope["scheme"] = scope["scheme"].replace("http", "ws")
        self._transport.set_protocol(socket)
        self._pause(False)
        socket.begin(self._transport, scope, self._unread)


def _is_socket(request: Request) -> bool:
    return request.header(b"upgrade").lower() == b"websocket"


def _address(transport: asyncio.Transport, name: str) -> tuple[str, int] | None:
    """Of a TCP connection; None for a Unix socket."""
    address = transport.get_extra_info(name)
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None
