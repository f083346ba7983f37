"""An agent's socket whose end is committed in the group of its `identify`, and so comes first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from agentcom.models import Event
from agentcom.rights import Caller, Grant
from agentcom.work import Command
from fleet import consumers
from fleet.consumers import AgentConsumer, follow_journal
from fleet.dispatcher import dispatcher
from fleet.presence import Identified, Identify, hash_of
from fleet.tokens import token_check

AGENT, TOKEN, ELSEWHERE = "a-1", "secret", "another connection"
CALLER = Caller(AGENT, Grant(), hash_of(TOKEN), hash_of(TOKEN))
PUSH = {"type": "task_assign", "task_id": "task-1", "metadata": {"key": "value"}}


class Group:
    """The Writer commits `identify` together with what ends the connection, and says that first."""

    def __init__(self, *ends: tuple[str, dict[str, Any]]) -> None:
        self.ends = ends

    async def do(self, command: Command) -> Any:
        if not isinstance(command, Identify):
            return None
        here = {"connection": command.connection}
        joined = event(5, "agent_joined", agent={}, **here)
        later = [event(6, kind, **{**here, **data}) for kind, data in self.ends]
        follow_journal([joined, *later])
        return Identified(PUSH, joined.seq)


def event(seq: int, kind: str, **data: Any) -> Event:
    return Event(seq=seq, kind=kind, agent_id=AGENT, task_id=data.pop("task_id", None), data=data)


class Connection:
    """What goes out over the socket."""

    def __init__(self) -> None:
        self.consumer = AgentConsumer()
        self.frames: list[dict[str, Any]] = []
        self.closed: list[int] = []

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.close":
            self.closed.append(message["code"])
        elif message["type"] == "websocket.send":
            self.frames.append(orjson.loads(message["text"]))


@pytest.fixture
async def connection(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connection]:
    for name in ("newest_joins", "newest_departures", "cancellations"):
        monkeypatch.setattr(consumers, name, {})
    monkeypatch.setattr(token_check, "_revoked", set())
    monkeypatch.setattr(token_check, "_known", {CALLER.token_hash: (float("inf"), CALLER)})
    yield Connection()
    dispatcher.sockets.clear()


async def identify(connection: Connection, **about: Any) -> None:
    """Until the socket is closed, or has identified itself."""
    message = {"type": "identify", "agent_id": AGENT, "token": TOKEN, **about}
    frames: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": orjson.dumps(message).decode()},
        {"type": "websocket.disconnect", "code": 1000},
    ]
    waiting = iter(frames)

    async def receive() -> dict[str, Any]:
        message = next(waiting)
        if message["type"] == "websocket.disconnect":
            connection.frames.append({"sockets": list(dispatcher.sockets)})
        return message

    await connection.consumer({"type": "websocket"}, receive, connection.send)


@pytest.mark.parametrize(
    ("kind", "data", "code"),
    [
        ("token_revoked", {"token_hash": hash_of(TOKEN)}, 4401),
        ("agent_joined", {"agent": {}, "connection": ELSEWHERE}, 4409),
        ("agent_left", {"signed_off": False}, 1012),
    ],
)
async def test_an_end_that_comes_before_the_socket_joins_is_remembered(
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    data: dict[str, Any],
    code: int,
) -> None:
    monkeypatch.setattr(consumers, "writer", Group((kind, data)))
    await identify(connection)
    assert connection.closed == [code]
    assert PUSH not in connection.frames
    assert connection.frames[-1] == {"sockets": []}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("token_revoked", {"token_hash": hash_of("another token of the agent")}),
        ("agent_left", {"signed_off": False, "connection": ELSEWHERE}),
    ],
)
async def test_the_end_of_something_else_is_not_taken_for_its_own(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, kind: str, data: dict[str, Any]
) -> None:
    monkeypatch.setattr(consumers, "writer", Group((kind, data)))
    await identify(connection)
    assert connection.closed == []
    assert PUSH in connection.frames
    assert connection.frames[-1] == {"sockets": [AGENT]}


CANCEL = {"task_id": "task-1", "generation": 1, "reason": "", "deadline": 1}


async def test_a_cancel_that_comes_before_the_socket_joins_follows_the_assignment(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "writer", Group(("task_cancel_requested", CANCEL)))
    await identify(connection, accepts=["cancel"])
    assert connection.frames[1:-1] == [PUSH, {"type": "task_cancel", **CANCEL}]


async def test_a_cancel_that_was_dealt_with_elsewhere_does_not_replace_the_assignment(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process has not heard yet that the task has ended, and its agent has got another."""
    follow_journal([event(4, "task_cancel_requested", **{**CANCEL, "task_id": "task-0"})])
    monkeypatch.setattr(consumers, "writer", Group())
    await identify(connection, accepts=["cancel"])
    assert connection.frames[1:-1] == [PUSH]


async def test_a_token_that_was_just_checked_is_refused_once_it_is_revoked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_check, "_known", {hash_of(TOKEN): (float("inf"), CALLER)})
    monkeypatch.setattr(token_check, "_revoked", set())
    assert await token_check.caller(TOKEN) == CALLER
    follow_journal([event(5, "token_revoked", token_hash=hash_of(TOKEN))])
    assert await token_check.caller(TOKEN) is None
