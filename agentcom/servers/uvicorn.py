"""uvicorn, and what it lacks: limits on what clients send, and the hub's graceful shutdown.

The application takes over when uvicorn starts its lifespan, before it listens. So
`uvicorn agentcom.asgi:application` is all that has to be typed, and its options can make nothing
unsafe: those that could are replaced here, or refused.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from agentcom.listening import open_fault
from agentcom.servers.connection import Connection, Send
from agentcom.servers.refusals import IsKnown

# What the hub uses of uvicorn that is not documented. A later release may rename it; then the hub
# does not start.
_PARTS = {
    "server": ("config", "server_state", "should_exit"),
    "config": ("http_protocol_class", "ws_ping_interval", "ws_ping_timeout", "limit_max_requests"),
    "server_state": ("connections", "tasks", "default_headers", "total_requests"),
}
HINT = "Install the releases that requirements.txt names."
END_S = 1  # for what is still open when the server ends
# As the documented command line has them. Agents stay connected for weeks and reconnect in herds.
OPTIONS: dict[str, Any] = {"ws_ping_interval": 20, "ws_ping_timeout": 30, "backlog": 4096}


class CannotServeError(Exception):
    """Says in a sentence why."""


def serve(application: Any, host: str, port: int, on_ready: Callable[[], None]) -> None:
    """Return when the server has ended."""
    import uvicorn

    class ReadyServer(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            on_ready()

    headers = [("server", "AgentCom")]
    config = uvicorn.Config(
        application, host, port, lifespan="on", log_config=None, headers=headers, **OPTIONS
    )
    ReadyServer(config).run()


class Uvicorn:
    """Implements `running.Server`."""

    def __init__(self, application: Any, is_known: IsKnown) -> None:
        """To be called in uvicorn's lifespan. Raises `CannotServeError`."""
        from agentcom.servers.uvicorn_http import HttpProtocol

        self._server = _running_server()
        _refuse_options(self._server.config)
        if open_to_others := open_fault(self.addresses()):
            raise CannotServeError(open_to_others)

        class BoundedHttp(HttpProtocol):
            pass

        BoundedHttp.application = staticmethod(application)
        BoundedHttp.is_known = staticmethod(is_known)
        self._server.config.http_protocol_class = BoundedHttp
        self._server.config.timeout_graceful_shutdown = END_S

    def connection(self, send: Send) -> Connection:
        from agentcom.servers.uvicorn_sockets import uvicorn_connection

        return uvicorn_connection(send)

    def addresses(self) -> list[str]:
        """It does not listen yet when the hub asks."""
        config = self._server.config
        if config.uds is not None:
            return []
        if config.fd is None:
            return [config.host]
        with socket.socket(fileno=os.dup(config.fd)) as inherited:
            return [inherited.getsockname()[0]] if inherited.family != socket.AF_UNIX else []

    def stop_listening(self) -> None:
        for listener in self._server.servers:
            listener.close()

    def end(self) -> None:
        self._server.should_exit = True


def _running_server() -> Any:
    """uvicorn tells nobody its server, but that is what handles the signals."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    library = sys.modules.get("uvicorn.server")
    if library is None or not isinstance(server, library.Server):
        raise CannotServeError("The hub runs under Daphne or uvicorn, in the main thread.")
    if missing := fault(server):
        raise CannotServeError(f"{missing} {HINT}")
    return server


def fault(server: Any) -> str | None:
    """What is missing, in a sentence."""
    owners = {"server": server, "config": server.config, "server_state": server.server_state}
    missing = [
        f"{owner}.{name}"
        for owner, names in _PARTS.items()
        for name in names
        if not hasattr(owners[owner], name)
    ]
    return f"This release of uvicorn lacks {', '.join(missing)}." if missing else None


def _refuse_options(config: Any) -> None:
    """Those that would end or change the process behind the hub's back."""
    if config.limit_max_requests is not None:
        raise CannotServeError("--limit-max-requests would end the hub without a graceful stop.")
    if config.root_path:
        raise CannotServeError("Set AGENTCOM_PATH_PREFIX instead of --root-path.")
