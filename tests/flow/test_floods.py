"""Clients that send more than can be handled: what waits of them is bounded."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from fleet.protocol import EARLY_ERRORS
from lab.harness.hub import Hub
from lab.kit.sockets import PING, TEXT, WebSocket, frame
from tests.flow.conftest import Join, Submit
from tests.flow.test_slow_clients import open_deaf

FLOOD = 96 * 1024 * 1024
MORE_KB = 32 * 1024  # that a flood may cost the hub
STALLED_S = 2.0  # nothing is taken from a client for so long


@pytest.mark.sqlite_only
@pytest.mark.parametrize("who", ["agent", "viewer"])
async def test_a_flood_while_nothing_can_be_committed_waits_at_the_client(
    hub: Hub, join: Join, submit: Submit, identities: Iterator[tuple[str, str]], who: str
) -> None:
    reader, writer = await open_deaf(hub.ws_url if who == "agent" else hub.dashboard_url)
    if who == "agent":
        agent_id, token = next(identities)
        identify = {"type": "identify", "agent_id": agent_id, "token": token}
        writer.write(frame(TEXT, json.dumps(identify).encode()))
        await reader.readuntil(b"identified")
        about = {"type": "task_progress", "task_id": "task-1", "generation": 1, "progress": 1}
        message = {**about, "message": "x" * 500}
    else:
        message = {"type": "retry_task", "task_id": "x" * 500}
    flood = frame(TEXT, json.dumps(message).encode()) * 100
    before_kb = hub.resident_kb
    with closing(sqlite3.connect(hub.data_dir / "agentcom.sqlite3")) as database:
        database.execute("BEGIN IMMEDIATE")
        try:
            sent = await send_until_it_stalls(writer, flood)
            more_kb = hub.resident_kb - before_kb
        finally:
            database.rollback()
            writer.transport.abort()
    assert sent < FLOOD
    assert more_kb < MORE_KB


async def send_until_it_stalls(writer: asyncio.StreamWriter, flood: bytes) -> int:
    sent = 0
    while sent < FLOOD:
        writer.write(flood)
        sent += len(flood)
        try:
            await asyncio.wait_for(writer.drain(), STALLED_S)
        except TimeoutError:
            break
    return sent


async def test_a_socket_that_talks_without_identifying_is_closed(hub: Hub) -> None:
    answers: list[bytes] = []
    socket = await WebSocket.connect(hub.port, "/ws", answers.append)
    for _ in range(EARLY_ERRORS * 3):
        socket.send(type="ping")
    assert await socket.closed == 4400
    assert answers == [b'{"type":"error","error":"not_identified"}'] * EARLY_ERRORS


async def test_pongs_that_nobody_reads_count_as_behind(hub: Hub) -> None:
    before_kb = hub.resident_kb
    _, writer = await open_deaf(hub.dashboard_url)
    try:
        with pytest.raises(ConnectionError):
            await send(writer, frame(PING, b"x" * 125) * 200)
    finally:
        writer.close()
    assert hub.resident_kb - before_kb < MORE_KB


async def send(writer: asyncio.StreamWriter, flood: bytes) -> None:
    for _ in range(5_000):
        writer.write(flood)
        await writer.drain()
