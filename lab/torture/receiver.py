"""A program that receives webhooks and misbehaves. It checks each message by the specification of
Standard Webhooks, without the hub's own code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lab.harness.hub import Hub
from lab.kit.sockets import HOST
from lab.torture.ledger import HOOKED, Broken

# What it hears of: the kind of the journal's entry, and the type.
TYPES = {
    "task_submitted": "task.submitted",
    "task_assigned": "task.assigned",
    "task_retried": "task.retried",
    "task_complete": "task.completed",
    "task_dead_letter": "task.dead_letter",
    "task_cancelled": "task.cancelled",
}
TIMEOUT_S = 2.0  # of the hub's attempts
SETTINGS = {
    "AGENTCOM_WEBHOOK_ALLOW_PRIVATE": "true",
    "AGENTCOM_WEBHOOK_TIMEOUT_S": str(TIMEOUT_S),
    # more than any run needs: nothing is given up
    "AGENTCOM_WEBHOOK_BACKOFF_S": ",".join(["0.2", "0.4"] + ["1"] * 48),
}
# how it answers, and how often against each other
ANSWERS = {
    "accept": 60,
    "accept, and cut before saying so": 3,
    "answer 500": 8,
    "answer 429": 3,
    "redirect": 2,
    "answer late": 2,
    "drip": 2,
    "cut": 5,
}
LATE = ("answer late", "drip")


class ChaosReceiver:
    """Its server has threads of its own; the ordeal reads what they found out."""

    def __init__(self, seed: int) -> None:
        self.faults: list[Broken] = []
        self.calm = False  # from now on everything is accepted
        self.requests = 0
        self._accepted: set[int] = set()  # numbers of entries
        self._newest: dict[str, int] = {}  # number of an entry by task
        self._seen: dict[str, bytes] = {}  # body by message
        self._secret = b""
        self._chance = random.Random(f"{seed} receiver")
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._server = ThreadingHTTPServer((HOST, 0), handler)
        self._server.daemon_threads = True

    def __enter__(self) -> ChaosReceiver:
        threading.Thread(target=self._server.serve_forever, args=[0.1], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def listen_to(self, hub: Hub) -> None:
        types = [option for name in TYPES.values() for option in ("--type", name)]
        url = f"http://{HOST}:{self._server.server_port}/"
        _, secret = hub.manage("webhook", "add", url, *types).split()
        self._secret = base64.b64decode(secret.removeprefix("whsec_"))

    def accepted(self) -> list[int]:
        with self._lock:
            return sorted(self._accepted)

    def accept(self, seq: int) -> None:
        with self._lock:
            self._accepted.add(seq)

    def answer(self, headers: dict[str, str], body: bytes) -> tuple[str, int]:
        """Check and note a message. Give how it is answered, and the number of its entry."""
        with self._lock:
            self.requests += 1
            data = json.loads(body)["data"]
            task_id, seq = data["task"]["id"], data["seq"]
            if not self._is_genuine(headers, body):
                self._breaks(f"seq {seq}: the signature is wrong", task_id)
            if headers["webhook-id"] not in self._seen:
                if seq <= self._newest.get(task_id, 0):
                    text = f"seq {seq} comes after {self._newest[task_id]} for the first time"
                    self._breaks(text, task_id)
                self._newest[task_id] = max(seq, self._newest.get(task_id, 0))
            if self._seen.setdefault(headers["webhook-id"], body) != body:
                self._breaks(f"seq {seq} has another body than before", task_id)
            [how] = self._chance.choices(list(ANSWERS), list(ANSWERS.values()))
            return "accept" if self.calm else how, seq

    def _is_genuine(self, headers: dict[str, str], body: bytes) -> bool:
        signed = b".".join(
            (headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body)
        )
        mine = base64.b64encode(hmac.digest(self._secret, signed, hashlib.sha256)).decode()
        return f"v1,{mine}" in headers["webhook-signature"].split()

    def _breaks(self, evidence: str, task_id: str) -> None:
        self.faults.append(Broken(HOOKED, evidence, task_id))


class _Handler(BaseHTTPRequestHandler):
    receiver: ChaosReceiver
    timeout = 10

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        how, seq = self.receiver.answer(headers, body)
        if how == "accept":
            self.receiver.accept(seq)  # before the hub knows
        answers: dict[str, Callable[[], Any]] = {
            "accept": lambda: self._say(204),
            "answer 500": lambda: self._say(500),
            "answer 429": lambda: self._say(429, ("Retry-After", "1")),
            "redirect": lambda: self._say(307, ("Location", "/elsewhere")),
            "answer late": self._answer_late,
            "drip": self._drip,
        }
        self.close_connection = True
        if how in answers:
            answers[how]()
        if how in LATE:  # a worker that stood still meanwhile finds it in time
            self.receiver.accept(seq)

    def _say(self, status: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def _answer_late(self) -> None:
        time.sleep(TIMEOUT_S + 1)
        self._say(204)

    def _drip(self) -> None:
        for byte in b"HTTP/1.1 204 No Content\r\nX-Filler: xxxxxxxxxx":
            self.wfile.write(bytes([byte]))
            time.sleep(0.1)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True  # the hub has given up, or was killed

    def log_message(self, *_: Any) -> None:
        pass
