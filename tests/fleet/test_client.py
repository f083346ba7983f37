"""How an agent of `fleet/client.py` comes back."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.server import ServerConnection, serve

from agentcom.sockets import reconnect_reason
from fleet.client import COME_BACK, Agent, Connection, Task

BOUND_S = 20
AN_HOUR_S = 3600.0


@pytest.mark.parametrize(("sockets", "within_s"), [(1, 1), (499, 1), (500, 2), (2_000, 5)])
def test_the_hint_grows_with_the_herd_and_can_be_read(sockets: int, within_s: int) -> None:
    hint = COME_BACK.search(reconnect_reason("the hub stops here", sockets))
    assert hint is not None
    assert int(hint[1]) == within_s
    assert (
        len(reconnect_reason("this process was taken for dead", 10**6)) <= 123
    )  # a close frame's room


@pytest.mark.parametrize("reason", ["the hub stops here; come back within 1 s", ""])
async def test_after_a_1012_it_is_soon_at_the_next_address(reason: str) -> None:
    """Its own pause would be up to an hour."""
    arrivals: asyncio.Queue[int] = asyncio.Queue()

    async def stops(socket: ServerConnection) -> None:
        """As a hub that says good-bye to whoever identifies."""
        about = json.loads(await socket.recv())
        await socket.send(json.dumps({"type": "identified", "agent_id": about["agent_id"]}))
        assert socket.local_address is not None
        arrivals.put_nowait(socket.local_address[1])
        await socket.close(1012, reason)

    async with asyncio.timeout(BOUND_S), AsyncExitStack() as servers:
        ports = []
        for _ in range(2):
            server = await servers.enter_async_context(serve(stops, "127.0.0.1", 0))
            ports.append(server.sockets[0].getsockname()[1])
        urls = [f"ws://127.0.0.1:{port}" for port in ports]
        agent = Agent(
            urls, "a-1", "token", nothing, first_delay_s=AN_HOUR_S, longest_delay_s=AN_HOUR_S
        )
        running = asyncio.create_task(agent.run())
        assert [await arrivals.get() for _ in range(3)] == [ports[0], ports[1], ports[0]]
        await agent.stop()
        await running


async def test_it_logs_what_the_hub_changed_of_an_outcome(caplog: pytest.LogCaptureFixture) -> None:
    async def cuts(socket: ServerConnection) -> None:
        told = json.loads(await socket.recv())
        ack = {"type": "task_ack", "task_id": told["task_id"], "status": "retried"}
        await socket.send(json.dumps({**ack, "detail": "error: cut to 16384 characters"}))
        await socket.recv()
        await socket.send(json.dumps(ack))

    async with asyncio.timeout(BOUND_S), serve(cuts, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with await Connection.open(f"ws://127.0.0.1:{port}") as hub:
            await hub.request("task_failed", task_id="task-1", generation=1, error="x")
            await hub.request("task_failed", task_id="task-1", generation=1, error="x")
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ["task_failed of task-1: error: cut to 16384 characters"]


async def nothing(task: Task) -> dict[str, str]:
    return {}
