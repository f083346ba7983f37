"""The wire that tests and torture cut."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from lab.harness.proxy import Proxy
from lab.kit.sockets import HOST


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1_000):
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Server((HOST, 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Proxy(HOST, server.server_address[1]) as proxy:
            yield proxy
        server.shutdown()


def connect(proxy: Proxy, timeout_s: float = 10) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout_s)


def echoes(wire: socket.socket) -> bool:
    wire.sendall(b"hello")
    return wire.recv(100) == b"hello"


def broken(wire: socket.socket) -> bool:
    try:
        return wire.recv(100) == b""
    except ConnectionResetError:
        return True


def test_passes_bytes_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as wire:
        assert echoes(wire)


def test_breaks_connections_and_welcomes_new_ones(proxy: Proxy) -> None:
    with connect(proxy) as wire, connect(proxy) as after:
        assert echoes(wire)
        assert echoes(after)
        proxy.cut()
        assert broken(wire)
        assert broken(after)
    with connect(proxy) as wire:
        assert echoes(wire)


def test_refuses_until_it_is_restored_on_the_same_port(proxy: Proxy) -> None:
    with connect(proxy) as wire:
        assert echoes(wire)
        proxy.refuse()
        assert broken(wire)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.restore()
    with connect(proxy) as wire:
        assert echoes(wire)


def test_a_stalled_wire_delivers_once_it_is_restored(proxy: Proxy) -> None:
    with connect(proxy) as wire:
        assert echoes(wire)
        proxy.stall()
        wire.sendall(b"later")
        wire.settimeout(0.2)
        with pytest.raises(TimeoutError):
            wire.recv(100)
        proxy.restore()
        wire.settimeout(10)
        assert wire.recv(100) == b"later"


def test_ends_the_far_side_with_the_near_one(proxy: Proxy) -> None:
    with connect(proxy) as wire:
        assert echoes(wire)
        wire.shutdown(socket.SHUT_WR)
        assert broken(wire)


def test_a_url_leads_through_it(proxy: Proxy) -> None:
    through = proxy.through("postgres://me:secret@db.example:5432/fleet?x=1")
    assert through == f"postgres://me:secret@127.0.0.1:{proxy.port}/fleet?x=1"
