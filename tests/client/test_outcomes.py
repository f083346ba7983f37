"""How the client waits for tasks at a hub whose database or process is away: a scripted one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from agentcom_client import TaskInfo
from agentcom_client.outcomes import LONGEST_DELAY_S, Outcomes

TASK = "task-0123456789abcdef"
BOUND_S = 20


async def never(task_id: str) -> TaskInfo:
    raise AssertionError("nobody polls")


async def said(socket: ServerConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await socket.recv())
    return message


@pytest.mark.parametrize("away_at", ["identify", "watch"])
async def test_a_hub_whose_database_is_away_is_asked_again(away_at: str):
    unavailable = json.dumps({"type": "error", "error": "unavailable", "detail": "no answer"})
    sockets = 0

    async def hub(socket: ServerConnection) -> None:
        nonlocal sockets
        sockets += 1
        is_away = sockets == 1
        await said(socket)
        if is_away and away_at == "identify":
            return await socket.send(unavailable)
        await socket.send(json.dumps({"type": "identified", "name": "me", "version": "0.2.0"}))
        assert (await said(socket))["task_ids"] == [TASK]
        if is_away:
            return await socket.send(unavailable)
        task = {"id": TASK, "description": "x", "status": "completed"}
        await socket.send(json.dumps({"type": "task_ended", "task": task}))
        await socket.wait_closed()

    async with asyncio.timeout(BOUND_S), serve(hub, "127.0.0.1", 0) as server:
        outcomes = Outcomes(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", "t", never)
        assert (await outcomes.wait(TASK)).status == "completed"
        await outcomes.close()
    assert sockets == 2


async def test_the_pauses_grow_while_a_hub_is_away_that_was_there(monkeypatch: pytest.MonkeyPatch):
    bounds: list[float] = []
    was_lost, has_tried = asyncio.Event(), asyncio.Event()

    def note(_: float, bound_s: float) -> float:
        bounds.append(bound_s)
        was_lost.set()
        if len(bounds) == 20:
            has_tried.set()
        return 0.0

    async def hub(socket: ServerConnection) -> None:
        await said(socket)
        await socket.send(json.dumps({"type": "identified", "name": "me", "version": "0.2.0"}))
        await said(socket)  # and it is gone

    monkeypatch.setattr("agentcom_client.outcomes.random.uniform", note)
    async with asyncio.timeout(BOUND_S):
        server = await serve(hub, "127.0.0.1", 0)
        outcomes = Outcomes(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", "t", never)
        outcomes.wait(TASK)
        await was_lost.wait()
        server.close()
        await has_tried.wait()
        await outcomes.close()
    assert bounds[-1] == LONGEST_DELAY_S
