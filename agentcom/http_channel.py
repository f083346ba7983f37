"""HTTP connections under Daphne: limits on the size of a body and on the time to receive a request.

Daphne passes a request on when its body is complete, however large the body is and however long
that takes. So this extends what Daphne builds on: Twisted's channel, one for each connection.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from daphne import http_protocol
from django.http import HttpResponse
from rest_framework.exceptions import NotAuthenticated
from twisted.web import http

from agentcom import insides
from agentcom.api import ARRAY_LIMIT, TooLarge, error_answer, json_answer

logger = logging.getLogger(__name__)

FREE_BODY = 64 * 1024  # bytes of a body that are read from anybody; more only from known callers
MAX_BODY = ARRAY_LIMIT
IDLE_S = 60  # for a connection without a request
HEAD_S = 30  # from the first byte of a request to the end of its headers
BODY_S = 30  # for a body, plus the time that its size takes at the slowest rate
SLOWEST = 64 * 1024  # bytes a second
LINGER_S = 5  # discard what a refused client still sends, so that it can read the response

# Whether the headers `Authorization` and `Cookie` belong to a known caller. May raise
# `Unavailable`.
IsKnown = Callable[[str, str], Awaitable[bool]]


def install(is_known: IsKnown) -> None:
    """Apply the limits to all new connections. To be called after Daphne is imported."""
    if missing := insides.fault():
        logger.error("%s %s", missing, insides.HINT)
        return
    BoundedChannel.is_known = staticmethod(is_known)
    http_protocol.WebRequest = BoundedRequest
    # Twisted formats a line for each request, and nobody reads them: Daphne has its own log.
    http_protocol.HTTPFactory.log = lambda factory, request: None
    http_protocol.HTTPFactory.protocol = staticmethod(
        lambda: http._GenericHTTPChannelProtocol(BoundedChannel())
    )


class BoundedRequest(http_protocol.WebRequest):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        # Forms are parsed by Django. For any POST with a body, Twisted would parse its content type
        # as that of an e-mail, which takes a tenth of the time of a submit.
        self._parsePOSTFormSubmission = False

    def gotLength(self, length: int | None) -> None:
        self.content = io.BytesIO()  # in memory rather than in a file, because its size is limited


class BoundedChannel(http.HTTPChannel):
    """The names in camel case are Twisted's."""

    is_known: Any

    _part = ""  # of a request that is being received: "head", "body", or "" between requests
    _body_s = 0.0  # the deadline of a body that began with the data now being read
    _is_admitted = False  # the body may exceed FREE_BODY
    _is_refused = False
    _asking: asyncio.Future[None] | None = None

    # --- Deadlines

    def resetTimeout(self) -> None:
        """Not on every byte: a client that sends one now and then would never time out."""

    def dataReceived(self, data: bytes) -> None:
        if self._is_refused:
            return
        super().dataReceived(data)
        self._set_deadline()

    def _set_deadline(self) -> None:
        """For what has not arrived completely. Most requests come in one piece, and a deadline
        earlier than the one before makes Twisted search all its timers."""
        if self._is_refused:
            return
        if self._part == "body" and self._body_s:
            self.setTimeout(self._body_s)
            self._body_s = 0.0
        elif not (self._part or self._handlingRequest) and (self.requests or self._buffer):
            self._part = "head"
            self.setTimeout(HEAD_S)

    def requestDone(self, request: Any) -> None:
        self._savedTimeOut = IDLE_S
        super().requestDone(request)
        if not self.persistent:  # it closes once the client has read the response
            self._abortingCall = self.callLater(IDLE_S + self.abortTimeout, self.forceAbortClient)

    def timeoutConnection(self) -> None:
        if self._is_refused:
            self.transport.abortConnection()
        elif self._part:
            self._refuse(json_answer({"error": "request_timeout"}, 408))
        else:
            super().timeoutConnection()

    def _time_body(self, size: int) -> None:
        self._part = "body"
        self._body_s = BODY_S + size / SLOWEST

    # --- Bodies

    def allHeadersReceived(self) -> None:
        size = self.length  # None: chunked
        if size is not None and size > FREE_BODY and not any(self._credentials()):
            return self._refuse(error_answer(NotAuthenticated()))
        if size is not None and size > MAX_BODY:
            return self._refuse(error_answer(TooLarge(MAX_BODY)))
        super().allHeadersReceived()
        if size is None:
            self._time_body(FREE_BODY)
        elif size:
            self._time_body(min(size, FREE_BODY))
            if size > FREE_BODY:
                self._ask()
        return None

    def rawDataReceived(self, data: bytes) -> None:
        if self._is_refused:
            return
        super().rawDataReceived(data)
        if self._part == "body" and self.length is None:
            self._bound_chunks(self.requests[-1].content.tell())

    def _bound_chunks(self, kept: int) -> None:
        if kept > MAX_BODY:
            self._refuse(error_answer(TooLarge(MAX_BODY)))
        elif kept > FREE_BODY and not self._is_admitted and self._asking is None:
            if any(self._credentials()):
                self._ask()
            else:
                self._refuse(error_answer(NotAuthenticated()))

    def allContentReceived(self) -> None:
        self._part, self._body_s, self._is_admitted = "", 0.0, False
        super().allContentReceived()

    def connectionLost(self, reason: Any) -> None:
        self._part = ""
        super().connectionLost(reason)

    # --- Who sends it

    def _credentials(self) -> tuple[str, str]:
        headers = self.requests[-1].requestHeaders
        authorization, cookie = (
            b"; ".join(headers.getRawHeaders(name, [])) for name in (b"Authorization", b"Cookie")
        )
        return authorization.decode("latin-1"), cookie.decode("latin-1")

    def _ask(self) -> None:
        """Pause reading until the caller is known."""
        self._networkProducer.pauseProducing()
        self._asking = asyncio.ensure_future(self._admit(self.requests[-1]))

    async def _admit(self, request: Any) -> None:
        refusal: HttpResponse | None = None
        try:
            if not await self.is_known(*self._credentials()):
                refusal = error_answer(NotAuthenticated())
        except Exception as error:
            refusal = error_answer(error)
        self._asking = None
        # otherwise the request is complete, or its connection closed
        if self._part == "body" and self.requests[-1] is request:
            if refusal is None:
                self._is_admitted = True
                self.setTimeout(BODY_S + (self.length or MAX_BODY) / SLOWEST)
            else:
                self._refuse(refusal)
        if not self._waitingForTransport:
            self._networkProducer.resumeProducing()

    def _refuse(self, response: HttpResponse) -> None:
        """Respond before the request is complete, and close."""
        self._is_refused = True
        head = [
            f"HTTP/1.1 {response.status_code} {response.reason_phrase}",
            *(f"{name}: {value}" for name, value in response.items()),
            f"Content-Length: {len(response.content)}",
            "Connection: close",
        ]
        self.transport.write("\r\n".join([*head, "", ""]).encode("latin-1") + response.content)
        # If it were closed at once, data that still arrives would reset it before the client has
        # read the response.
        self._networkProducer.unregisterProducer()
        end: Any = getattr(self.transport, "loseWriteConnection", self.transport.loseConnection)
        end()
        self.setTimeout(LINGER_S)
