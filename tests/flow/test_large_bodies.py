"""Bodies that are too large, or come from nobody that the hub knows, are refused before they are
kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.harness.hub import Hub

MORE_KB = 24 * 1024  # that such a body may cost the hub
HUGE = 200 * 1024 * 1024
LIMIT = 8 * 1024 * 1024
SOME = 100_000  # bytes, beyond what is read of anybody
PIECE = 64 * 1024


class Post:
    """A request whose body the test sends itself."""

    def __init__(self, hub: Hub, path: str = "/api/tasks", **headers: str) -> None:
        self.hub = hub
        lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{hub.port}"]
        lines += ["Content-Type: application/json"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.head = "\r\n".join([*lines, "", ""]).encode()

    async def __aenter__(self) -> Post:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.hub.port)
        self.writer.write(self.head)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def answer(self) -> tuple[int, Any]:
        """Status and body. The hub closes the connection after it."""
        head, _, body = (await self.reader.read()).partition(b"\r\n\r\n")
        assert b"connection: close" in head.lower()
        return int(head.split()[1]), json.loads(body)

    async def send(self, size: int, piece: Callable[[bytes], bytes] = bytes) -> None:
        for _ in range(size // PIECE):
            self.writer.write(piece(b" " * PIECE))
            await self.writer.drain()


def chunk(piece: bytes) -> bytes:
    return f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


@pytest.fixture
def bearer(identities: Iterator[tuple[str, str]]) -> str:
    _, token = next(identities)
    return f"Bearer {token}"


async def test_a_large_body_without_a_token_is_refused_before_it_comes(hub: Hub) -> None:
    for path in ("/api/tasks", "/admin/login/", "/nowhere"):
        async with Post(hub, path, Content_Length=str(HUGE)) as post:
            status, answer = await post.answer()
        assert (status, answer["error"]) == (401, "unauthorized")


async def test_a_large_body_with_a_wrong_token_is_refused_before_it_comes(hub: Hub) -> None:
    async with Post(hub, Content_Length=str(SOME), Authorization="Bearer wrong") as post:
        assert (await post.answer())[0] == 401


async def test_a_session_that_nobody_has_is_no_reason_to_read_on(hub: Hub) -> None:
    cookie = "agentcom_session=aaaaaaaaaaaaaaaaaaaaaaaa"
    async with Post(hub, "/admin/login/", Content_Length=str(SOME), Cookie=cookie) as post:
        assert (await post.answer())[0] == 401


async def test_a_body_beyond_the_limit_is_refused_before_it_comes(hub: Hub, bearer: str) -> None:
    async with Post(hub, Content_Length=str(LIMIT + 1), Authorization=bearer) as post:
        assert await post.answer() == (413, {"error": "body_too_large", "limit": LIMIT})


async def test_chunks_beyond_the_limit_are_refused_as_they_come(hub: Hub, bearer: str) -> None:
    async with Post(hub, Transfer_Encoding="chunked", Authorization=bearer) as post:
        await post.send(LIMIT + PIECE, chunk)
        assert await post.answer() == (413, {"error": "body_too_large", "limit": LIMIT})


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_nothing_is_kept_of_who_goes_on_sending_all_the_same(
    hub: Hub, is_chunked: bool
) -> None:
    before_kb = hub.resident_kb
    how = {"Transfer_Encoding": "chunked"} if is_chunked else {"Content_Length": str(HUGE)}
    async with Post(hub, **how) as post:
        await post.send(HUGE // 4, chunk if is_chunked else bytes)
        more_kb = hub.resident_kb - before_kb
        assert (await post.answer())[0] == 401
    assert more_kb < MORE_KB


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_a_large_body_with_a_token_is_taken(hub: Hub, bearer: str, is_chunked: bool) -> None:
    tasks = [{"description": f"Task {number}" + "x" * 3_000} for number in range(500)]
    body = json.dumps(tasks).encode()
    how = {"Transfer_Encoding": "chunked"} if is_chunked else {"Content_Length": str(len(body))}
    async with Post(hub, Authorization=bearer, Connection="close", **how) as post:
        if is_chunked:
            pieces = [body[at : at + PIECE] for at in range(0, len(body), PIECE)]
            body = b"".join(map(chunk, pieces)) + b"0\r\n\r\n"
        post.writer.write(body)
        status, answer = await post.answer()
    assert status == 201
    assert len(answer["tasks"]) == len(tasks)
