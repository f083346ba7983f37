"""An agent that changes from one web process to another."""

from __future__ import annotations

import httpx
import pytest

from agentcom_client import HubError
from lab.harness.hub import Cluster
from tests.cluster.conftest import Join, Submit, address, close_code, frozen


async def test_the_newer_socket_counts_and_keeps_the_task(
    cluster: Cluster, join: Join, submit: Submit
):
    here, there = cluster.webs
    before = await join(here)
    task_id = await submit(here, before.skill)
    task = await before.accepted()
    after = await join(there, again=before)
    assert await close_code(before) == 4409
    answer = await after.connection.request("task_recovering", task_id=task_id)
    assert answer["type"] == "task_continue"
    assert answer["generation"] == task["generation"]
    assert (await after.say("task_complete", task, result={}))["status"] == "complete"


async def test_late_news_of_the_other_process_do_not_close_the_newest_socket(
    cluster: Cluster, join: Join, submit: Submit
):
    here, there = cluster.webs
    first = await join(here)
    second = await join(there, again=first)
    third = await join(here, again=first)
    assert await close_code(second) == 4409  # so each process has heard of all three
    assert await close_code(first) == 4409
    await submit(there, third.skill)
    task = await third.accepted()
    assert (await third.say("task_complete", task, result={}))["status"] == "complete"


async def test_the_tasks_of_a_killed_process_go_to_agents_of_the_other(
    cluster: Cluster, join: Join, submit: Submit, api: httpx.AsyncClient
):
    here, there = cluster.webs
    lost = await join(here)
    task_id = await submit(here, lost.skill)
    first = await lost.accepted()
    other = await join(there, skill=lost.skill)
    here.kill()

    second = await other.assigned()
    assert (second["task_id"], second["generation"]) == (task_id, first["generation"] + 2)
    back = await join(there, again=lost)
    with pytest.raises(HubError, match="task_complete_failed: stale_generation"):
        await back.say("task_complete", first, result={})
    assert (await other.say("task_complete", second, result={}))["status"] == "complete"
    history = (await api.get(f"{address(there)}/api/tasks/{task_id}")).json()["history"]
    assert [entry["event"] for entry in history].count("task_reclaimed") == 1


async def test_a_process_that_stood_still_does_no_harm_and_goes_on(
    cluster: Cluster, join: Join, submit: Submit, api: httpx.AsyncClient
):
    here, there = cluster.webs
    lost, idle = await join(here), await join(here)
    task_id = await submit(here, lost.skill)
    first = await lost.accepted()
    other = await join(there, skill=lost.skill)
    async with frozen(here, there, api):
        second = await other.assigned()
        assert (second["task_id"], second["generation"]) == (task_id, first["generation"] + 2)
        about = {"task_id": task_id, "generation": first["generation"]}
        await lost.connection.send("task_complete", **about, result={})
        nobodys = await submit(there, idle.skill)  # for an agent that only seems to be there

    assert await close_code(lost) == await close_code(idle) == 1012
    assert not [frame for frame in lost.seen if frame.get("status") == "complete"]
    assert not [frame for frame in idle.seen if frame["type"] == "task_assign"]
    back = await join(here, again=idle)
    assert (await back.accepted())["task_id"] == nobodys
    assert (await other.say("task_complete", second, result={}))["status"] == "complete"
