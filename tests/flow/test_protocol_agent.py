"""The agent socket: who it is that speaks, frames that are no messages, coming back, leaving."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from agentcom import __version__
from fleet.protocol import EARLY_ERRORS
from lab.harness.hub import Hub
from lab.kit.member import Member
from tests.flow.conftest import Join, Submit, refusal

IDENTIFY_TIMEOUT_S = 1.5
SETTINGS = {"AGENTCOM_IDENTIFY_TIMEOUT_S": str(IDENTIFY_TIMEOUT_S)}
DEEP = "[" * 100_000
KIB = 1024


@pytest.fixture
async def socket(hub: Hub) -> AsyncIterator[ClientConnection]:
    """A socket that has not identified."""
    async with connect(hub.ws_url, compression=None) as socket:
        yield socket


async def ask(socket: ClientConnection, message: object) -> dict[str, Any]:
    await socket.send(message if isinstance(message, str) else json.dumps(message))
    answer: dict[str, Any] = json.loads(await socket.recv())
    return answer


async def close_code(socket: ClientConnection) -> int | None:
    """Wait until the hub closes the socket."""
    try:
        while True:
            await socket.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


# Identify


async def test_identify(socket: ClientConnection, identities: Iterator[tuple[str, str]]):
    agent_id, token = next(identities)
    answer = await ask(socket, {"type": "identify", "agent_id": agent_id, "token": token})
    assert answer == {"type": "identified", "agent_id": agent_id, "version": __version__}


async def test_what_an_agent_says_of_itself_is_shown(api: httpx.AsyncClient, join: Join):
    agent = await join(name="Ada", status="warming up", capabilities=["code", "review"])
    agents = (await api.get("/api/agents")).json()["agents"]
    [shown] = [a for a in agents if a["agent_id"] == agent.agent_id]
    assert shown["name"] == "Ada"
    assert shown["status"] == "warming up"
    assert shown["capabilities"] == ["code", "review"]
    assert shown["fsm_state"] == "idle"
    assert abs(shown["connected_at"] - time.time() * 1000) < 60_000


async def test_a_name_that_nobody_can_see_is_none(api: httpx.AsyncClient, join: Join):
    agent = await join(name="\u200b\u2800", status="\u3164")
    state = (await api.get(f"/api/agents/{agent.agent_id}/state")).json()
    assert (state["name"], state["status"]) == ("", "")


async def test_nothing_before_identify(socket: ClientConnection):
    for message in ({"type": "ping"}, {"type": "list_agents"}):
        assert await ask(socket, message) == {"type": "error", "error": "not_identified"}


async def test_a_wrong_token_may_be_corrected(
    socket: ClientConnection, identities: Iterator[tuple[str, str]]
):
    (agent_id, token), (_, token_of_another) = next(identities), next(identities)
    identify = {"type": "identify", "agent_id": agent_id}
    wrong = await ask(socket, {**identify, "token": "wrong"})
    assert wrong == {"type": "error", "error": "invalid_token"}
    mismatch = await ask(socket, {**identify, "token": token_of_another})
    assert mismatch == {"type": "error", "error": "token_agent_mismatch"}
    assert (await ask(socket, {**identify, "token": token}))["type"] == "identified"


async def test_three_wrong_tokens_close_the_socket(
    socket: ClientConnection, identities: Iterator[tuple[str, str]]
):
    agent_id, _ = next(identities)
    for guess in ("one", "two", "three"):
        answer = await ask(socket, {"type": "identify", "agent_id": agent_id, "token": guess})
        assert answer["error"] == "invalid_token"
    assert await close_code(socket) == 4401


async def test_a_socket_that_does_not_identify_is_closed_in_time(socket: ClientConnection):
    opened_at = time.monotonic()
    assert await close_code(socket) == 4408
    assert IDENTIFY_TIMEOUT_S - 0.2 < time.monotonic() - opened_at < IDENTIFY_TIMEOUT_S + 3


async def test_talk_does_not_put_off_the_identify_timeout(socket: ClientConnection):
    for _ in range(EARLY_ERRORS - 1):  # one more would close it for that
        await ask(socket, {"type": "ping"})
    assert await close_code(socket) == 4408


async def test_an_identified_socket_stays_open(join: Join):
    agent, idler = await join(), await join()
    until = time.monotonic() + IDENTIFY_TIMEOUT_S + 0.5
    while time.monotonic() < until:
        await agent.connection.request("ping")
    assert (await idler.connection.request("ping"))["type"] == "pong"


async def test_the_newer_socket_of_an_agent_wins(join: Join, submit: Submit):
    older = await join()
    task_id = await submit(older.skill)
    assign = await older.assigned()
    await older.say("task_accepted", assign)

    newer = await join(again=older)
    with pytest.raises(ConnectionClosed) as closed:
        await older.connection.next_push()
    assert closed.value.rcvd
    assert closed.value.rcvd.code == 4409
    recovered = await newer.connection.request("task_recovering", task_id=task_id)
    assert recovered["type"] == "task_continue"
    assert (await newer.say("task_complete", assign, result={}))["status"] == "complete"


@pytest.mark.parametrize(
    "fields",
    [
        {"agent_id": ""},
        {"agent_id": 7},
        {"agent_id": ["a"]},
        {"agent_id": "a" * 129},
        {"agent_id": "nul\0"},
        {"token": None},
        {"token": 7},
        {"token": {}},
        {"name": 7},
        {"status": []},
        {"capabilities": "code"},
        {"capabilities": [1]},
        {"capabilities": ["nul\0"]},
        {"presence": "yes"},
    ],
    ids=lambda fields: json.dumps(fields)[:40],
)
async def test_a_malformed_identify(
    socket: ClientConnection, identities: Iterator[tuple[str, str]], fields: dict[str, Any]
):
    good = {"type": "identify", "agent_id": "agent-000", "token": "wrong"}
    message = {k: v for k, v in {**good, **fields}.items() if v is not None}
    answer = await ask(socket, message)
    assert answer["error"] == "invalid_message"
    assert answer["detail"]
    assert (await ask(socket, good))["error"] == "invalid_token"  # the socket is still open


# Frames that are no messages


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        '{"type":"ping"',
        '{"type":"ping"}{"type":"ping"}',
        '{"type":"ping","x":NaN}',
        '{"type":"ping","x":Infinity}',
        '{"type":"ping","x":"\\ud800"}',
        DEEP,
        '{"type":"ping","x":' + DEEP + "}",
    ],
    ids=lambda text: text[:30] or "empty",
)
async def test_broken_json(agent: Member, text: str):
    answer = await agent.say_raw(text)
    assert answer["error"] == "invalid_json"
    assert (await agent.connection.request("ping"))["type"] == "pong"


@pytest.mark.parametrize("text", ["[]", "7", "null", '"ping"', "[{}]", "{}", '{"type":7}'])
async def test_json_that_is_no_message(agent: Member, text: str):
    answer = await agent.say_raw(text)
    assert answer["error"] in ("invalid_message", "unknown_message_type")
    assert (await agent.connection.request("ping"))["type"] == "pong"


@pytest.mark.parametrize("type", ["no_such_thing", "__init__", "task_assign", "", "PING", "x\0"])
async def test_an_unknown_type(agent: Member, type: str):
    assert await refusal(agent, type) == "unknown_message_type"


async def test_a_huge_integer_where_nobody_looks(agent: Member):
    answer = await agent.say_raw('{"type":"ping","x":' + "9" * 400 + "}")
    assert answer["type"] in ("pong", "error")
    assert (await agent.connection.request("ping"))["type"] == "pong"


async def test_of_duplicate_keys_one_counts(agent: Member):
    answer = await agent.say_raw('{"type":"no_such_thing","type":"ping"}')
    assert answer["type"] == "pong" or answer["error"] == "invalid_json"


async def test_a_frame_over_the_limit_closes_only_its_socket(hub: Hub, agent: Member):
    async with connect(hub.ws_url, compression=None) as socket:
        await socket.send(json.dumps({"type": "ping", "x": "x" * 256 * KIB}))
        assert await close_code(socket) == 1009
    assert (await agent.connection.request("ping"))["type"] == "pong"


async def test_a_frame_at_the_limit_is_taken(api: httpx.AsyncClient, agent: Member, submit: Submit):
    task_id = await submit(agent.skill)
    text = "x" * 250 * KIB
    answer = await agent.say("task_complete", await agent.assigned(), result={"text": text})
    assert answer["status"] == "complete"
    assert (await api.get(f"/api/tasks/{task_id}")).json()["result"] == {"text": text}


async def test_a_binary_frame_harms_nobody(hub: Hub, agent: Member):
    async with connect(hub.ws_url, compression=None) as socket:
        await socket.send(b"\x00\xff")
        assert json.loads(await socket.recv()) == {"type": "error", "error": "invalid_json"}
    assert (await agent.connection.request("ping"))["type"] == "pong"


# Coming back


async def test_a_task_that_was_never_accepted_is_pushed_again(join: Join, submit: Submit):
    agent = await join()
    task_id = await submit(agent.skill)
    assign = await agent.assigned()
    agent.connection.cut()

    back = await join(again=agent)
    again = await back.assigned()
    assert (again["task_id"], again["generation"]) == (task_id, assign["generation"])
    assert (await back.say("task_complete", again, result={}))["status"] == "complete"


async def test_an_accepted_task_is_continued(join: Join, submit: Submit):
    agent = await join()
    task_id = await submit(agent.skill)
    assign = await agent.assigned()
    await agent.say("task_accepted", assign)
    agent.connection.cut()

    back = await join(again=agent)
    answer = await back.connection.request("task_recovering", task_id=task_id)
    generation = assign["generation"]
    assert answer == {"type": "task_continue", "task_id": task_id, "generation": generation}
    assert (await back.say("task_complete", assign, result={}))["status"] == "complete"


async def test_an_accepted_task_may_be_completed_at_once(join: Join, submit: Submit):
    """An agent that finished while it was away need not ask first."""
    agent = await join()
    await submit(agent.skill)
    assign = await agent.assigned()
    await agent.say("task_accepted", assign)
    agent.connection.cut()
    back = await join(again=agent)
    assert (await back.say("task_complete", assign, result={}))["status"] == "complete"


async def test_a_task_that_is_no_longer_the_agents(join: Join, submit: Submit):
    agent, other = await join(), await join()
    done = await submit(agent.skill)
    await agent.say("task_complete", await agent.assigned(), result={})
    others = await submit(other.skill)
    assign = await other.assigned()
    for task_id in (done, others, "task-0000000000000000"):
        answer = await agent.connection.request("task_recovering", task_id=task_id)
        assert answer == {"type": "task_reassign", "task_id": task_id}
    assert (await other.say("task_complete", assign, result={}))["status"] == "complete"


async def test_a_socket_identifies_once(join: Join, submit: Submit):
    agent = await join()
    about = {"agent_id": agent.agent_id, "token": agent.token}
    assert await refusal(agent, "identify", **about) == "invalid_message"
    task_id = await submit(agent.skill)
    assign = await agent.assigned()
    assert assign["task_id"] == task_id
    assert (await agent.say("task_complete", assign, result={}))["status"] == "complete"


# Presence, status, leaving


async def test_presence_only_for_those_who_ask(join: Join):
    curious, incurious = await join(presence=True), await join()
    assert (await curious.connection.next_push())["agent"]["agent_id"] == incurious.agent_id
    newcomer = await join(name="Newcomer")
    assert await newcomer.connection.request("status", status="busy") == {"type": "status_updated"}
    await newcomer.connection.request("sign_off")

    joined = await curious.connection.next_push()
    assert joined["type"] == "agent_joined"
    assert joined["agent"]["agent_id"] == newcomer.agent_id
    assert joined["agent"]["name"] == "Newcomer"
    assert joined["agent"]["capabilities"] == [newcomer.skill]
    changed = await curious.connection.next_push()
    assert changed["type"] == "status_changed"
    assert changed["agent"]["agent_id"] == newcomer.agent_id
    assert changed["agent"]["status"] == "busy"
    left = await curious.connection.next_push()
    assert left == {"type": "agent_left", "agent_id": newcomer.agent_id}

    # Had there been a push for the other, it would have come before this answer.
    await incurious.connection.request("ping")
    assert [frame["type"] for frame in incurious.seen] == ["identified", "pong"]


async def test_list_agents(join: Join):
    agent, other = await join(), await join()
    answer = await agent.connection.request("list_agents")
    assert answer["type"] == "agents"
    listed = {a["agent_id"]: a for a in answer["agents"]}
    assert {agent.agent_id, other.agent_id} <= listed.keys()
    assert listed[other.agent_id]["capabilities"] == [other.skill]


async def test_ping(agent: Member):
    pong = await agent.connection.request("ping")
    assert pong.keys() == {"type", "timestamp"}
    assert abs(pong["timestamp"] - time.time() * 1000) < 60_000


async def test_sign_off_is_a_planned_leave(
    hub: Hub, api: httpx.AsyncClient, socket: ClientConnection, identities: Any
):
    agent_id, token = next(identities)
    await ask(socket, {"type": "identify", "agent_id": agent_id, "token": token})
    assert await ask(socket, {"type": "sign_off"}) == {"type": "signed_off"}
    assert await close_code(socket) == 1000
    state = (await api.get("/api/dashboard/state")).json()
    assert agent_id not in [a["agent_id"] for a in state["agents"]]
    offline = [d for d in state["health"]["details"] if d["code"] == "agent_offline"]
    assert agent_id not in [subject for detail in offline for subject in detail["subjects"]]


async def test_signing_off_gives_the_task_back_at_once(join: Join, submit: Submit):
    leaving = await join()
    task_id = await submit(leaving.skill, max_retries=1)
    await leaving.say("task_accepted", await leaving.assigned())
    other = await join(capabilities=[leaving.skill])
    await leaving.connection.request("sign_off")
    again = await other.assigned()
    assert again["task_id"] == task_id
    assert (await other.say("task_complete", again, result={}))["status"] == "complete"
