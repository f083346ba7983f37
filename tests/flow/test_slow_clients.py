"""Clients that stop reading or answer late: they alone suffer, and the hub stays bounded."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from lab.harness.hub import Hub
from lab.kit.sockets import TEXT, frame
from lab.kit.viewer import Viewer
from tests.flow.conftest import Join, Submit, View

COMPLETIONS = 100
REQUESTS = 2_000  # answers asked for at most
MORE_KB = 48 * 1024  # that a deaf client may cost the hub; its backlog is held to 4 MiB
SNAPSHOT = b'{"type":"request_snapshot"}'
LIST = b'{"type":"list_agents"}'
SKILLS = [f"{number:064}" for number in range(64)]  # so that a list is a mouthful too


async def test_a_dashboard_that_stops_reading_is_cut_off_and_others_are_not(
    hub: Hub, join: Join, submit: Submit, view: View
) -> None:
    agent = await join()
    for _ in range(COMPLETIONS):  # so that a snapshot is a mouthful
        await submit(agent.skill, description="𝄞" * 500)
        await agent.say("task_complete", await agent.assigned(), result={})
    watcher = await view()
    await watcher.snapshot()
    _, writer = await open_deaf(hub.dashboard_url)
    try:
        await flood(writer, SNAPSHOT)
    finally:
        writer.close()
    await watcher.until_event(await submit(agent.skill), "task_submitted")


async def test_an_agent_that_stops_reading_is_cut_off_and_others_are_not(
    hub: Hub, join: Join, submit: Submit, view: View, identities: Iterator[tuple[str, str]]
) -> None:
    agent = await join()
    for _ in range(20):
        await join(capabilities=SKILLS)
    watcher = await view()
    await watcher.snapshot()
    before_kb = hub.resident_kb
    agent_id, token = next(identities)
    _, writer = await open_deaf(hub.ws_url)
    identify = {"type": "identify", "agent_id": agent_id, "token": token}
    writer.write(frame(TEXT, json.dumps(identify).encode()))
    deaf = asyncio.create_task(flood(writer, LIST))
    try:
        while not deaf.done():  # meanwhile the others have what is theirs
            task_id = await submit(agent.skill)
            await agent.say("task_complete", await agent.assigned(), result={})
            await watcher.until_event(task_id, "task_complete")
        await deaf
    finally:
        writer.close()
    await watcher.until(lambda viewer: has_left(viewer, agent_id))
    assert hub.resident_kb - before_kb < MORE_KB


async def test_a_good_bye_has_a_second_to_arrive(
    hub: Hub, identities: Iterator[tuple[str, str]]
) -> None:
    agent_id, _ = next(identities)
    reader, writer = await open_deaf(hub.ws_url)
    guess = json.dumps({"type": "identify", "agent_id": agent_id, "token": "wrong"}).encode()
    await asyncio.sleep(1.9 - time.monotonic() % 1)  # the timers of its library forget fractions
    said_at = time.monotonic()
    writer.write(frame(TEXT, guess) * 3)
    with contextlib.suppress(ConnectionResetError):
        while await reader.read(1024):  # it hears the good-bye, and does not return it
            pass
    writer.close()
    assert time.monotonic() - said_at >= 1


def has_left(viewer: Viewer, agent_id: str) -> bool:
    return any(e["type"] == "agent_left" and e["agent_id"] == agent_id for e in viewer.events)


async def open_deaf(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket that shakes hands and then never reads again, with little room in the kernel."""
    where = urlsplit(url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (where.hostname, where.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert b"101" in await reader.readline()
    return reader, writer


async def flood(writer: asyncio.StreamWriter, request: bytes) -> None:
    """Ask and read no answer, until the hub has had enough."""
    try:
        for _ in range(REQUESTS):
            writer.write(frame(TEXT, request))
            await writer.drain()
            await asyncio.sleep(0.01)
            if writer.is_closing():
                return
    except ConnectionError:
        return
    raise AssertionError("the hub goes on writing to a client that does not read")
