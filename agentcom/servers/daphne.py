"""Daphne, and what it lacks: a monotonic clock for its timers, and a graceful shutdown.

At SIGTERM, Daphne by itself aborts the requests that are being answered, and accepts connections
until it ends. So the hub handles the signal (shutdown.py), and stops Daphne when everything is
finished.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from agentcom.servers.connection import Connection, Send
from agentcom.servers.refusals import IsKnown

# Instead of Daphne's defaults: agents stay connected for weeks and reconnect in herds.
OPTIONS: dict[str, Any] = {
    "websocket_timeout": -1,
    "websocket_connect_timeout": 60,
    "websocket_handshake_timeout": 60,
    "ping_interval": 20,
    "ping_timeout": 30,
}
BACKLOG = 4096  # when a herd of agents reconnects, none should wait for TCP to retransmit


def serve(application: Any, host: str, port: int, on_ready: Callable[[], None]) -> None:
    """Return when the server has ended. `daphne.server` has been imported before the application:
    it installs Twisted's reactor."""
    from daphne.server import Server

    host = host.replace(":", r"\:")
    Server(
        application,
        endpoints=[f"tcp:port={port}:interface={host}:backlog={BACKLOG}"],
        server_name="AgentCom",
        ready_callable=on_ready,
        **OPTIONS,
    ).run()


def is_running() -> bool:
    return "daphne.server" in sys.modules


class Daphne:
    """Implements `running.Server`."""

    def __init__(self, is_known: IsKnown) -> None:
        """To be called before Daphne listens."""
        from agentcom.servers import daphne_http

        use_monotonic_clock()
        daphne_http.install(is_known)

    def connection(self, send: Send) -> Connection:
        from agentcom.servers.daphne_sockets import daphne_connection

        return daphne_connection(send)

    def call_soon(self, call: Callable[[], None]) -> None:
        """Call it on the event loop once the loop runs; Daphne has no hook for this."""
        from twisted.internet import reactor

        reactor.callLater(0, call)

    def addresses(self) -> list[str]:
        places = [port.getHost() for port in _listening_ports()]
        return [place.host for place in places if hasattr(place, "host")]

    def stop_listening(self) -> None:
        for port in _listening_ports():
            port.stopListening()

    def end(self) -> None:
        from twisted.internet import reactor
        from twisted.internet.error import ReactorNotRunning

        with contextlib.suppress(ReactorNotRunning):
            reactor.stop()


def _listening_ports() -> list[Any]:
    from twisted.internet import reactor
    from twisted.internet.interfaces import IListeningPort

    return [reader for reader in reactor.getReaders() if IListeningPort.providedBy(reader)]


def use_monotonic_clock() -> None:
    """Make Twisted's timers and Daphne's timeouts use a monotonic clock.

    Both use the time of day. If it is set back, no socket is pinged until it has caught up; if it
    is set forward, connections in their handshake are dropped. To be called before Daphne listens,
    so that no timer is running yet.
    """
    import daphne.http_protocol
    import daphne.server
    import daphne.ws_protocol
    from twisted.internet import reactor

    steady = SimpleNamespace(time=time.monotonic)  # they use nothing else of the time module
    for module in (daphne.http_protocol, daphne.server, daphne.ws_protocol):
        module.time = steady
    reactor.seconds = time.monotonic
