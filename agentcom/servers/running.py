"""Which server runs this process. There is one at most, for as long as the process lives."""

from __future__ import annotations

from typing import Protocol

from agentcom.servers.connection import Connection, Send


class Server(Protocol):
    """What the hub asks of the server that runs it."""

    def connection(self, send: Send) -> Connection:
        """The connection of the socket that this `send` of ASGI belongs to."""
        ...

    def addresses(self) -> list[str]:
        """Where it listens: IP addresses or names, without sockets of the file system."""
        ...

    def stop_listening(self) -> None:
        """Refuse new connections, so that a load balancer uses another process."""
        ...

    def end(self) -> None:
        """Leave the event loop, whatever is still open."""
        ...


server: Server | None = None  # None: in unit tests, or as long as it has not begun


def set_server(running: Server) -> None:
    global server
    server = running


def connection(send: Send) -> Connection:
    return server.connection(send) if server is not None else Connection()
