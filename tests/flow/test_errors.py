"""The errors over HTTP that no other test of this folder is about, each produced once."""

from __future__ import annotations

import asyncio
import json
import logging

import httpx
import pytest

from agentcom.api import error_answer

MOST_HOLDS = 1_000


async def test_a_nul_in_a_cookie(api: httpx.AsyncClient):
    answer = await api.get("/api/dashboard/state", headers={"Cookie": 'sessionid="\\000"'})
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


async def test_a_method_that_an_address_does_not_have(api: httpx.AsyncClient):
    answer = await api.put("/api/tasks", json={})
    assert (answer.status_code, answer.json()["error"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD, POST"


async def test_a_body_that_says_it_is_no_json(api: httpx.AsyncClient):
    answer = await api.post("/api/tasks", content="x", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]) == (415, "unsupported_media_type")


async def test_too_many_holds(api: httpx.AsyncClient):
    room = asyncio.Semaphore(50)

    async def place(number: int) -> httpx.Response:
        hold = {"scope": "capability", "subject": f"nobody-{number}", "reason": "a test"}
        async with room:
            return await api.post("/api/holds", json=hold)

    placed = await asyncio.gather(*(place(number) for number in range(MOST_HOLDS)))
    assert {answer.status_code for answer in placed} == {201}
    refused = await place(MOST_HOLDS)
    assert (refused.status_code, refused.json()["error"]) == (409, "too_many_holds")
    lifted = await api.delete(f"/api/holds/{placed[0].json()['id']}")
    assert lifted.status_code == 200
    assert (await place(MOST_HOLDS)).status_code == 201


def test_a_bug_is_told_without_its_traceback(caplog: pytest.LogCaptureFixture):
    """A hub has none that could be called, so this is the answer alone."""
    with caplog.at_level(logging.CRITICAL, logger="agentcom.api"):
        answer = error_answer(RuntimeError("secret"))
    told = json.loads(answer.content)
    assert (answer.status_code, told) == (500, {"error": "internal_error"})
