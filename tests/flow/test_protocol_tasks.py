"""The agent socket: what is said about a task, and what the fencing refuses."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest

from lab.kit.member import Member
from tests.flow.conftest import Join, Submit, refusal

# A task's messages


async def test_every_step_is_acked(api: httpx.AsyncClient, agent: Member, submit: Submit):
    task_id = await submit(agent.skill, "Paint the fence", metadata={"colour": "white"})
    assign = await agent.assigned()
    assert assign == {
        "type": "task_assign",
        "task_id": task_id,
        "description": "Paint the fence",
        "metadata": {"colour": "white"},
        "generation": 1,
        "assigned_at": assign["assigned_at"],
    }
    assert abs(assign["assigned_at"] - time.time() * 1000) < 60_000

    statuses = {
        "task_accepted": "accepted",
        "task_blocked": "blocked",
        "task_unblocked": "working",
        "task_complete": "complete",
    }
    fields: dict[str, Any] = {"task_blocked": {"reason": "?"}, "task_complete": {"result": {}}}
    for type, status in statuses.items():
        answer = await agent.say(type, assign, **fields.get(type, {}))
        assert answer == {"type": "task_ack", "task_id": task_id, "status": status}
    task = (await api.get(f"/api/tasks/{task_id}")).json()
    assert task["status"] == "completed"
    assert task["assigned_to"] == agent.agent_id


async def test_progress_is_noted_and_not_answered(
    api: httpx.AsyncClient, agent: Member, submit: Submit
):
    task_id = await submit(agent.skill)
    about = {"task_id": task_id, "generation": (await agent.assigned())["generation"]}
    await agent.connection.send("task_progress", **about, progress=40, message="digging")
    await agent.connection.send("task_progress", **about)
    assert (await agent.connection.request("ping"))["type"] == "pong"
    answer = await agent.connection.request("task_complete", **about, result={})
    assert answer["status"] == "complete"
    history = (await api.get(f"/api/tasks/{task_id}")).json()["history"]
    [progress, _] = [entry for entry in history if entry["event"] == "task_progress"]
    assert progress["agent_id"] == agent.agent_id
    assert progress["details"]["progress"] == 40
    assert progress["details"]["message"] == "digging"


async def test_the_generation_may_be_left_out_but_where_it_decides(agent: Member, submit: Submit):
    task_id = await submit(agent.skill)
    assign = await agent.assigned()
    for type in ("task_accepted", "task_unblocked"):
        assert (await agent.connection.request(type, task_id=task_id))["type"] == "task_ack"
    assert await refusal(agent, "task_complete", task_id=task_id, result={}) == "invalid_message"
    assert await refusal(agent, "task_failed", task_id=task_id, error="x") == "invalid_message"
    assert (await agent.say("task_complete", assign, result={}))["status"] == "complete"


async def test_tokens_used_beside_or_in_the_result(
    api: httpx.AsyncClient, agent: Member, submit: Submit
):
    for fields in ({"result": {}, "tokens_used": 9}, {"result": {"tokens_used": 9}}):
        task_id = await submit(agent.skill)
        await agent.say("task_complete", await agent.assigned(), **fields)
        assert (await api.get(f"/api/tasks/{task_id}")).json()["tokens_used"] == 9


async def test_a_failure_with_reason_for_error(
    api: httpx.AsyncClient, agent: Member, submit: Submit
):
    task_id = await submit(agent.skill, max_retries=1)
    answer = await agent.say("task_failed", await agent.assigned(), reason="out of paint")
    assert answer["status"] == "dead_letter"
    task = (await api.get(f"/api/tasks/{task_id}")).json()
    assert task["status"] == "dead_letter"
    assert task["last_error"] == "out of paint"


@pytest.mark.parametrize(
    ("type", "status"),
    [("task_failed", "dead_letter"), ("task_rejected", "requeued"), ("task_blocked", "blocked")],
)
async def test_what_ends_an_attempt_counts_however_long_its_reason_is(
    api: httpx.AsyncClient, agent: Member, submit: Submit, type: str, status: str
):
    task_id = await submit(agent.skill, max_retries=1)
    answer = await agent.say(type, await agent.assigned(), reason="a" * 16_000 + "b" * 16_000)
    assert answer["status"] == status
    assert answer["detail"] == "reason: must have 0 to 16,384 characters; it was cut"
    events = (await api.get(f"/api/tasks/{task_id}")).json()["history"]
    [kept] = [entry["details"] for entry in events if entry["event"] == type]
    said = kept.get("error") or kept["reason"]
    assert len(said) <= 16_384
    assert said.startswith("a" * 10_000)
    assert "a … [15,656 characters left out] … b" in said
    assert said.endswith("b" * 5_000)


async def test_a_long_message_of_progress_is_a_sign_of_life(
    api: httpx.AsyncClient, agent: Member, submit: Submit
):
    task_id = await submit(agent.skill)
    assign = await agent.assigned()
    about = {"task_id": task_id, "generation": assign["generation"]}
    await agent.connection.send("task_progress", **about, progress=40, message="a\0" * 16_000)
    assert (await agent.say("task_complete", assign, result={}))["status"] == "complete"
    events = (await api.get(f"/api/tasks/{task_id}")).json()["history"]
    [kept] = [entry["details"] for entry in events if entry["event"] == "task_progress"]
    assert kept["progress"] == 40
    assert kept["message"].startswith("a�a�")
    assert "characters left out" in kept["message"]


@pytest.mark.parametrize(
    ("tokens", "counted", "detail"),
    [
        (1200.0, 1200, None),
        (10**12, 10**12, None),
        (10**12 + 1, None, "tokens_used: "),
        (2**53, None, "tokens_used: "),
        (2.5e12, None, "tokens_used: "),
        (-1, None, "tokens_used: "),
        (0.5, None, "tokens_used: "),
        ("1200", None, "tokens_used: "),
        ([1200], None, "tokens_used: "),
        (True, None, "tokens_used: "),
    ],
    ids=repr,
)
async def test_a_completion_counts_whatever_it_says_of_its_tokens(
    api: httpx.AsyncClient,
    agent: Member,
    submit: Submit,
    tokens: Any,
    counted: int | None,
    detail: str | None,
):
    for prefix, fields in (
        ("", {"result": {}, "tokens_used": tokens}),
        ("result.", {"result": {"tokens_used": tokens}}),
    ):
        task_id = await submit(agent.skill)
        answer = await agent.say("task_complete", await agent.assigned(), **fields)
        assert answer["status"] == "complete"
        expected = (
            f"{prefix}{detail}must be a whole number from 0 to 1,000,000,000,000; "
            "it was not counted"
        )
        assert answer.get("detail") == (expected if detail else None)
        task = (await api.get(f"/api/tasks/{task_id}")).json()
        assert (task["status"], task["tokens_used"]) == ("completed", counted)
        assert task["result"] == fields["result"]


DEEP_RESULT = '{"a":' * 120 + '"x"' + "}" * 120


@pytest.mark.parametrize(
    ("result", "kept"),
    [
        (r'{"text": "nul\u0000", "n": 1}', {"text": "nul�", "n": 1}),
        (r'{"nul\u0000": ["\u0000"]}', {"nul�": ["�"]}),
        (r'{"half": "\ud83d", "\udead": 2}', {"half": "�", "�": 2}),
    ],
)
async def test_a_result_that_no_database_keeps_is_mended_where_it_can_be_seen(
    api: httpx.AsyncClient, agent: Member, submit: Submit, result: str, kept: dict[str, Any]
):
    task_id = await submit(agent.skill)
    generation = (await agent.assigned())["generation"]
    about = f'"task_id": "{task_id}", "generation": {generation}'
    answer = await agent.say_raw(f'{{"type": "task_complete", {about}, "result": {result}}}')
    assert answer["status"] == "complete"
    assert answer["detail"].startswith("result: must not contain ")
    assert (await api.get(f"/api/tasks/{task_id}")).json()["result"] == kept


async def test_a_result_is_cut_where_it_is_nested_too_deep(
    api: httpx.AsyncClient, agent: Member, submit: Submit
):
    task_id = await submit(agent.skill)
    generation = (await agent.assigned())["generation"]
    about = f'"task_id": "{task_id}", "generation": {generation}'
    answer = await agent.say_raw(f'{{"type": "task_complete", {about}, "result": {DEEP_RESULT}}}')
    assert answer["status"] == "complete"
    result = (await api.get(f"/api/tasks/{task_id}")).text
    assert "[left out: nested too deep]" in result


async def test_an_outcome_counts_whatever_stands_beside_it(agent: Member, submit: Submit):
    await submit(agent.skill)
    answer = await agent.say("task_complete", await agent.assigned(), result={}, extra="nul\0")
    assert answer["status"] == "complete"


@pytest.mark.parametrize(("max_retries", "attempts"), [(0, 1), (1, 1), (2, 2), (3, 3)])
async def test_as_many_attempts_as_the_budget_says(
    agent: Member, submit: Submit, max_retries: int, attempts: int
):
    await submit(agent.skill, max_retries=max_retries)
    answers: list[str] = []
    while answers[-1:] != ["dead_letter"]:
        answer = await agent.say("task_failed", await agent.assigned(), error="no")
        answers.append(answer["status"])
    assert answers == ["retried"] * (attempts - 1) + ["dead_letter"]


async def test_a_rejected_task_goes_to_another_and_costs_no_attempt(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    picky = await join()
    task_id = await submit(picky.skill, max_retries=1)
    assign = await picky.assigned()
    other = await join(capabilities=[picky.skill])
    answer = await picky.say("task_rejected", assign, reason="not my style")
    assert answer == {"type": "task_ack", "task_id": task_id, "status": "requeued"}

    again = await other.assigned()
    assert again["task_id"] == task_id
    assert again["generation"] > assign["generation"]
    task = (await api.get(f"/api/tasks/{task_id}")).json()
    assert task["retry_count"] == 0
    await other.say("task_complete", again, result={})


async def test_one_task_at_a_time(agent: Member, submit: Submit):
    first, second = await submit(agent.skill), await submit(agent.skill)
    assign = await agent.assigned()
    assert assign["task_id"] == first
    await agent.say("task_accepted", assign)
    seen = await agent.say("task_complete", assign, result={})
    assert seen["status"] == "complete"
    assert (await agent.assigned())["task_id"] == second


async def test_only_tasks_that_the_agent_can_do(join: Join, submit: Submit):
    agent = await join(capabilities=["paint", "dig"])
    await submit("paint", needed_capabilities=["paint", "fly"], priority="urgent")
    can = await submit("paint", needed_capabilities=["dig", "paint"], priority="low")
    assert (await agent.assigned())["task_id"] == can


# What the fencing refuses


async def test_the_same_completion_is_acked_again_and_changes_nothing(
    api: httpx.AsyncClient, agent: Member, submit: Submit
):
    task_id = await submit(agent.skill)
    assign = await agent.assigned()
    await agent.say("task_complete", assign, result={"answer": 1})
    first = (await api.get(f"/api/tasks/{task_id}")).json()
    again = await agent.say("task_complete", assign, result={"answer": 2})
    assert again == {"type": "task_ack", "task_id": task_id, "status": "complete"}
    assert (await api.get(f"/api/tasks/{task_id}")).json() == first


async def test_stale_generations_are_refused(agent: Member, submit: Submit):
    task_id = await submit(agent.skill)
    stale = await agent.assigned()
    await agent.say("task_failed", stale, error="no")
    assign = await agent.assigned()
    assert assign["generation"] > stale["generation"]

    about = {"task_id": task_id, "generation": stale["generation"]}
    code = await refusal(agent, "task_complete", **about, result={})
    assert code == "task_complete_failed: stale_generation"
    code = await refusal(agent, "task_failed", **about, error="no")
    assert code == "task_fail_failed: stale_generation"
    future = {"task_id": task_id, "generation": assign["generation"] + 1}
    code = await refusal(agent, "task_complete", **future, result={})
    assert code == "task_complete_failed: stale_generation"
    assert (await agent.say("task_complete", assign, result={}))["status"] == "complete"


@pytest.mark.parametrize(
    ("type", "prefix", "fields"),
    [
        ("task_accepted", "task_accept_failed", {}),
        ("task_rejected", "task_reject_failed", {"reason": "no"}),
        ("task_blocked", "task_block_failed", {"reason": "?"}),
        ("task_unblocked", "task_unblock_failed", {}),
        ("task_complete", "task_complete_failed", {"result": {}}),
        ("task_failed", "task_fail_failed", {"error": "no"}),
    ],
)
async def test_of_others_and_of_nobody(
    api: httpx.AsyncClient,
    join: Join,
    submit: Submit,
    type: str,
    prefix: str,
    fields: dict[str, Any],
):
    owner, thief = await join(), await join()
    task_id = await submit(owner.skill)
    assign = await owner.assigned()
    before = (await api.get(f"/api/tasks/{task_id}")).json()

    about = {"task_id": task_id, "generation": assign["generation"]}
    assert await refusal(thief, type, **about, **fields) == f"{prefix}: not_yours"
    unknown = {"task_id": "task-0000000000000000", "generation": 1}
    assert await refusal(owner, type, **unknown, **fields) == f"{prefix}: not_found"
    assert (await api.get(f"/api/tasks/{task_id}")).json() == before

    await owner.say("task_complete", assign, result={})
    if type != "task_complete":  # which is acked again
        assert await refusal(owner, type, **about, **fields) == f"{prefix}: invalid_state"
    assert (await refusal(thief, type, **about, **fields)).startswith(f"{prefix}: ")


@pytest.mark.parametrize(
    ("type", "fields"),
    [
        ("task_complete", {"result": "done"}),
        ("task_complete", {"result": [1]}),
        ("task_complete", {"result": None}),
        ("task_complete", {"result": {}, "generation": "1"}),
        ("task_complete", {"result": {}, "generation": 1.5}),
        ("task_complete", {"result": {}, "generation": True}),
        ("task_complete", {"result": {}, "generation": None}),
        ("task_complete", {"result": {}, "task_id": None}),
        ("task_complete", {"result": {}, "task_id": 7}),
        ("task_complete", {"result": {}, "task_id": "nul\0"}),
        ("task_failed", {}),
        ("task_failed", {"error": {"code": 7}}),
        ("task_accepted", {"task_id": ["x"]}),
        ("task_accepted", {"generation": "1"}),
        ("task_blocked", {"reason": 7}),
        ("task_rejected", {"reason": []}),
        ("task_progress", {"progress": 101}),
        ("task_progress", {"progress": -1}),
        ("task_progress", {"progress": "half"}),
        ("task_progress", {"progress": True}),
        ("task_progress", {"message": 7}),
        ("task_recovering", {"task_id": None}),
        ("task_recovering", {"task_id": 7}),
        ("status", {}),
        ("status", {"status": 7}),
        ("status", {"status": "x" * 100_000}),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else value,
)
async def test_malformed_messages_change_nothing(
    api: httpx.AsyncClient, agent: Member, submit: Submit, type: str, fields: dict[str, Any]
):
    task_id = await submit(agent.skill)
    assign = await agent.assigned()
    before = (await api.get(f"/api/tasks/{task_id}")).json()
    good = {"type": type, "task_id": task_id, "generation": assign["generation"]}
    message = {k: v for k, v in {**good, **fields}.items() if v is not None}
    answer = await agent.say_raw(json.dumps(message))
    assert answer["error"] == "invalid_message"
    assert answer["detail"]
    assert (await api.get(f"/api/tasks/{task_id}")).json() == before
    assert (await agent.say("task_complete", assign, result={}))["status"] == "complete"


@pytest.mark.parametrize("generation", [-1, 0, 10**9, 2**63, 10**30])
async def test_no_generation_of_this_task(agent: Member, submit: Submit, generation: int):
    task_id = await submit(agent.skill)
    assign = await agent.assigned()
    about = {"task_id": task_id, "generation": generation}
    code = await refusal(agent, "task_complete", **about, result={})
    assert code in ("task_complete_failed: stale_generation", "invalid_message")
    assert (await agent.say("task_complete", assign, result={}))["status"] == "complete"
