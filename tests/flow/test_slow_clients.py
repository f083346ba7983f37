"""A client that stops reading: it alone suffers, and the hub's memory stays bounded."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from urllib.parse import urlsplit

from agentcom.harness.hub import Hub
from tests.flow.conftest import Join, Submit, View

COMPLETIONS = 100
REQUESTS = 2_000  # snapshots asked for at most


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
        await flood(writer)
    finally:
        writer.close()
    await watcher.until_told(await submit(agent.skill), "task_submitted")


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


async def flood(writer: asyncio.StreamWriter) -> None:
    """Ask for snapshots and read none, until the hub has had enough."""
    request = b'{"type":"request_snapshot"}'
    frame = bytes([0x81, 0x80 | len(request), 0, 0, 0, 0]) + request
    try:
        for _ in range(REQUESTS):
            writer.write(frame)
            await writer.drain()
            await asyncio.sleep(0.01)
            if writer.is_closing():
                return
    except ConnectionError:
        return
    raise AssertionError("the hub goes on writing to a client that does not read")
