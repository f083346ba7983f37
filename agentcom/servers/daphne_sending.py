"""Sending under Daphne, at once where the socket takes it.

Twisted keeps what is written, asks the kernel to say when the socket has room, and sends it in the
next turn of the loop: for each frame and each response two more system calls and a turn. A socket
nearly always has room.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp


def send(transport: Any, data: bytes) -> None:
    """Like `transport.write`. What the socket does not take waits in the transport's buffer."""
    if _is_idle(transport):
        sent = transport.writeSomeData(data)
        if isinstance(sent, int):  # otherwise the connection is lost, which `write` will find
            data = data[sent:]
    if data:
        transport.write(data)


def _is_idle(transport: Any) -> bool:
    """Whether it is a plain socket, open, with nothing that was written earlier."""
    return (
        isinstance(transport, tcp.Connection)
        and transport.connected
        and not transport.TLS
        and not (transport.dataBuffer or transport._tempDataLen)
        and not (transport.disconnecting or transport._writeDisconnecting)
        and not transport._writeDisconnected
    )
