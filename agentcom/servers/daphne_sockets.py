"""The connections of sockets under Daphne, which builds on autobahn and Twisted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from functools import cache
from typing import Any

from autobahn.exception import Disconnected

from agentcom.servers.connection import Backlog, Connection, Send, Waiting
from agentcom.servers.daphne_sending import send
from agentcom.servers.frames import text_frame
from agentcom.servers.limits import CLOSE_TIMEOUT_S, MAX_FRAME

logger = logging.getLogger(__name__)

# autobahn's states of a protocol that is closed, of one whose handshake is not complete, and of one
# that is open
_STATE_CLOSED, _STATE_CONNECTING, _STATE_OPEN = 0, 1, 3
# Of one socket, before the other connections get their turn: steps of the parser, two a frame.
PARSER_STEPS = 64


class Intake:
    """Bounds the number of frames that a client has sent and that are not handled yet.

    By itself, autobahn parses all received data at once, and Daphne queues each frame for the
    consumer. Here it parses a few frames and then yields to the event loop. While many frames wait,
    the transport is paused, so that the client's own buffers fill up.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._waiting = Waiting(self._continue_soon)
        self._is_paused = False  # the transport
        self._is_scheduled = False  # to parse on in the next iteration of the loop
        self._queue = protocol.onMessage
        self.handled = self._waiting.handled
        protocol.onMessage = self._on_message
        protocol.consumeData = self._on_data
        protocol.onAutoPingTimeout = self._on_missed_pong

    def _on_message(self, payload: bytes, is_binary: bool) -> None:
        self._waiting.add(len(payload))
        self._queue(payload, is_binary)

    def _on_data(self) -> None:
        """Called for new data, and after the handshake."""
        is_connecting = self._protocol.state == _STATE_CONNECTING
        if self._waiting.is_full or self._is_scheduled or is_connecting:
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
            if self._waiting.is_full:
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


class DaphneConnection(Connection):
    """Disconnects a client that has stopped reading, so that memory stays bounded and other
    clients are not affected.

    Daphne writes whatever it gets into the transport's buffer. Twisted notifies a registered
    producer when that buffer is full and when it has drained; what is sent in between is counted.
    The names of the last three methods are Twisted's.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._backlog = Backlog()
        self._intake = Intake(protocol)
        protocol.onPing = self._answer_ping
        protocol.maxMessagePayloadSize = protocol.maxFramePayloadSize = MAX_FRAME
        protocol.failByDrop = False  # send a close frame with code 1009 first
        protocol.closeHandshakeTimeout = CLOSE_TIMEOUT_S
        protocol.unregisterProducer()  # the producer of the upgraded HTTP request
        protocol.registerProducer(self, True)

    def _answer_ping(self, payload: bytes) -> None:
        """Pongs take memory too if the client does not read them."""
        if self.allows(len(payload)):
            self._protocol.sendPong(payload)

    @property
    def is_behind(self) -> bool:
        return self._backlog.is_behind

    def allows(self, size: int) -> bool:
        if self._backlog.allows(size):
            return True
        self._protocol.transport.abortConnection()
        return False

    def handled(self) -> bool:
        return self._intake.handled()

    def write(self, payload: bytes) -> bool:
        """The server's own way takes ten times as long: for each frame of each socket autobahn
        formats what it would log."""
        protocol = self._protocol
        if protocol.state != _STATE_OPEN or protocol.send_queue:
            return False
        send(protocol.transport, text_frame(payload))
        return True

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """autobahn applies the size limit to both directions, so it is lifted while sending.

        Daphne sends without waiting, so no frame is received in the meantime.
        """
        self._protocol.maxMessagePayloadSize = 0
        try:
            # the client may have just disconnected; then `gone` is about to be called
            with contextlib.suppress(Disconnected):
                yield
        finally:
            self._protocol.maxMessagePayloadSize = MAX_FRAME

    def release(self) -> None:
        """Twisted waits for a paused producer, perhaps forever."""
        self._protocol.unregisterProducer()

    def close(self, code: int, reason: str | None) -> bool:
        """autobahn's `close` refuses the protocol's own codes."""
        if not 1000 < code < 3000:
            return False
        self._protocol.sendCloseFrame(code, reason.encode() if reason else None)
        return True

    def pauseProducing(self) -> None:
        self._backlog.begin()

    def resumeProducing(self) -> None:
        self._backlog.end()

    def stopProducing(self) -> None:
        self._backlog.end()


def daphne_connection(reply: Send) -> Connection:
    # Daphne hands over `partial(server.handle_reply, protocol)`
    protocol = next(iter(getattr(reply, "args", ())), None)
    if protocol is None:
        _log_unbounded()
        return Connection()
    return DaphneConnection(protocol)


@cache  # once is enough
def _log_unbounded() -> None:
    logger.error(
        "This release of Daphne hides the connections of sockets: what clients send and do not "
        "read is not bounded. Install the releases that requirements.txt names."
    )
