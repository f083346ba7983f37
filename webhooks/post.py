"""One HTTP request of a webhook: to a checked address, within a time, with a bounded answer.

No redirect is followed and no proxy of the environment is used, so nothing but the address that
was checked is ever connected to.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http.client import HTTPException
from typing import Any
from urllib.parse import SplitResult, urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from agentcom import __version__
from agentcom.texts import cut, plain
from agentcom.wire import sanitized
from webhooks.addresses import NotAllowed, resolve

ANSWER_MAX = 1024  # bytes of an answer that are kept; more are not read
ANSWER_S = 1.0  # for these bytes, once the answer's head is there: the status decides
ERROR_MAX = 300  # characters
GONE = 410
ASK_TO_WAIT = (429, 503)  # with a Retry-After


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request."""

    duration_ms: int
    status_code: int | None = None  # None: there was no answer, and `error` says why
    text: str = ""  # the beginning of the answer's body
    error: str = ""
    retry_after_s: float | None = None

    @property
    def is_success(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300

    @property
    def is_gone(self) -> bool:
        return self.status_code == GONE


def post(
    url: str,
    headers: dict[str, str],
    body: bytes,
    *,
    timeout_s: float,
    allow_private: bool,
) -> Answer:
    """Send it. `timeout_s` is for everything from connecting on; looking up the name takes as long
    as the system's resolver does. Raises nothing that a receiver can cause."""
    began = time.monotonic()
    parts = urlsplit(url)
    try:
        addresses = resolve(parts, allow_private=allow_private)
        with _Exchange(parts, time.monotonic() + timeout_s) as exchange:
            status, text, asked = exchange.run(addresses, headers, body)
    except (NotAllowed, OSError, HTTPError, HTTPException, ValueError) as error:
        # it may quote what the receiver has sent, which may be nothing that can be stored
        sentence = str(sanitized(plain(_sentence(error, timeout_s))))
        return Answer(_since(began), error=cut(sentence, ERROR_MAX))
    answer_error = "" if 200 <= status < 300 else _complaint(status)
    retry_after_s = _seconds(asked) if status in ASK_TO_WAIT else None
    return Answer(_since(began), status, text, answer_error, retry_after_s)


class TookTooLong(OSError):
    pass


class _Exchange:
    """One connection with a deadline (monotonic, s). A receiver that sends a byte each second never
    lets a read time out, so the socket is shut at the deadline from another thread."""

    def __init__(self, parts: SplitResult, deadline: float) -> None:
        self._parts = parts
        self._deadline = deadline
        self._connection: HTTPConnection | None = None
        # of the connection's socket; http.client closes its own once the answer's head is there
        self._handle: socket.socket | None = None
        self._is_over = False
        self._timer: threading.Timer | None = None

    def __enter__(self) -> _Exchange:
        self._shut_at(self._deadline)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is not None:
            self._connection.close()
        if self._handle is not None:
            self._handle.close()

    def run(
        self, addresses: list[tuple[str, int]], headers: dict[str, str], body: bytes
    ) -> tuple[int, str, str]:
        """Give the status, the beginning of the answer and its Retry-After."""
        try:
            connection = self._connect(addresses)
            connection.request(
                "POST", self._target(), body, self._headers(headers), preload_content=False
            )
            response: Any = connection.getresponse()
            if self._is_over:  # for http.client the end of a connection also ends a head
                raise TookTooLong
            return response.status, self._beginning(response), response.headers.get("Retry-After")
        except (OSError, HTTPError, HTTPException, ValueError):
            if self._is_over:
                raise TookTooLong from None
            raise

    def _connect(self, addresses: list[tuple[str, int]]) -> HTTPConnection:
        """To the first address that accepts a connection; each has its share of the time."""
        for left, (address, port) in zip(range(len(addresses), 0, -1), addresses, strict=True):
            share = max(0.01, self._left() / left)
            self._connection = connection = self._made_for(address, port, share)
            try:
                connection.connect()
                break
            except (NewConnectionError, ConnectTimeoutError):
                if left == 1 or self._is_over:
                    raise
        assert connection.sock is not None
        self._handle = socket.socket(fileno=os.dup(connection.sock.fileno()))
        connection.sock.settimeout(max(0.01, self._left()))
        if self._is_over:
            raise TookTooLong
        return connection

    def _made_for(self, address: str, port: int, timeout_s: float) -> HTTPConnection:
        if self._parts.scheme == "http":
            return HTTPConnection(address, port, timeout=timeout_s)
        return HTTPSConnection(
            address,
            port,
            timeout=timeout_s,
            server_hostname=self._parts.hostname,  # the name that the certificate must have
            ssl_context=tls(),
        )

    def _target(self) -> str:
        query = f"?{self._parts.query}" if self._parts.query else ""
        return (self._parts.path or "/") + query

    def _headers(self, headers: dict[str, str]) -> dict[str, str]:
        return {
            "Host": self._parts.netloc,
            "User-Agent": f"AgentCom/{__version__}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **headers,
        }

    def _beginning(self, response: Any) -> str:
        """Whatever comes in time; the status is known, so a broken body is no error."""
        self._shut_at(min(self._deadline, time.monotonic() + ANSWER_S))
        found = b""
        with contextlib.suppress(OSError, HTTPError, HTTPException, ValueError):
            while len(found) < ANSWER_MAX:
                part = response.read1(ANSWER_MAX - len(found), decode_content=False)
                if not part:
                    break
                found += part
        return str(sanitized(found[:ANSWER_MAX].decode(errors="replace")))

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _shut_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(max(0.0, at - time.monotonic()), self._shut)
        self._timer.daemon = True
        self._timer.start()

    def _shut(self) -> None:
        """Whoever reads or writes finds the connection ended."""
        self._is_over = True
        connection = self._connection
        sock = self._handle or (connection.sock if connection is not None else None)
        if sock is not None:
            with contextlib.suppress(OSError):
                # of the class itself: that of an SSL socket takes its state away from the reader
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


@cache
def tls() -> ssl.SSLContext:
    """The authorities of the system, or those of SSL_CERT_FILE."""
    return ssl.create_default_context()


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _complaint(status: int) -> str:
    if 300 <= status < 400:
        return f"answered {status}; redirects are not followed"
    return f"answered {status}"


def _sentence(error: Exception, timeout_s: float) -> str:
    """What went wrong, without objects' addresses."""
    match error:
        case NotAllowed():
            return str(error)
        case socket.gaierror():
            return f"the host's name is unknown: {error.strerror}"
        case NewConnectionError():  # before the timeouts, of which it is one for urllib3
            cause = error.__cause__
            return f"no connection: {cause.strerror if isinstance(cause, OSError) else cause}"
        case TookTooLong() | TimeoutError() | ConnectTimeoutError():
            return f"no answer within {timeout_s:g} s"
        case ssl.SSLCertVerificationError():
            return f"the certificate is not accepted: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS failed: {error.reason}"
    return f"the connection broke: {error}"


def _seconds(asked: str | None) -> float | None:
    """Of a Retry-After: a number of seconds, or a date (RFC 9110, 10.2.3)."""
    if not asked:
        return None
    try:
        if asked.strip().isdecimal():
            return float(asked)
        seconds = (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
