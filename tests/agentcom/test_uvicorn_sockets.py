"""Sockets under uvicorn: frames are parsed a few at a time, and only so much of them waits."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.task import Clock

from agentcom.servers.limits import (
    CLOSE_TIMEOUT_S,
    MAX_BACKLOG,
    MAX_FRAME,
    MAX_WAITING_BYTES,
    MAX_WAITING_FRAMES,
)
from agentcom.servers.uvicorn_sockets import (
    FRAMES_A_TURN,
    STEP,
    SocketProtocol,
    uvicorn_connection,
)
from lab.kit.sockets import CLOSE, PING, PONG, TEXT, frame
from tests.agentcom.http_clients import ClockLoop, Transport, server_state

HEADERS = [(b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"A" * 22 + b"==")]
SCOPE = {"method": "GET", "http_version": "1.1", "headers": HEADERS}
PING_S, PONG_S = 20, 30
SMALLEST = 6  # bytes of a frame


class Socket:
    """A socket whose application accepts, and takes a message when the test says so."""

    def __init__(self) -> None:
        self.clock, self.transport = Clock(), Transport()
        self.messages: list[dict[str, Any]] = []
        config = SimpleNamespace(ws_ping_interval=PING_S, ws_ping_timeout=PONG_S)
        self.protocol = SocketProtocol(config, server_state(), self._application)
        loop: Any = ClockLoop(self.clock)
        loop.call_soon = self.protocol._loop.call_soon
        loop.create_future = self.protocol._loop.create_future
        self.protocol._loop = loop
        self._may_take = asyncio.Semaphore(0)

    async def begin(self, unread: bytes = b"") -> None:
        self.protocol.begin(self.transport, {**SCOPE}, unread)
        await turns(5)

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        self.send = send
        self.connection = uvicorn_connection(send)
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await self._may_take.acquire()
            self.messages.append(await receive())
            if self.messages[-1]["type"] == "websocket.receive":
                self.connection.handled()

    def receive(self, *frames: bytes) -> None:
        self.protocol.data_received(b"".join(frames))

    async def take(self, count: int = 1) -> None:
        for _ in range(count):
            self._may_take.release()
        await turns(3 * count + 5)

    @property
    def waiting(self) -> int:
        return len(self.protocol._queue)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def socket() -> Socket:
    socket = Socket()
    await socket.begin()
    return socket


async def test_many_small_frames_leave_the_loop_to_others(
    socket: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentcom.servers.connection.MAX_WAITING_FRAMES", 100_000)
    socket.receive(frame(TEXT, b"") * 2_000)
    so_far = 0
    while so_far < 2_000:
        assert socket.waiting - so_far <= FRAMES_A_TURN + STEP // SMALLEST
        so_far = socket.waiting
        await asyncio.sleep(0)
    assert socket.transport.is_read


@pytest.mark.parametrize(
    ("size", "most"),
    [
        (1, MAX_WAITING_FRAMES + STEP // SMALLEST),
        (MAX_FRAME, MAX_WAITING_BYTES // MAX_FRAME),
    ],
    ids=["frames", "bytes"],
)
async def test_a_socket_is_not_read_while_too_much_of_it_waits(
    socket: Socket, size: int, most: int
) -> None:
    socket.receive(frame(TEXT, b"x" * size) * 200)
    await turns(20)
    assert socket.waiting <= most
    assert not socket.transport.is_read
    while len(socket.messages) < 200:
        await socket.take(10)
        assert socket.waiting <= most
    assert socket.transport.is_read


async def test_what_comes_before_the_handshake_is_answered_waits() -> None:
    socket = Socket()
    await socket.begin(frame(TEXT, b"early"))
    await socket.take()
    assert socket.messages == [{"type": "websocket.receive", "text": "early"}]


async def test_a_message_may_come_in_pieces(socket: Socket) -> None:
    first, last = bytearray(frame(TEXT, b"in ")), bytearray(frame(0, b"pieces"))
    first[0] &= 0x7F  # not the last one
    socket.receive(bytes(first), frame(PING, b"still there?"), bytes(last))
    await socket.take()
    assert socket.messages == [{"type": "websocket.receive", "text": "in pieces"}]
    assert b"still there?" in socket.transport.said


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"x" * (MAX_FRAME + 1)), 1009),
        (frame(TEXT, b"\xff"), 1007),
        (frame(0, b"of nothing"), 1002),
    ],
    ids=["too large", "not UTF-8", "no beginning"],
)
async def test_a_frame_that_is_not_allowed_is_answered_with_a_close_code(
    socket: Socket, data: bytes, code: int
) -> None:
    said = len(socket.transport.said)
    socket.receive(data)
    await turns(5)
    answer = socket.transport.said[said:]
    assert answer[0] & 0x0F == CLOSE
    assert int.from_bytes(answer[2:4], "big") == code
    socket.clock.advance(CLOSE_TIMEOUT_S)
    assert socket.transport.is_cut


async def test_a_good_bye_behind_a_frame_that_is_not_allowed(socket: Socket) -> None:
    socket.receive(frame(TEXT, b"\xff"), frame(CLOSE, (1000).to_bytes(2, "big")))
    await turns(5)
    assert socket.transport.is_ended
    socket.protocol.connection_lost(None)
    await socket.take()
    assert [message["type"] for message in socket.messages] == ["websocket.disconnect"]


async def test_who_does_not_return_the_good_bye_is_cut_off(socket: Socket) -> None:
    await socket.send({"type": "websocket.close", "code": 4409, "reason": "replaced"})
    assert socket.transport.said.endswith(b"replaced")
    socket.clock.advance(CLOSE_TIMEOUT_S / 2)
    assert not socket.transport.is_cut
    socket.clock.advance(CLOSE_TIMEOUT_S)
    assert socket.transport.is_cut


async def test_who_returns_it_is_not(socket: Socket) -> None:
    await socket.send({"type": "websocket.close", "code": 1012})
    socket.receive(frame(TEXT, b"x") * 200, frame(CLOSE, (1012).to_bytes(2, "big")))
    await turns(20)
    assert socket.transport.is_ended
    assert not socket.transport.is_cut


async def test_who_does_not_read_is_cut_off(socket: Socket) -> None:
    behind = [socket.connection.is_behind]
    socket.protocol.pause_writing()
    behind.append(socket.connection.is_behind)
    assert behind == [False, True]
    assert socket.connection.allows(MAX_BACKLOG // 2)
    assert not socket.connection.allows(MAX_BACKLOG)
    assert socket.transport.is_cut


async def test_pongs_count_too(socket: Socket) -> None:
    socket.protocol.pause_writing()
    for _ in range(MAX_BACKLOG // (125 * 100)):
        socket.receive(frame(PING, b"x" * 125) * 100)
        await turns(5)
    assert socket.transport.is_cut


async def test_who_does_not_answer_a_ping_is_cut_off(socket: Socket) -> None:
    socket.clock.advance(PING_S)
    ping = socket.transport.said[-4:]
    socket.receive(frame(PONG, ping))
    socket.clock.advance(PING_S)
    assert socket.transport.said[-4:] != ping
    socket.clock.advance(PONG_S)
    assert socket.transport.is_cut


async def test_a_client_that_is_not_read_is_not_taken_for_dead(socket: Socket) -> None:
    socket.clock.advance(PING_S)
    socket.receive(frame(TEXT, b"x") * 1_000)
    await turns(20)
    socket.clock.advance(PONG_S)
    assert not socket.transport.is_cut


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"method": "POST"}, 400),
        ({"http_version": "1.0"}, 400),
        ({"headers": HEADERS[:1]}, 400),
        ({"headers": HEADERS[1:]}, 426),
    ],
    ids=["method", "HTTP", "key", "version"],
)
async def test_what_is_no_handshake_is_refused_in_json(change: dict[str, Any], status: int) -> None:
    socket = Socket()
    socket.protocol.begin(socket.transport, {**SCOPE, **change}, b"")
    assert socket.transport.said.startswith(f"HTTP/1.1 {status} ".encode())
    assert b'{"error":"bad_request","detail":"' in socket.transport.said
    assert socket.transport.is_ended
