"""One request, to real servers on loopback: good ones, slow ones and broken ones."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from agentcom.wire import fault
from lab.kit.sockets import HOST
from tests.webhooks.receiver import Answering, Receiver
from webhooks import post as posting
from webhooks.addresses import resolve as resolve_really
from webhooks.post import ANSWER_MAX, Answer, post

pytestmark = pytest.mark.sqlite_only

HEADERS = {"webhook-id": "msg_1"}


def send(url: str, timeout_s: float = 5, *, allow_private: bool = True) -> Answer:
    return post(url, HEADERS, b"{}", timeout_s=timeout_s, allow_private=allow_private)


def test_a_request_as_it_arrives(receiver: Receiver):
    receiver.answer = lambda request: request.reply(200, b"thank you")
    answer = send(f"{receiver.url}/path?query=1")
    assert (answer.status_code, answer.text, answer.error) == (200, "thank you", "")
    [received] = receiver.wait(1)
    assert received.path == "/hook/path?query=1"
    assert received.body == b"{}"
    assert received.headers["host"] == f"{HOST}:{receiver.port}"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["webhook-id"] == "msg_1"
    assert received.headers["user-agent"].startswith("AgentCom/")


@pytest.mark.parametrize(("status", "is_success"), [(200, True), (299, True), (400, False)])
def test_any_2xx_is_success(receiver: Receiver, status: int, is_success: bool):
    receiver.answer = status
    assert send(receiver.url).is_success == is_success


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(receiver: Receiver, status: int):
    receiver.answer = lambda request: request.reply(status, Location=receiver.url)
    answer = send(receiver.url)
    assert not answer.is_success
    assert "redirects are not followed" in answer.error
    assert len(receiver.wait(1)) == 1


def test_the_beginning_of_a_long_answer(receiver: Receiver):
    receiver.answer = lambda request: request.reply(500, b"x" * 5_000_000)
    answer = send(receiver.url)
    assert answer.text == "x" * ANSWER_MAX


def test_an_answer_that_no_database_can_hold(receiver: Receiver):
    receiver.answer = lambda request: request.reply(500, b"a\0\xff\xedb")
    text = send(receiver.url).text
    assert "\0" not in text
    assert text[0] == "a"


@pytest.mark.parametrize(
    ("status", "asked", "seconds"),
    [
        (429, "7", 7.0),
        (503, "120", 120.0),
        (500, "7", None),
        (429, "soon", None),
        (503, "-1", None),
    ],
)
def test_retry_after(receiver: Receiver, status: int, asked: str, seconds: float | None):
    receiver.answer = lambda request: request.reply(status, Retry_After=asked)
    assert send(receiver.url).retry_after_s == seconds


def test_retry_after_as_a_date(receiver: Receiver):
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    receiver.answer = lambda request: request.reply(503, Retry_After=later)
    asked = send(receiver.url).retry_after_s
    assert asked is not None
    assert 90 < asked <= 100


def drip_head(request: Answering) -> None:
    drip(request, b"HTTP/1.1 200 OK\r\nX-Filler: " + b"x" * 100)


def drip_headers(request: Answering) -> None:
    """The status is there in time, the end of the head is not."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    drip(request, b"X-Filler: " + b"x" * 100)


def drip(request: Answering, whole: bytes) -> None:
    for byte in whole:
        request.wfile.write(bytes([byte]))
        request.wfile.flush()
        time.sleep(0.05)


def say_nothing(request: Answering) -> None:
    time.sleep(3)


@pytest.mark.parametrize("answer", [drip_head, drip_headers, say_nothing])
def test_a_receiver_that_drips_is_not_waited_for(
    receiver: Receiver, answer: Callable[[Answering], None]
):
    """Each byte comes in time, the answer never does."""
    receiver.answer = answer
    began = time.monotonic()
    found = send(receiver.url, timeout_s=0.5)
    assert time.monotonic() - began < 1.0
    assert (found.status_code, found.error) == (None, "no answer within 0.5 s")


def test_a_body_that_drips_after_a_good_head_is_delivered(receiver: Receiver):
    receiver.answer = lambda request: drip(
        request, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 200
    )
    found = send(receiver.url, timeout_s=5)
    assert found.is_success
    assert 0 < len(found.text) < 200
    assert found.duration_ms < 4500


def test_nobody_listens(receiver: Receiver):
    receiver.stop()
    found = send(receiver.url)
    assert (found.status_code, found.error) == (None, "no connection: Connection refused")


def test_a_name_that_is_unknown():
    found = send("http://nowhere.invalid/")
    assert found.status_code is None
    assert found.error.startswith("the host's name is unknown")


def test_a_private_address_is_not_connected_to(receiver: Receiver):
    found = send(receiver.url, allow_private=False)
    assert "not a public address" in found.error
    time.sleep(0.05)
    assert receiver.received == []


def answered_with(said: bytes) -> Answer:
    with socket.create_server((HOST, 0)) as server:

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1024)
                client.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        return send(f"http://{HOST}:{server.getsockname()[1]}/")


def test_a_header_that_is_none_is_no_line_in_the_log(caplog: pytest.LogCaptureFixture):
    found = answered_with(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-F\r\n\r\n")
    assert found.is_success
    assert not caplog.records


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 2", b"\x16\x03\x01\0\0\r\n"])
def test_what_is_no_http(said: bytes):
    found = answered_with(said)
    assert found.status_code is None
    assert found.error
    assert fault(found.error) is None  # it can be stored


def test_proxies_of_the_environment_are_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert send(receiver.url).is_success


def test_the_second_address_is_tried_when_the_first_does_not_answer(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        posting, "resolve", lambda *_, **__: [("127.0.0.2", receiver.port), (HOST, receiver.port)]
    )
    assert send(receiver.url).is_success


def test_the_name_is_asked_for_once(receiver: Receiver, monkeypatch: pytest.MonkeyPatch):
    """Another answer to a second question would not have been checked."""
    asked = []
    really = socket.getaddrinfo

    def count(host: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        return really(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", count)
    assert send(f"http://localhost:{receiver.port}/").is_success
    assert asked.count("localhost") == 1
    assert set(asked) <= {"localhost", "127.0.0.1", "::1"}


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of receiver.example, signed by itself; with its key."""
    folder = tmp_path_factory.mktemp("tls")
    file = folder / "receiver.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=receiver.example"),
            *("-addext", "subjectAltName=DNS:receiver.example"),
            *("-keyout", str(file), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + (folder / "cert.pem").read_text())
    return file


@pytest.fixture
def secure(receiver: Receiver, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A receiver with TLS; its name leads to loopback."""
    receiver.stop()
    receiver.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    receiver.context.load_cert_chain(certificate)
    receiver.start()
    here = [(HOST, receiver.port)]
    monkeypatch.setattr(posting, "resolve", lambda *_, **__: here)
    return f"https://receiver.example:{receiver.port}/hook"


def trust(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    context = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(posting, "tls", lambda: context)


def test_the_certificate_is_that_of_the_name_not_of_the_address(
    secure: str, receiver: Receiver, certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    trust(monkeypatch, certificate)
    assert send(secure).is_success
    assert receiver.received[0].headers["host"] == f"receiver.example:{receiver.port}"


def test_a_certificate_of_another_name_is_refused(
    secure: str, receiver: Receiver, certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    trust(monkeypatch, certificate)
    found = send(secure.replace("receiver.example", "other.example"))
    assert found.status_code is None
    assert "certificate is not accepted" in found.error
    assert receiver.received == []


def test_a_certificate_that_nobody_vouches_for_is_refused(secure: str, receiver: Receiver):
    found = send(secure)
    assert "certificate is not accepted" in found.error
    assert receiver.received == []


def test_a_tls_answer_that_drips_is_not_waited_for(
    secure: str, receiver: Receiver, certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    trust(monkeypatch, certificate)
    receiver.answer = drip_head
    assert send(secure, timeout_s=0.5).error == "no answer within 0.5 s"


def test_a_handshake_that_never_ends(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server((HOST, 0)) as server:
        began = time.monotonic()
        found = send(f"https://localhost:{server.getsockname()[1]}/", timeout_s=0.5)
    assert time.monotonic() - began < 1.5
    assert found.error == "no answer within 0.5 s"


def test_the_address_is_resolved_as_the_system_does():
    assert (HOST, 80) in resolve_really(urlsplit("http://localhost/"), allow_private=True)
