"""The undocumented parts of Daphne, Twisted and autobahn that daphne_*.py use.

A later release may rename them. Then nothing fails, but what clients send is no longer bounded. So
each start checks for them and logs what is missing.
"""

from __future__ import annotations

from autobahn.twisted.websocket import WebSocketServerProtocol
from daphne import http_protocol
from twisted.internet import tcp
from twisted.web import http

METHODS: dict[type, tuple[str, ...]] = {
    http.HTTPChannel: (
        *("dataReceived", "rawDataReceived", "allHeadersReceived", "allContentReceived"),
        *("requestDone", "timeoutConnection", "setTimeout", "resetTimeout", "forceAbortClient"),
        *("callLater", "_savedTimeOut", "_abortingCall", "_waitingForTransport", "_buffer"),
        *("lineReceived", "lineLengthExceeded", "_respondToBadRequestAndDisconnect"),
        *("writeHeaders", "write", "writeSequence"),
        *("totalHeadersSize", "maxHeaders", "_receivedHeaderSize", "_receivedHeaderCount"),
    ),
    http_protocol.WebRequest: ("gotLength", "basic_error", "handle_reply"),
    http_protocol.HTTPFactory: ("protocol", "log"),
    tcp.Server: (
        *("writeSomeData", "dataBuffer", "connected", "TLS", "disconnecting"),
        *("_writeDisconnecting", "_writeDisconnected"),
    ),
    WebSocketServerProtocol: (
        *("consumeData", "processData", "onMessage", "onPing", "sendPong", "onAutoPingTimeout"),
        *("registerProducer", "unregisterProducer", "sendCloseFrame"),
        *("STATE_CLOSED", "STATE_CONNECTING"),
    ),
}
# Of autobahn, for each connection.
OPTIONS = ("maxFramePayloadSize", "maxMessagePayloadSize", "failByDrop", "closeHandshakeTimeout")
HINT = "Install the releases that requirements.txt names."


def fault() -> str | None:
    """What is missing, in a sentence."""
    missing = [
        f"{owner.__name__}.{name}"
        for owner, names in METHODS.items()
        for name in names
        if not hasattr(owner, name)
    ]
    known = getattr(WebSocketServerProtocol, "CONFIG_ATTRS_COMMON", ())
    missing += [f"WebSocketServerProtocol.{name}" for name in OPTIONS if name not in known]
    if not missing:
        return None
    return (
        f"This release of Daphne, Twisted or autobahn lacks {', '.join(missing)}: "
        "what clients send may not be bounded."
    )
