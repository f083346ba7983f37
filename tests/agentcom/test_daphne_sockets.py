"""Sockets: what a client sends is parsed a few frames at a time, and what it gets is one frame."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentcom.servers.connection import Connection
from agentcom.servers.daphne_sockets import PARSER_STEPS, DaphneConnection, Intake
from agentcom.servers.limits import MAX_FRAME, MAX_WAITING_FRAMES

CLOSED, CONNECTING, CLOSING, OPEN = 0, 1, 2, 3


class Transport:
    is_read = True

    def pauseProducing(self) -> None:
        self.is_read = False

    def resumeProducing(self) -> None:
        self.is_read = True


class Protocol:
    """As autobahn's, with a frame for each step; `data` are the sizes of those that have come."""

    state = OPEN

    def __init__(self) -> None:
        self.data: list[int] = []
        self.queued: list[int] = []
        self.steps = 0
        self.missed_pongs = 0
        self.transport = Transport()
        self.consumeData: Any = None

    def onMessage(self, payload: bytes, is_binary: bool) -> None:
        self.queued.append(len(payload))

    def onAutoPingTimeout(self) -> None:
        self.missed_pongs += 1

    def processData(self) -> bool:
        self.steps += 1
        if self.data:
            self.onMessage(b"x" * self.data.pop(0), False)
        return bool(self.data)

    def receive(self, *sizes: int) -> None:
        self.data += sizes
        self.consumeData()


@pytest.fixture
async def protocol() -> Protocol:
    return Protocol()


async def test_many_small_frames_leave_the_loop_to_others(
    protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentcom.servers.connection.MAX_WAITING_FRAMES", 10_000)
    Intake(protocol)
    protocol.receive(*[1] * 1000)
    turns = 1
    while protocol.data:
        assert protocol.steps <= turns * PARSER_STEPS
        await asyncio.sleep(0)
        turns += 1
    assert len(protocol.queued) == 1000
    assert protocol.transport.is_read


@pytest.mark.parametrize(
    ("size", "most"), [(1, MAX_WAITING_FRAMES), (MAX_FRAME, 4)], ids=["frames", "bytes"]
)
async def test_a_socket_is_not_read_while_too_much_of_it_waits(
    protocol: Protocol, size: int, most: int
) -> None:
    intake = Intake(protocol)
    protocol.receive(*[size] * 200)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(protocol.queued) == most
    assert not protocol.transport.is_read
    handled = 0
    while handled < 200:
        intake.handled()
        handled += 1
        await asyncio.sleep(0)
        assert len(protocol.queued) - handled <= most
    assert len(protocol.queued) == 200
    assert protocol.transport.is_read


async def test_what_comes_before_the_handshake_is_answered_waits_in_the_network(
    protocol: Protocol,
) -> None:
    Intake(protocol)
    protocol.state = CONNECTING
    protocol.receive(1)
    assert not protocol.transport.is_read
    protocol.state = OPEN
    protocol.consumeData()  # as autobahn does once the handshake is done
    assert protocol.queued == [1]
    assert protocol.transport.is_read


async def test_a_client_that_is_not_read_is_not_taken_for_dead(protocol: Protocol) -> None:
    Intake(protocol)
    protocol.receive(*[1] * 200)
    for _ in range(20):
        await asyncio.sleep(0)
    protocol.onAutoPingTimeout()
    assert protocol.missed_pongs == 0


# --- Frames to clients


class Wire:
    """autobahn's protocol and Twisted's transport, as far as frames are written to them."""

    def __init__(self, state: int = OPEN) -> None:
        self.state = state
        self.send_queue: list[bytes] = []
        self.written = b""
        self.transport = self

    def write(self, data: bytes) -> None:
        self.written += data


def connection_over(wire: Any) -> DaphneConnection:
    connection = DaphneConnection.__new__(DaphneConnection)
    connection._protocol = wire
    return connection


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_text_is_written_as_one_frame(size: int, head: bytes) -> None:
    wire = Wire()
    assert connection_over(wire).write(b"x" * size)
    assert wire.written == head + b"x" * size


@pytest.mark.parametrize("state", [CONNECTING, CLOSING, CLOSED])
def test_nothing_is_written_to_a_connection_that_is_not_open(state: int) -> None:
    wire = Wire(state)
    assert not connection_over(wire).write(b"x")
    assert wire.written == b""


def test_what_autobahn_has_queued_stays_before_it() -> None:
    wire = Wire()
    wire.send_queue.append(b"earlier")
    assert not connection_over(wire).write(b"x")


def test_another_server_sends_in_its_own_way() -> None:
    assert not Connection().write(b"x")
