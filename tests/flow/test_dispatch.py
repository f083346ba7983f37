"""Who gets a task when much happens at once."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.flow.conftest import Join, Submit

AGENTS = 20
TASKS = 3


@pytest.mark.bound_s(15)
@pytest.mark.parametrize("attempt", range(3))
async def test_agents_that_come_back_in_the_middle_of_a_dispatch_are_not_forgotten(
    join: Join, submit: Submit, attempt: int
):
    """The dispatcher has offered tasks to the older socket when the newer one identifies."""

    async def come_back() -> None:
        older = await join()
        returning = asyncio.ensure_future(join(again=older))
        ids = await asyncio.gather(*(submit(older.skill) for _ in range(TASKS)))
        newer = await returning
        done = []
        for _ in range(TASKS):
            assign = await newer.assigned()
            done.append(assign["task_id"])
            await newer.say("task_complete", assign, result={})
        assert sorted(done) == sorted(ids)

    await asyncio.gather(*(come_back() for _ in range(AGENTS)))


async def test_the_longest_idle_agent_is_next(join: Join, submit: Submit):
    first = await join()
    skill = first.skill
    second, third = await join(capabilities=[skill]), await join(capabilities=[skill])
    for agent in (first, second, third, first, second):
        task_id = await submit(skill)
        assign = await agent.assigned()
        assert assign["task_id"] == task_id
        await agent.say("task_complete", assign, result={})


async def test_a_herd_gets_each_task_once(join: Join, submit: Submit):
    first = await join()
    herd = [first, *[await join(capabilities=[first.skill]) for _ in range(19)]]
    ids = await asyncio.gather(*(submit(first.skill) for _ in herd))
    assigns = await asyncio.gather(*(agent.assigned() for agent in herd))
    assert sorted(assign["task_id"] for assign in assigns) == sorted(ids)
    for agent, assign in zip(herd, assigns, strict=True):
        await agent.say("task_complete", assign, result={})


async def test_many_that_nobody_can_do_hide_nothing(
    api: httpx.AsyncClient, join: Join, submit: Submit
):
    agent = await join()
    unservable = {"description": "x", "needed_capabilities": ["nobody"], "priority": "urgent"}
    assert (await api.post("/api/tasks", json=[unservable] * 1000)).status_code == 201
    task_id = await submit(agent.skill, priority="low")
    assign = await agent.assigned()
    assert assign["task_id"] == task_id
    await agent.say("task_complete", assign, result={})


async def test_a_hundred_agents_join_at_once(join: Join):
    members = await asyncio.gather(*(join() for _ in range(100)))
    for member in members:
        assert (await member.connection.request("ping"))["type"] == "pong"


async def test_the_next_task_comes_after_the_answer_about_the_last(join: Join, submit: Submit):
    """It is assigned in the commit that frees the agent, and may be known before the ack is out."""
    agent = await join()
    for _ in range(TASKS):
        await submit(agent.skill)
    for _ in range(TASKS):
        assign = await agent.assigned()
        await agent.say("task_complete", assign, result={})
    kinds = [frame["type"] for frame in agent.seen if frame["type"].startswith("task_")]
    assert kinds == ["task_assign", "task_ack"] * TASKS
