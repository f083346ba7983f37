"""What may be submitted over HTTP, and what is refused, changes nothing and names the mistake.

No agent ever joins here, so all that is taken stays queued.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.flow.contract import TASK, assert_shape, is_json

KIB = 1024
MIB = 1024 * KIB
TASK_ID = re.compile(r"task-[0-9a-f]{16}")
UNAUTHORIZED = {"error": "unauthorized", "hint": "provide Authorization: Bearer <token>"}


# On an upgraded database there are tasks of agents that are gone: none of them is taken back while
# a test compares the counts.
SETTINGS = {"AGENTCOM_RECLAIM_GRACE_S": "600", "AGENTCOM_ACCEPT_TIMEOUT_S": "600"}


@asynccontextmanager
async def nothing_changes(api: httpx.AsyncClient) -> AsyncIterator[None]:
    before = (await api.get("/api/tasks/stats")).json()
    yield
    assert (await api.get("/api/tasks/stats")).json() == before


async def send(
    api: httpx.AsyncClient, body: bytes | str, path: str = "/api/tasks", **headers: str
) -> httpx.Response:
    return await api.post(
        path, content=body, headers={"Content-Type": "application/json", **headers}
    )


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    "header",
    [b"", b"Bearer", b"Bearer wrong", b"Basic d3Jvbmc=", b"Bearer a b", b"\xff\xfe"],
)
async def test_with_a_wrong_token(api: httpx.AsyncClient, header: bytes):
    async with nothing_changes(api):
        headers = {b"Authorization": header}
        answer = await api.post("/api/tasks", json={"description": "x"}, headers=headers)
        assert answer.status_code == 401
        assert answer.json() == UNAUTHORIZED


# Submit


async def test_submit(api: httpx.AsyncClient):
    answer = await api.post("/api/tasks", json={"description": "Sweep the yard"})
    assert answer.status_code == 201
    receipt = answer.json()
    assert TASK_ID.fullmatch(receipt["task_id"])
    assert receipt["status"] == "queued"
    assert receipt["priority"] == 2
    assert abs(receipt["created_at"] - time.time() * 1000) < 60_000

    task = (await api.get(f"/api/tasks/{receipt['task_id']}")).json()
    assert_shape(task, TASK)
    assert task["id"] == receipt["task_id"]
    assert task["description"] == "Sweep the yard"
    assert task["metadata"] == {}
    assert task["status"] == "queued"
    assert task["generation"] == task["retry_count"] == 0
    assert task["max_retries"] == 3
    assert task["needed_capabilities"] == []
    assert task["created_at"] == receipt["created_at"]
    [entry] = task["history"]
    assert entry["event"] == "task_submitted"
    assert entry["timestamp"] == receipt["created_at"]


LATER = datetime(2999, 1, 1, tzinfo=UTC)
LATER_MS = int(LATER.timestamp() * 1000)


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("description", "x", "x"),
        ("description", "🛠" * 16_384, "🛠" * 16_384),
        ("description", '<script>alert("1")</script>\n\t', '<script>alert("1")</script>\n\t'),
        *[("priority", name, n) for n, name in enumerate(("urgent", "high", "normal", "low"))],
        *[("priority", n, n) for n in range(4)],
        ("metadata", {}, {}),
        (
            "metadata",
            {"a": [1, 2.5, None, True, {"ü": "🛠"}]},
            {"a": [1, 2.5, None, True, {"ü": "🛠"}]},
        ),
        ("metadata", {"x": "x" * 60 * KIB}, {"x": "x" * 60 * KIB}),
        ("metadata", nested(50), nested(50)),
        ("max_retries", 0, 0),
        ("max_retries", 100, 100),
        ("complete_by", LATER_MS, LATER_MS),
        ("complete_by", LATER.isoformat(), LATER_MS),
        ("complete_by", LATER.isoformat().replace("+00:00", "Z"), LATER_MS),
        ("needed_capabilities", [], []),
        ("needed_capabilities", ["code", "review"], ["code", "review"]),
        ("needed_capabilities", [str(n) for n in range(32)], [str(n) for n in range(32)]),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_a_task_may_say(api: httpx.AsyncClient, field: str, value: object, kept: object):
    answer = await api.post("/api/tasks", json={"description": "Do it", field: value})
    assert answer.status_code == 201, answer.text
    task = (await api.get(f"/api/tasks/{answer.json()['task_id']}")).json()
    assert task[field] == kept


PAST = datetime(2026, 1, 1, tzinfo=UTC)
PAST_MS = int(PAST.timestamp() * 1000)
BAD_VALUES: dict[str, list[object]] = {
    "description": [
        *(None, "", 7, ["x"], {}, True, "x" * 16_385),
        *("nul\0", "\ud800", "a\udfffb"),
    ],
    "priority": ["soon", "", "2.0", 4, -1, 1.5, True, [], {}, 10**30],
    "metadata": [
        *([], "x", 7, True, {"x": "x" * 65 * KIB}, nested(500)),
        *({"x": "\ud800"}, {"\ud800": 1}, {"x": "\0"}, {"\0": 1}),
    ],
    "max_retries": [-1, 101, "3", 1.5, True, [], 10**30],
    "complete_by": ["tomorrow", "", -1, 0, PAST_MS, PAST.isoformat(), True, [], 10**30, 1e300],
    "needed_capabilities": [
        *("code", [1], [None], [[]], {}, [""], ["nul\0"], ["\ud800"], ["x" * 20_000]),
        [str(n) for n in range(33)],
    ],
}
BAD_FIELDS = [(field, bad) for field, values in BAD_VALUES.items() for bad in values]


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS, ids=lambda value: ascii(value)[:30])
async def test_a_bad_field_is_named_and_queues_nothing(
    api: httpx.AsyncClient, field: str, value: object
):
    task = {"description": "Do it", field: value}
    async with nothing_changes(api):
        answer = await send(api, json.dumps(task))
        assert answer.status_code == 400, answer.text
        assert field in answer.json()["error"]
        assert is_json(answer)


@pytest.mark.parametrize("value", [1, None])
async def test_a_field_that_nobody_knows_is_named_and_queues_nothing(
    api: httpx.AsyncClient, value: object
):
    async with nothing_changes(api):
        answer = await api.post("/api/tasks", json={"description": "x", "prioritiy": value})
        assert answer.status_code == 400
        meant = "prioritiy: is not known; did you mean priority?"
        assert answer.json() == {"error": meant, "field": "prioritiy"}
        tasks = [{"description": "x"}, {"description": "x", "colour": value}]
        answer = await api.post("/api/tasks", json=tasks)
        assert answer.status_code == 400
        unknown = {"error": "colour: is not known", "field": "colour", "index": 1}
        assert answer.json() == unknown
        name = json.dumps({"description": "x", "\ud800": value})
        answer = await send(api, name)
        assert answer.status_code == 400
        assert is_json(answer)


async def test_a_query_parameter_that_nobody_knows_is_ignored(api: httpx.AsyncClient):
    assert (await api.get("/api/tasks?utm_source=mail&limit=1")).status_code == 200
    assert (await api.get("/api/tasks?limits=1")).status_code == 400


async def test_the_description_is_required(api: httpx.AsyncClient):
    async with nothing_changes(api):
        answer = await api.post("/api/tasks", json={"priority": "high"})
        assert answer.status_code == 400
        assert "description" in answer.json()["error"]


BAD_BODIES: list[bytes] = [
    b"",
    b" ",
    b"{",
    b'{"description":"x"',
    b"description=x",
    b"null",
    b"7",
    b'"x"',
    b"true",
    b"[]",
    b"[[]]",
    b'["x"]',
    b'{"description":"x","metadata":{"x":NaN}}',
    b'{"description":"x","metadata":{"x":-Infinity}}',
    b'{"description":"x"}{"description":"x"}',
    b'{"description":"\xff"}',
    b'{"description":"\\ud800"}',
    b"[" * 100_000,
    b'{"description":"x","metadata":' + b'{"x":' * 100_000 + b"1" + b"}" * 100_001,
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: repr(body)[:40])
async def test_a_body_that_is_no_task(api: httpx.AsyncClient, body: bytes):
    async with nothing_changes(api):
        answer = await send(api, body)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]
        assert is_json(answer)


async def test_of_duplicate_keys_the_last_counts(api: httpx.AsyncClient):
    answer = await send(api, '{"description":"first","description":"last"}')
    assert answer.status_code == 201
    task = (await api.get(f"/api/tasks/{answer.json()['task_id']}")).json()
    assert task["description"] == "last"


@pytest.mark.parametrize("digits", [19, 20, 400, 5000])
async def test_a_huge_integer_is_kept_or_refused(api: httpx.AsyncClient, digits: int):
    number = int("9" * digits) if digits < 4000 else None
    before = (await api.get("/api/tasks/stats")).json()
    answer = await send(api, '{"description":"x","metadata":{"n":' + "9" * digits + "}}")
    if answer.status_code == 201:
        task = (await api.get(f"/api/tasks/{answer.json()['task_id']}")).json()
        assert task["metadata"]["n"] in (number, float("9" * min(digits, 300)))
    else:
        assert answer.status_code == 400
        assert (await api.get("/api/tasks/stats")).json() == before


async def test_a_thousand_at_once_and_no_more(api: httpx.AsyncClient):
    tasks = [{"description": f"No. {n}"} for n in range(1001)]
    async with nothing_changes(api):
        assert (await api.post("/api/tasks", json=tasks)).status_code == 400
    answer = await api.post("/api/tasks", json=tasks[:1000])
    assert answer.status_code == 201
    assert answer.json()["count"] == len(answer.json()["tasks"]) == 1000
    assert len({receipt["task_id"] for receipt in answer.json()["tasks"]}) == 1000


@pytest.mark.parametrize(
    "bad",
    [{}, {"description": ""}, {"description": "x", "priority": 9}, None, 7, "x", []],
    ids=lambda bad: json.dumps(bad),
)
async def test_one_bad_element_spoils_the_array(api: httpx.AsyncClient, bad: object):
    good = {"description": "fine"}
    async with nothing_changes(api):
        answer = await api.post("/api/tasks", json=[good, good, bad, good])
        assert answer.status_code == 400
        assert answer.json()["index"] == 2


async def test_larger_bodies_for_arrays_only(api: httpx.AsyncClient):
    padding = " " * MIB
    async with nothing_changes(api):
        single = await send(api, '{"description":"x"}' + padding)
        assert single.status_code == 413
        assert is_json(single)
        array = await send(api, '[{"description":"x"}]' + padding * 8)
        assert array.status_code == 413
        assert is_json(array)
    tasks = [{"description": "x" * 16_000} for _ in range(150)]
    assert (await api.post("/api/tasks", json=tasks)).status_code == 201


async def test_the_limit_holds_for_a_body_of_unknown_length(api: httpx.AsyncClient):
    async def drops() -> AsyncIterator[bytes]:
        yield b'[{"description":"x"}]'
        for _ in range(9):
            yield b" " * MIB

    async with nothing_changes(api):
        try:
            answer = await api.post(
                "/api/tasks", content=drops(), headers={"Content-Type": "application/json"}
            )
        except httpx.WriteError:  # the hub hung up before it had read all of that
            return
        assert answer.status_code == 413


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
async def test_json_only(api: httpx.AsyncClient, content_type: str):
    async with nothing_changes(api):
        headers = {"Content-Type": content_type}
        answer = await api.post("/api/tasks", content='{"description":"x"}', headers=headers)
        assert answer.status_code == 415
        assert is_json(answer)


# Idempotency-Key


async def test_the_same_key_queues_once(api: httpx.AsyncClient):
    headers = {"Idempotency-Key": "order-4711"}
    first = await api.post("/api/tasks", json={"description": "once"}, headers=headers)
    assert first.status_code == 201
    async with nothing_changes(api):
        again = await api.post("/api/tasks", json={"description": "twice"}, headers=headers)
        assert again.status_code == 201
        assert again.json() == first.json()


async def test_the_same_key_of_two_requests_at_once(api: httpx.AsyncClient):
    headers = {"Idempotency-Key": "all-at-once"}
    answers = await asyncio.gather(
        *(api.post("/api/tasks", json={"description": "x"}, headers=headers) for _ in range(8))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["task_id"] for answer in answers}) == 1


async def test_a_key_of_an_array_gives_all_its_receipts_whatever_the_body(api: httpx.AsyncClient):
    headers = {"Idempotency-Key": "array-first"}
    tasks = [{"description": "one"}, {"description": "two"}]
    first = await api.post("/api/tasks", json=tasks, headers=headers)
    async with nothing_changes(api):
        for body in (tasks, tasks[0], tasks[:1]):
            again = await api.post("/api/tasks", json=body, headers=headers)
            assert (again.status_code, again.json()) == (201, first.json())


async def test_a_key_of_one_task_answers_in_the_form_of_the_body(api: httpx.AsyncClient):
    headers = {"Idempotency-Key": "single-first"}
    task = {"description": "one"}
    first = await api.post("/api/tasks", json=task, headers=headers)
    async with nothing_changes(api):
        again = await api.post("/api/tasks", json=[task, task], headers=headers)
        assert again.json() == {"tasks": [first.json()], "count": 1}
        again = await api.post("/api/tasks", json=task, headers=headers)
        assert again.json() == first.json()


async def test_a_key_is_its_tokens_own(
    api: httpx.AsyncClient, identities: Iterator[tuple[str, str]]
):
    _, token = next(identities)
    headers = {"Idempotency-Key": "mine"}
    mine = await api.post("/api/tasks", json={"description": "x"}, headers=headers)
    headers["Authorization"] = f"Bearer {token}"
    theirs = await api.post("/api/tasks", json={"description": "x"}, headers=headers)
    assert mine.json()["task_id"] != theirs.json()["task_id"]


async def test_a_key_for_an_array(api: httpx.AsyncClient):
    headers = {"Idempotency-Key": "k" * 128}
    tasks = [{"description": "a"}, {"description": "b"}]
    first = await api.post("/api/tasks", json=tasks, headers=headers)
    assert first.status_code == 201
    async with nothing_changes(api):
        again = await api.post("/api/tasks", json=tasks, headers=headers)
        assert again.json() == first.json()


async def test_a_refused_request_does_not_use_up_its_key(api: httpx.AsyncClient):
    headers = {"Idempotency-Key": "second-try"}
    bad = await api.post("/api/tasks", json={"description": ""}, headers=headers)
    assert bad.status_code == 400
    good = await api.post("/api/tasks", json={"description": "x"}, headers=headers)
    assert good.status_code == 201


async def test_what_is_said_again_after_its_deadline_gets_the_first_answer(api: httpx.AsyncClient):
    soon = int(time.time() * 1000) + 700
    task = {"description": "x", "complete_by": soon}
    headers = {"Idempotency-Key": "deadline"}
    first = await api.post("/api/tasks", json=task, headers=headers)
    assert first.status_code == 201
    await asyncio.sleep(soon / 1000 - time.time() + 0.1)
    again = await api.post("/api/tasks", json=task, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    late = await api.post("/api/tasks", json=task, headers={"Idempotency-Key": "another"})
    assert (late.status_code, late.json()["field"]) == (400, "complete_by")


async def test_a_key_that_is_too_long(api: httpx.AsyncClient):
    async with nothing_changes(api):
        headers = {"Idempotency-Key": "k" * 129}
        answer = await api.post("/api/tasks", json={"description": "x"}, headers=headers)
        assert answer.status_code == 400
        assert "Idempotency-Key" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/tasks/task-%00", 404),
        ("/api/tasks?assigned_to=a%00", 400),
        ("/api/tasks?cursor=%00", 400),
        ("/api/agents/%00/state", 404),
        ("/api/dashboard/tasks/%00", 404),
        ("/api/dashboard/dead-letters?group=%00", 400),
    ],
)
async def test_an_address_with_a_nul(api: httpx.AsyncClient, path: str, status: int):
    answer = await api.get(path)
    assert answer.status_code == status
    assert answer.json()["error"]


async def test_a_retry_of_a_task_with_a_nul(api: httpx.AsyncClient):
    answer = await api.post("/api/tasks/%00/retry")
    assert answer.status_code == 404
    assert answer.json()["error"] == "task_not_found"
