"""A proxy before the hub that changes what browsers ask, as proxies of the field do."""

from __future__ import annotations

import re
import socket
import socketserver
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread

from lab.kit.sockets import HOST

CHUNK = 65_536

Rewrite = Callable[[bytes], bytes]


def without_upgrade(request: bytes) -> bytes:
    return request.replace(b"\nUpgrade: websocket", b"\nX-Upgrade: websocket")


def without_port(request: bytes) -> bytes:
    """As nginx does with `proxy_set_header Host $host`."""
    return re.sub(rb"\nHost: ([^:\r]+):\d+", rb"\nHost: \1", request)


def without_prefix(request: bytes) -> bytes:
    method, space, rest = request.partition(b" ")
    return method + space + rest.removeprefix(b"/agentcom")


class Proxy:
    """`rewrite` gets each request from its first line on; it may be exchanged at any time."""

    def __init__(self, port: int, rewrite: Rewrite) -> None:
        self.port, self.rewrite = port, rewrite
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection((HOST, proxy.port)) as hub, suppress(OSError):
                    answers = Thread(target=pump, args=(hub, self.request), daemon=True)
                    answers.start()
                    while data := self.request.recv(CHUNK):
                        hub.sendall(proxy.rewrite(data))

        self.server = socketserver.ThreadingTCPServer((HOST, 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://{HOST}:{self.server.server_address[1]}"

    @classmethod
    @contextmanager
    def before(cls, port: int, rewrite: Rewrite) -> Iterator[Proxy]:
        proxy = cls(port, rewrite)
        serving = Thread(target=proxy.server.serve_forever)
        serving.start()
        try:
            yield proxy
        finally:
            proxy.server.shutdown()
            serving.join()
            proxy.server.socket.close()


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)
