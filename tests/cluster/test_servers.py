"""What both servers promise, each in a process of its own and in every run of the tests.

The other tests of real processes run on one server at a time, see the Makefile.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agentcom.servers.limits import MAX_FRAME, MAX_HEAD
from agentcom_client.connection import Connection
from agentcom_client.slot import COME_BACK
from lab.harness.hub import SERVERS, Cluster, Hub, free_port, web_command
from lab.harness.store import ROOT
from lab.kit.sockets import HOST, TEXT, frame
from tests.cluster.conftest import address
from tests.cluster.test_stop import accepts, nobody_can_write
from tests.flow.test_floods import send_until_it_stalls
from tests.flow.test_large_bodies import Post
from tests.flow.test_slow_clients import LIST, MORE_KB, flood, open_deaf

BOUND_S = 60
WRONG_TOKENS = 3  # that an agent may try
SKILLS = [f"{number:064}" for number in range(64)]  # so that a list of agents is large
SUBMISSION = b'{"description":"x"}'
CROWD = [f"one-of-{number}" for number in range(15)]


@pytest.fixture(scope="module", params=SERVERS)
def hub(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub"), server=request.param) as hub:
        yield hub


@pytest.fixture(scope="module")
def tokens(hub: Hub) -> dict[str, str]:
    return hub.tokens(["agent", "deaf", "flood", *CROWD])


# --- Close codes


async def closed_with(url: str, *messages: str) -> tuple[int | None, str]:
    async with connect(url, max_size=None) as socket:
        for message in messages:
            await socket.send(message)
        with suppress(ConnectionClosed):
            async for _ in socket:
                pass
        return socket.close_code, socket.close_reason or ""


async def test_a_wrong_token(hub: Hub) -> None:
    guess = json.dumps({"type": "identify", "agent_id": "agent", "token": "wrong"})
    assert (await closed_with(hub.ws_url, *[guess] * WRONG_TOKENS))[0] == 4401


@pytest.mark.parametrize("path", ["", "/tasks", "/dashboard"])
async def test_a_frame_that_is_too_large(hub: Hub, path: str) -> None:
    assert (await closed_with(hub.ws_url + path, "x" * (MAX_FRAME + 1)))[0] == 1009


async def test_the_newer_connection_of_an_agent(hub: Hub, tokens: dict[str, str]) -> None:
    async with await Connection.open(hub.ws_url) as old, await Connection.open(hub.ws_url) as new:
        for connection in (old, new):
            await connection.identify("agent", tokens["agent"])
        await old.socket.wait_closed()
        assert old.socket.close_code == 4409


async def test_no_such_socket(hub: Hub) -> None:
    for path, headers in (("/nowhere", {}), ("/dashboard", {"Origin": "https://other.example"})):
        with pytest.raises(InvalidStatus) as refused:
            await connect(hub.ws_url + path, additional_headers=headers)
        assert refused.value.response.status_code == 403


# --- Clients that do not read, and such as only write


async def test_a_client_that_stops_reading(hub: Hub, tokens: dict[str, str]) -> None:
    crowd = [await Connection.open(hub.ws_url) for _ in CROWD]
    for name, connection in zip(CROWD, crowd, strict=True):
        await connection.identify(name, tokens[name], capabilities=SKILLS)
    before_kb = hub.resident_kb
    _, writer = await open_deaf(hub.ws_url)
    identify = {"type": "identify", "agent_id": "deaf", "token": tokens["deaf"]}
    writer.write(frame(TEXT, json.dumps(identify).encode()))
    deaf = asyncio.create_task(flood(writer, LIST))
    while not deaf.done():  # meanwhile the others are answered
        assert (await crowd[0].request("ping"))["type"] == "pong"
    await deaf
    writer.close()
    assert hub.resident_kb - before_kb < MORE_KB
    for connection in crowd:
        await connection.close()


async def test_a_client_that_sends_more_than_is_handled(hub: Hub, tokens: dict[str, str]) -> None:
    reader, writer = await open_deaf(hub.ws_url)
    identify = {"type": "identify", "agent_id": "flood", "token": tokens["flood"]}
    writer.write(frame(TEXT, json.dumps(identify).encode()))
    await reader.readuntil(b"identified")
    about = {"type": "task_progress", "task_id": "task-1", "generation": 1, "progress": 1}
    messages = frame(TEXT, json.dumps({**about, "message": "x" * 500}).encode()) * 100
    before_kb = hub.resident_kb
    with nobody_can_write(hub):
        await send_until_it_stalls(writer, messages)
        more_kb = hub.resident_kb - before_kb
        writer.transport.abort()
    assert more_kb < MORE_KB


# --- Requests


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        (b"hello\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\n\r\n", 431, "headers_too_large"),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad_request"),
    ],
    ids=["no HTTP", "header", "target", "no ASCII"],
)
async def test_what_the_server_refuses_by_itself(
    hub: Hub, request_: bytes, status: int, error: str
) -> None:
    reader, writer = await asyncio.open_connection(HOST, hub.port)
    writer.write(request_)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert int(head.split()[1]) == status
    assert json.loads(body)["error"] == error


@pytest.mark.parametrize("path", ["/api/tasks", "/admin/login/"])
async def test_a_form_that_cannot_be_parsed(hub: Hub, tokens: dict[str, str], path: str) -> None:
    headers = {
        "Authorization": f"Bearer {tokens['agent']}",
        "Content-Type": "multipart/form-data; boundary=here",
    }
    async with httpx.AsyncClient(base_url=hub.url, headers=headers) as client:
        answer = await client.post(path, content=b"--here\r\nno header and no end")
    assert 400 <= answer.status_code < 500
    assert answer.content


async def test_a_body_of_a_caller_who_is_not_known(hub: Hub) -> None:
    async with Post(hub, Content_Length="100000") as post:
        assert (await post.answer())[0] == 401


async def test_a_body_that_is_too_large(hub: Hub, tokens: dict[str, str]) -> None:
    bearer = f"Bearer {tokens['agent']}"
    async with Post(hub, Content_Length=str(2**30), Authorization=bearer) as post:
        assert (await post.answer())[0] == 413


# --- The end. These stop the hub, so they come last.


class Submission:
    """A request that the hub cannot answer yet, because nobody can write."""

    def __init__(self, hub: Hub, token: str) -> None:
        self._post = Post(hub, Authorization=f"Bearer {token}", Content_Length=str(len(SUBMISSION)))
        self._probe = httpx.AsyncClient(base_url=hub.url)

    async def __aenter__(self) -> Submission:
        await self._post.__aenter__()
        self._post.writer.write(SUBMISSION)
        # The hub reads its connections in turn, so whoever is answered now came after it.
        assert (await self._probe.get("/health")).status_code == 200
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._post.__aexit__(*error)
        await self._probe.aclose()

    async def health(self) -> int:
        """What a load balancer is told over a connection that it has already."""
        return (await self._probe.get("/health")).status_code

    async def answer(self) -> tuple[int, object]:
        return await self._post.answer()

    async def rest(self) -> bytes:
        """What still comes, until the connection ends in whatever way."""
        with suppress(ConnectionError):
            return await self._post.reader.read()
        return b""


async def test_a_stop(hub: Hub, tokens: dict[str, str]) -> None:
    [web] = hub.webs
    async with await Connection.open(hub.ws_url) as idle:
        await idle.identify("agent", tokens["agent"])
        with ExitStack() as held:
            held.enter_context(nobody_can_write(hub))
            async with Submission(hub, tokens["agent"]) as submission:
                web.send(signal.SIGTERM)
                await idle.socket.wait_closed()
                assert idle.socket.close_code == 1012
                assert COME_BACK.search(idle.socket.close_reason or "")
                assert not accepts(web)
                assert await submission.health() == 503
                held.close()  # now it can be answered
                status, _ = await submission.answer()
                assert status == 201
    assert await asyncio.to_thread(web.ended) == 0
    assert hub.rows("SELECT count(*) FROM agentcom_node") == [(0,)]
    await asyncio.to_thread(web.start)


async def test_a_second_signal(hub: Hub, tokens: dict[str, str]) -> None:
    [web] = hub.webs
    async with await Connection.open(hub.ws_url) as idle:
        await idle.identify("agent", tokens["agent"])
        with nobody_can_write(hub):
            async with Submission(hub, tokens["agent"]) as submission:
                web.send(signal.SIGTERM)
                await idle.socket.wait_closed()
                web.send(signal.SIGTERM)
                assert await submission.rest() == b""
    await asyncio.to_thread(web.ended)
    await asyncio.to_thread(web.start)


# --- uvicorn's own command line


def test_an_option_that_would_end_the_hub_is_refused(tmp_path: Path) -> None:
    hub = Cluster(tmp_path, webs=1, workers=0, server="uvicorn")
    done = subprocess.run(
        [sys.executable, *web_command("uvicorn", free_port()), "--limit-max-requests", "9"],
        cwd=ROOT,
        env=hub.environment,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
    )
    assert done.returncode == 3
    assert "--limit-max-requests would end the hub" in done.stderr


async def test_without_its_lifespan_the_hub_serves_nothing(tmp_path: Path) -> None:
    hub = Cluster(tmp_path, webs=1, workers=0, server="uvicorn")
    [web] = hub.webs
    web._command = [*web._command, "--lifespan", "off"]
    web.launch()
    try:
        async with asyncio.timeout(BOUND_S), httpx.AsyncClient(base_url=address(web)) as client:
            while not accepts(web):  # noqa: ASYNC110 – what is asked is another process
                await asyncio.sleep(0.05)
            answer = await client.get("/health")
    finally:
        web.kill()
    assert answer.status_code == 503
    assert "--lifespan off" in answer.json()["detail"]


@pytest.mark.parametrize("options", [["--ws", "none"], ["--http", "h11", "--loop", "asyncio"]])
async def test_other_options_change_none_of_the_limits(tmp_path: Path, options: list[str]) -> None:
    hub = Cluster(tmp_path, webs=1, workers=0, server="uvicorn")
    [web] = hub.webs
    web._command = [*web._command, *options]
    with hub:
        assert (await closed_with(hub.ws_url, "x" * (MAX_FRAME + 1)))[0] == 1009
        async with Post(hub, Content_Length="100000") as post:
            assert (await post.answer())[0] == 401
