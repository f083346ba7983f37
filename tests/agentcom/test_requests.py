"""How large a request may be, and how slowly it may come, under both servers."""

from __future__ import annotations

import pytest

from agentcom.servers.limits import (
    BODY_S,
    FREE_BODY,
    HEAD_S,
    IDLE_S,
    LINGER_S,
    MAX_BODY,
    MAX_HEAD,
    SLOWEST,
)
from tests.agentcom.http_clients import Client, DaphneClient, UvicornClient

HEAD = b"POST /api/tasks HTTP/1.1\r\nHost: hub\r\n"
TOKEN = b"Authorization: Bearer x\r\n"
DRIP_S = 5

Either = DaphneClient | UvicornClient


@pytest.fixture(params=[DaphneClient, UvicornClient], ids=["daphne", "uvicorn"])
async def client(request: pytest.FixtureRequest) -> Either:
    client: Either = request.param()
    return client


# --- Time


async def test_a_head_that_does_not_end(client: Client) -> None:
    assert await client.drip(HEAD + b"X" * 200, DRIP_S) == HEAD_S
    assert client.said.startswith(b"HTTP/1.1 408 ")


async def test_empty_lines_that_do_not_end(client: Client) -> None:
    assert await client.drip(b"\r\n" * 200, DRIP_S) <= HEAD_S


async def test_a_body_that_does_not_end(client: Client) -> None:
    await client.send(HEAD + b"Content-Length: 1000\r\n\r\n")
    assert BODY_S <= await client.drip(b"x" * 900, DRIP_S) <= BODY_S + DRIP_S
    assert client.said.startswith(b"HTTP/1.1 408 ")


async def test_chunks_that_do_not_end(client: Client) -> None:
    await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    assert await client.drip(b"1\r\nx\r\n" * 100, DRIP_S) <= BODY_S + DRIP_S
    assert client.said.startswith(b"HTTP/1.1 408 ")


async def test_a_larger_body_has_more_time(client: Client) -> None:
    await client.send(HEAD + f"Content-Length: {SLOWEST}\r\n\r\n".encode())
    client.clock.advance(BODY_S + 0.5)
    assert not client.is_ended()
    await client.send(b"x" * SLOWEST)
    assert client.said.startswith(b"HTTP/1.1 200 ")


async def test_a_connection_on_which_nothing_is_asked(client: Client) -> None:
    client.clock.advance(IDLE_S - 1)
    await client.send(HEAD + b"\r\n")
    client.clock.advance(IDLE_S - 1)
    assert not client.is_ended()
    client.clock.advance(2)
    assert client.is_ended()
    assert client.said.count(b"HTTP/1.1") == 1  # nothing but the answer


async def test_a_second_request_has_a_time_of_its_own(client: Client) -> None:
    await client.send(HEAD + b"\r\n")
    client.clock.advance(IDLE_S - 1)
    await client.send(HEAD)
    client.clock.advance(HEAD_S - 1)
    assert not client.is_ended()
    await client.send(b"\r\n")
    assert client.said.count(b"HTTP/1.1 200 ") == 2


async def test_a_client_that_was_refused_and_stays_is_cut_off(client: Either) -> None:
    await client.send(HEAD + b"Content-Length: 100000\r\n\r\n")
    assert client.said.startswith(b"HTTP/1.1 401 ")
    await client.send(b"x" * 1000)
    client.clock.advance(LINGER_S)
    assert client.is_cut()


# --- Size


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"X: abcdefghij\r\n" * 1_400,
    ],
    ids=["target", "line", "line without end", "lines"],
)
async def test_a_head_that_is_too_large(client: Client, head: bytes) -> None:
    await client.send(head + b"\r\n")
    assert client.said.startswith(b"HTTP/1.1 431 ")
    assert client.said.endswith(b'{"error":"headers_too_large","limit":16384}')
    assert client.said.count(b"HTTP/1.1") == 1


async def test_a_head_of_nearly_the_limit(client: Client) -> None:
    await client.send(HEAD + b"X: " + b"x" * (MAX_HEAD - 200) + b"\r\n\r\n")
    assert client.said.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("size", [FREE_BODY + 1, MAX_BODY])
async def test_a_large_body_of_a_known_caller(client: Client, size: int) -> None:
    await client.send(HEAD + TOKEN + f"Content-Length: {size}\r\n\r\n".encode())
    await client.send(b"x" * size)
    assert client.said.startswith(b"HTTP/1.1 200 ")


async def test_a_large_body_of_a_caller_who_is_not_known(client: Client) -> None:
    client.is_known = False
    await client.send(HEAD + TOKEN + f"Content-Length: {FREE_BODY + 1}\r\n\r\n".encode())
    assert client.said.startswith(b"HTTP/1.1 401 ")


async def test_chunks_that_are_too_large_together(client: Client) -> None:
    await client.send(HEAD + TOKEN + b"Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"%x\r\n%b\r\n" % (FREE_BODY, b"x" * FREE_BODY)
    for _ in range(MAX_BODY // FREE_BODY):
        await client.send(chunk)
    assert client.said == b""
    await client.send(chunk)
    assert client.said.startswith(b"HTTP/1.1 413 ")


# --- What cannot be parsed


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    ],
    ids=["no request line", "no colon", "no length", "no chunk", "two lengths", "TLS"],
)
async def test_what_is_no_http_is_refused_in_json(client: Client, request_: bytes) -> None:
    await client.send(request_)
    assert client.said.startswith(b"HTTP/1.1 400 ")
    assert b"Content-Type: application/json" in client.said
    assert b'{"error":"bad_request","detail":"' in client.said
    assert client.is_ended()


async def test_what_comes_before_it_is_answered_first(client: Client) -> None:
    await client.send(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\nhello\r\n\r\n")
    assert client.said.index(b"HTTP/1.1 200 ") < client.said.index(b"HTTP/1.1 400 ")


async def test_requests_that_come_together_are_answered_in_order(client: Client) -> None:
    for _ in range(3):
        await client.send(HEAD + b"Content-Length: 2\r\n\r\nxx" + HEAD + b"\r\n")
    assert client.said.count(b"HTTP/1.1 200 ") == 6
    assert not client.is_ended()
