"""One client that asks for too much is slowed down; the others are not, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from agentcom.limits import Failures
from agentcom_client import AsyncHub
from lab.harness.hub import Hub
from lab.kit.viewer import Viewer
from tests.flow.conftest import Join, Submit, eventually

RATE, BURST = 50, 100
SETTINGS = {
    "AGENTCOM_AGENT_SUBMITS_PER_S": "20",
    "AGENTCOM_AGENT_SUBMIT_BURST": "20",
    "AGENTCOM_MESSAGES_PER_S": str(RATE),
    "AGENTCOM_MESSAGE_BURST": str(BURST),
    "AGENTCOM_VIEWERS_PER_ADDRESS": "3",
    "AGENTCOM_SILENT_PER_ADDRESS": "5",
}
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TASK = {"description": "One of many", "not_before": "2100-01-01"}


async def test_an_agent_that_submits_too_much_waits_and_others_do_not(
    hub: Hub, api: httpx.AsyncClient
):
    token = await asyncio.to_thread(hub.token, "greedy", "agent")
    headers = {"Authorization": f"Bearer {token}"}
    assert (await api.post("/api/tasks", json=[TASK] * 30, headers=headers)).status_code == 201
    refused = await api.post("/api/tasks", json=TASK, headers=headers)
    assert refused.status_code == 429
    assert refused.json()["error"] == "throttled"
    assert refused.headers["Retry-After"] == "1"
    assert (await api.post("/api/tasks", json=[TASK] * 100)).status_code == 201  # an operator
    async with AsyncHub(hub.url, token) as client:  # obeys by itself
        began = time.monotonic()
        await client.submit_many([TASK] * 30)
        await client.submit("the last", not_before="2100-01-01")
        assert time.monotonic() - began > 0.5
        assert len([task async for task in client.tasks()]) == 61


async def test_too_many_messages_are_read_more_slowly_and_none_is_lost(
    hub: Hub, identities: object, join: Join
):
    agent = await join()
    async with connect(hub.ws_url) as socket:
        identify = {"type": "identify", "token": agent.token, "accepts": ["rate_limited"]}
        await socket.send(json.dumps(identify))
        began = time.monotonic()
        for _ in range(BURST + 2 * RATE):
            await socket.send('{"type": "ping"}')
        heard = [json.loads(await socket.recv()) for _ in range(BURST)]
        while [frame["type"] for frame in heard].count("pong") < BURST + 2 * RATE:
            heard.append(json.loads(await socket.recv()))
        assert time.monotonic() - began > 1.5
    limited = [frame for frame in heard if frame["type"] == "rate_limited"]
    assert 1 <= len(limited) <= 5
    assert limited[0]["retry_after_ms"] >= 100


async def test_who_did_not_ask_for_it_is_not_told(hub: Hub, join: Join):
    """An older client would take it for the answer to its message."""
    agent = await join()
    for _ in range(BURST + RATE // 2):
        assert (await agent.connection.request("ping"))["type"] == "pong"


async def test_progress_is_gathered_and_nothing_of_it_lost(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    task_id = await submit(agent.skill)
    task = await agent.accepted()
    about = {"task_id": task_id, "generation": task["generation"]}
    for number in range(50):
        text = f"step {number}" if number % 2 else "again"
        await agent.connection.send("task_progress", **about, progress=number, message=text)
    await agent.connection.request("task_complete", **about, result={})
    history = (await api.get(f"/api/tasks/{task_id}")).json()["history"]
    said = [entry["details"] for entry in history if entry["event"] == "task_progress"]
    assert len(said) == 2
    assert said[0]["progress"] == 0
    assert said[1]["progress"] == 49
    lines = said[1]["message"].split("\n")
    assert [line for line in lines if line != "again"] == [f"step {n}" for n in range(1, 50, 2)]
    assert [entry["event"] for entry in history][-2:] == ["task_progress", "task_complete"]


async def test_what_is_gathered_is_kept_when_the_socket_is_lost(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    task_id = await submit(agent.skill)
    task = await agent.accepted()
    about = {"task_id": task_id, "generation": task["generation"]}
    for number in (1, 2, 3):
        await agent.connection.send("task_progress", **about, progress=number, message=str(number))
    await agent.connection.request("ping")
    await agent.connection.socket.close()

    async def said() -> list[str]:
        history = (await api.get(f"/api/tasks/{task_id}")).json()["history"]
        entries = [entry for entry in history if entry["event"] == "task_progress"]
        return [entry["details"]["message"] for entry in entries]

    async def is_kept() -> bool:
        return await said() == ["1", "2\n3"]

    await eventually(is_kept)


async def test_later_progress_comes_by_itself(api: httpx.AsyncClient, join: Join, submit: Submit):
    agent = await join()
    task_id = await submit(agent.skill)
    task = await agent.accepted()
    about = {"task_id": task_id, "generation": task["generation"]}
    await agent.connection.send("task_progress", **about, progress=1)
    await agent.connection.send("task_progress", **about, progress=2)

    async def is_there() -> bool:
        history = (await api.get(f"/api/tasks/{task_id}")).json()["history"]
        said = [entry["details"] for entry in history if entry["event"] == "task_progress"]
        return [details["progress"] for details in said] == [1, 2]

    await eventually(is_there)


async def test_with_many_silent_sockets_those_that_say_nothing_get_little_time(hub: Hub):
    async with AsyncExitStack() as open_:
        sockets = [await open_.enter_async_context(connect(hub.ws_url)) for _ in range(8)]
        began = time.monotonic()
        async with asyncio.timeout(6):
            with pytest.raises(ConnectionClosed):
                await sockets[-1].recv()
        assert time.monotonic() - began > 1.5
        assert sockets[-1].close_code == 4408
        assert sockets[0].close_code is None


async def test_one_address_has_so_many_dashboards(hub: Hub):
    async with AsyncExitStack() as open_:
        for _ in range(3):
            await open_.enter_async_context(await Viewer.open(hub.port))
        async with connect(hub.dashboard_url) as one_more:
            assert json.loads(await one_more.recv())["type"] == "rate_limited"
            with pytest.raises(ConnectionClosed):
                await one_more.recv()
            assert one_more.close_code == 4429

    async def is_let_in() -> bool:
        async with connect(hub.dashboard_url) as later:
            return bool(json.loads(await later.recv())["type"] == "snapshot")

    await eventually(is_let_in)


async def test_an_address_that_fails_too_often_waits_but_not_with_a_good_token(
    hub: Hub, api: httpx.AsyncClient
):
    """The last test of the hub: the address stays slow for a while."""
    wrong = {"Authorization": "Bearer wrong"}
    few = asyncio.Semaphore(8)

    async def fail() -> float:
        began = time.monotonic()
        await api.get("/api/whoami", headers=wrong)
        return time.monotonic() - began

    async def fail_in_turn() -> None:
        async with few:
            await fail()

    await asyncio.gather(*(fail_in_turn() for _ in range(Failures.BURST)))
    at_once = [asyncio.create_task(fail()) for _ in range(60)]
    await asyncio.sleep(0.3)
    began = time.monotonic()
    assert (await api.get("/api/whoami")).status_code == 200
    assert time.monotonic() - began < 1
    for _ in range(10):
        _, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        writer.write(HANDSHAKE)  # and does not wait for the answer
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
    began = time.monotonic()
    async with connect(hub.ws_url) as socket:
        assert time.monotonic() - began > 0.5
        await socket.send('{"type": "identify", "token": "wrong"}')
        assert json.loads(await socket.recv())["error"] == "invalid_token"
    assert max(await asyncio.gather(*at_once)) > 1
    assert "Traceback" not in hub.webs[0].log
