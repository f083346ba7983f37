"""HTTP connections under Daphne: limits on the size of a body and on the time to receive a request.

Daphne passes a request on when its body is complete, however large the body is and however long
that takes. So this extends what Daphne builds on: Twisted's channel, one for each connection.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterable
from typing import Any

from daphne import http_protocol
from django.http import HttpResponse
from twisted.web import http

from agentcom.servers import daphne_insides, refusals
from agentcom.servers.daphne_sending import send
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
from agentcom.servers.refusals import IsKnown

logger = logging.getLogger(__name__)


def install(is_known: IsKnown) -> None:
    """Apply the limits to all new connections. To be called after Daphne is imported."""
    if missing := daphne_insides.fault():
        logger.error("%s %s", missing, daphne_insides.HINT)
        return
    BoundedChannel.is_known = staticmethod(is_known)
    http_protocol.WebRequest = BoundedRequest
    # Twisted formats a line for each request, and nobody reads them: Daphne has its own log.
    http_protocol.HTTPFactory.log = lambda factory, request: None
    http_protocol.HTTPFactory.protocol = staticmethod(
        lambda: http._GenericHTTPChannelProtocol(BoundedChannel())
    )


class BoundedRequest(http_protocol.WebRequest):
    def gotLength(self, length: int | None) -> None:
        self.content = io.BytesIO()  # in memory rather than in a file, because its size is limited
        # Twisted would parse every form for its own `args`, which nobody uses, and answer one that
        # it cannot parse by itself. To see whether it is a form it parses the content type of any
        # POST as that of an e-mail, which takes a tenth of the time of a submit.
        self._parsePOSTFormSubmission = False

    def basic_error(self, status: int, status_text: bytes, body: str) -> None:
        """Daphne's own errors, which are HTML there."""
        response = refusals.bad_request(body) if status < 500 else refusals.failed(status)
        headers = [(name.encode(), value.encode()) for name, value in response.items()]
        self.handle_reply({"type": "http.response.start", "status": status, "headers": headers})
        self.handle_reply({"type": "http.response.body", "body": response.content})


class BoundedChannel(http.HTTPChannel):
    """The names in camel case are Twisted's."""

    is_known: Any
    totalHeadersSize = MAX_HEAD

    _part = ""  # of a request that is being received: "head", "body", or "" between requests
    _body_s = 0.0  # the deadline of a body that began with the data now being read
    _head = b""  # of a response, not sent yet
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

    def lineReceived(self, line: bytes) -> None:
        if not self._is_refused:
            super().lineReceived(line)

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
        if self._head:  # of a response without a body
            self.write(b"")
        self._savedTimeOut = IDLE_S
        super().requestDone(request)
        if not self.persistent:  # it closes once the client has read the response
            self._abortingCall = self.callLater(IDLE_S + self.abortTimeout, self.forceAbortClient)

    def timeoutConnection(self) -> None:
        if self._is_refused:
            self.transport.abortConnection()
        elif self._part:
            self._refuse(refusals.too_slow())
        else:
            super().timeoutConnection()

    def _time_body(self, size: int) -> None:
        self._part = "body"
        self._body_s = BODY_S + size / SLOWEST

    # --- Responses: the head is sent with what follows it

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Any) -> None:
        lines = [b"%b %b %b\r\n" % (version, code, reason)]
        for name, values in headers.getAllRawHeaders():
            lines += [b"%b: %b\r\n" % (name, value) for value in values]
        self._head = b"".join((*lines, b"\r\n"))

    def write(self, data: bytes) -> None:
        head, self._head = self._head, b""
        send(self.transport, head + data)

    def writeSequence(self, parts: Iterable[bytes]) -> None:
        self.write(b"".join(parts))

    # --- What cannot be parsed

    def lineLengthExceeded(self, line: bytes) -> None:
        self._refuse(refusals.head_too_large())

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Twisted's own answer has no body."""
        is_large = (
            self._receivedHeaderSize > self.totalHeadersSize
            or self._receivedHeaderCount > self.maxHeaders
        )
        self._refuse(refusals.head_too_large() if is_large else refusals.bad_request())

    # --- Bodies

    def allHeadersReceived(self) -> None:
        size = self.length  # None: chunked
        if refusal := refusals.body_refusal(size or 0, any(self._credentials())):
            return self._refuse(refusal)
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
        if self._is_admitted and kept <= MAX_BODY:
            return
        if refusal := refusals.body_refusal(kept, any(self._credentials())):
            self._refuse(refusal)
        elif kept > FREE_BODY and self._asking is None:
            self._ask()

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
        refusal = await refusals.caller_refusal(self.is_known, *self._credentials())
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
        self.transport.write(refusals.as_bytes(response))
        # If it were closed at once, data that still arrives would reset it before the client has
        # read the response.
        self._networkProducer.unregisterProducer()
        end: Any = getattr(self.transport, "loseWriteConnection", self.transport.loseConnection)
        end()
        self.setTimeout(LINGER_S)
