"""The submitter's socket: it tells of each task that is waited for when it has ended, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from lab.harness.hub import Hub
from lab.kit.member import Member
from tests.flow.conftest import Join, Submit

SETTINGS = {"AGENTCOM_IDENTIFY_TIMEOUT_S": "1"}
LARGE = "x" * 200_000


class Waiter:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def ask(self, type: str, **fields: Any) -> dict[str, Any]:
        await self.socket.send(json.dumps({"type": type, **fields}))
        return await self.next()

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            message: dict[str, Any] = json.loads(await self.socket.recv())
            return message

    async def ended(self) -> dict[str, Any]:
        message = await self.next()
        assert message["type"] == "task_ended", message
        task: dict[str, Any] = message["task"]
        return task


def address(hub: Hub) -> str:
    return hub.ws_url + "/tasks"


@pytest.fixture
async def waiter(hub: Hub, identities: Iterator[tuple[str, str]]) -> AsyncIterator[Waiter]:
    name, token = next(identities)
    async with connect(address(hub), max_size=None) as socket:
        waiter = Waiter(socket)
        identified = await waiter.ask("identify", token=token)
        assert identified == {"type": "identified", "name": name, "version": "0.2.0"}
        yield waiter


async def test_it_tells_of_each_end_with_the_task(
    api: httpx.AsyncClient, agent: Member, submit: Submit, waiter: Waiter
):
    done, failed, dropped = [
        await submit(agent.skill, max_retries=1),
        await submit(agent.skill, max_retries=1),
        await submit("nobody has this"),
    ]
    watched = await waiter.ask("watch", task_ids=[done, failed, dropped])
    assert watched == {"type": "watching", "count": 3}
    first = await agent.accepted()
    await agent.say("task_complete", first, result={"answer": 42}, tokens_used=7)
    task = await waiter.ended()
    assert (task["id"], task["status"], task["result"]) == (done, "completed", {"answer": 42})
    listed = (await api.get("/api/tasks", params={"status": "completed"})).json()["tasks"]
    assert task in listed
    await agent.say("task_failed", await agent.accepted(), error="no")
    task = await waiter.ended()
    assert (task["id"], task["status"], task["last_error"]) == (failed, "dead_letter", "no")
    await api.post(f"/api/tasks/{dropped}/cancel")
    task = await waiter.ended()
    assert (task["id"], task["status"]) == (dropped, "cancelled")
    assert await waiter.ask("watch", task_ids=[]) == {"type": "watching", "count": 0}


async def test_what_has_ended_before_or_does_not_exist_is_told_at_once(
    agent: Member, submit: Submit, waiter: Waiter
):
    task_id = await submit(agent.skill)
    await agent.say("task_complete", await agent.accepted(), result={})
    unknown = "task-0000000000000000"
    await waiter.ask("watch", task_ids=[unknown, task_id, task_id])
    told = [await waiter.next(), await waiter.next()]
    assert {message["type"] for message in told} == {"task_ended", "task_unknown"}
    assert await waiter.ask("ping") == {"type": "pong", "timestamp": pytest.approx(0, abs=9e15)}


async def test_a_failure_that_is_retried_is_no_end(agent: Member, submit: Submit, waiter: Waiter):
    task_id = await submit(agent.skill, max_retries=2)
    await waiter.ask("watch", task_ids=[task_id])
    await agent.say("task_failed", await agent.accepted(), error="once")
    await agent.say("task_complete", await agent.accepted(), result={})
    assert (await waiter.ended())["status"] == "completed"


async def test_who_waits_no_more_is_not_told(
    api: httpx.AsyncClient, submit: Submit, waiter: Waiter
):
    kept, left = await submit("nobody has this"), await submit("nobody has this")
    await waiter.ask("watch", task_ids=[kept, left])
    assert await waiter.ask("unwatch", task_ids=[left]) == {"type": "watching", "count": 1}
    for task_id in (left, kept):
        await api.post(f"/api/tasks/{task_id}/cancel")
    assert (await waiter.ended())["id"] == kept


async def test_large_results_arrive_whole_however_slowly_they_are_read(
    agent: Member, submit: Submit, waiter: Waiter
):
    """More than the hub keeps for a client that does not read."""
    task_ids = [await submit(agent.skill) for _ in range(40)]
    await waiter.ask("watch", task_ids=task_ids)
    for _ in task_ids:
        await agent.say("task_complete", await agent.accepted(), result={"text": LARGE})
    await asyncio.sleep(0.5)
    ended = [await waiter.ended() for _ in task_ids]
    assert [task["id"] for task in ended] == task_ids
    assert all(task["result"] == {"text": LARGE} for task in ended)


async def test_a_wrong_message_is_refused_and_changes_nothing(waiter: Waiter):
    assert (await waiter.ask("watch"))["error"] == "invalid_message"
    assert (await waiter.ask("watch", task_ids="task-1"))["error"] == "invalid_message"
    assert (await waiter.ask("watch", task_ids=["x"] * 1_001))["error"] == "invalid_message"
    assert (await waiter.ask("identify", token="x"))["error"] == "invalid_message"
    assert (await waiter.ask("wait"))["error"] == "unknown_message_type"
    await waiter.socket.send("{")
    assert (await waiter.next())["error"] == "invalid_json"
    assert await waiter.ask("watch", task_ids=[]) == {"type": "watching", "count": 0}


async def test_there_is_a_bound_to_what_one_socket_waits_for(
    api: httpx.AsyncClient, waiter: Waiter
):
    waiting = {"description": "x", "needed_capabilities": ["nobody has this"]}
    for number in range(1, 11):
        answer = await api.post("/api/tasks", json=[waiting] * 1_000)
        task_ids = [receipt["task_id"] for receipt in answer.json()["tasks"]]
        watched = await waiter.ask("watch", task_ids=task_ids)
        assert watched == {"type": "watching", "count": number * 1_000}
    one_more = await api.post("/api/tasks", json=waiting)
    refused = await waiter.ask("watch", task_ids=[one_more.json()["task_id"]])
    assert refused["error"] == "too_many_tasks"
    assert await waiter.ask("watch", task_ids=task_ids) == {"type": "watching", "count": 10_000}


async def test_only_a_valid_token_may_wait(hub: Hub, identities: Iterator[tuple[str, str]]):
    async with connect(address(hub)) as socket:
        stranger = Waiter(socket)
        assert (await stranger.ask("watch", task_ids=[]))["error"] == "not_identified"
        assert (await stranger.ask("identify", token="wrong"))["error"] == "invalid_token"
        for _ in range(7):
            assert (await stranger.ask("ping"))["error"] == "not_identified"
        await stranger.ask("ping")
        with pytest.raises(ConnectionClosed) as closed:
            await stranger.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4400


async def test_who_says_nothing_is_not_kept(hub: Hub):
    async with connect(address(hub)) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await Waiter(socket).next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4408


async def test_a_revoked_token_ends_it(hub: Hub, join: Join):
    member = await join()
    async with connect(address(hub)) as socket:
        await Waiter(socket).ask("identify", token=member.token)
        await asyncio.to_thread(hub.manage, "token", "revoke", member.agent_id)
        with pytest.raises(ConnectionClosed) as closed:
            await Waiter(socket).next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
