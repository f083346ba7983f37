"""A program that receives webhooks: a real HTTP server, which the test tells what to answer."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

from lab.kit.sockets import HOST

BOUND_S = 30.0


@dataclass(frozen=True, slots=True)
class Received:
    """A request; `status` is what it was answered."""

    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    at: float  # monotonic, s
    status: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        return self.json["data"]

    def verify(self, secret: str) -> Any:
        """As receivers do. Raises when the signature is wrong."""
        return Webhook(secret).verify(self.body, self.headers)


class Answering(BaseHTTPRequestHandler):
    """`answer` may be a status, or a function that writes the answer itself."""

    receiver: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.receiver.answer
        how = answer(self) if callable(answer) else answer
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = how if isinstance(how, int) else 0
        self.receiver.note(Received(self.path, headers, body, time.monotonic(), status))
        if isinstance(how, int):
            self.reply(how)

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True  # the hub has given up

    def log_message(self, *_: Any) -> None:
        pass


class Receiver:
    def __init__(self) -> None:
        self.answer: int | Callable[[Answering], int | None] = 204
        self.port = 0
        self.context: ssl.SSLContext | None = None  # with TLS
        self._received: list[Received] = []
        self._changed = threading.Condition()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/hook"

    @property
    def received(self) -> list[Received]:
        with self._changed:
            return list(self._received)

    def accepted(self) -> list[Received]:
        return [received for received in self.received if 200 <= received.status < 300]

    def note(self, received: Received) -> None:
        with self._changed:
            self._received.append(received)
            self._changed.notify_all()

    def wait(self, count: int, bound_s: float = BOUND_S) -> list[Received]:
        """Until so many requests have come."""
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self._received) >= count, bound_s)
            assert enough, f"{len(self._received)} of {count} requests"
            return list(self._received)

    def start(self) -> None:
        """On its port of before, if it had one."""
        handler = type("Handler", (Answering,), {"receiver": self, "timeout": BOUND_S})
        server = ThreadingHTTPServer((HOST, self.port), handler)
        server.daemon_threads = True
        if self.context is not None:
            server.socket = self.context.wrap_socket(server.socket, server_side=True)
        self.port = server.server_port
        self._server = server
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()


def first_ids(received: list[Received]) -> list[str]:
    """Each message once, in the order in which it first came."""
    return list(dict.fromkeys(one.id for one in received))


def assert_in_order(received: list[Received]) -> None:
    """Of each task, no event came for the first time after a later one."""
    newest: dict[str, int] = {}
    seen: set[str] = set()
    for one in received:
        if one.id in seen:
            continue
        seen.add(one.id)
        task_id, seq = one.data["task"]["id"], one.data["seq"]
        assert seq > newest.get(task_id, 0), (task_id, seq, newest[task_id])
        newest[task_id] = seq
