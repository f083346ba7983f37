"""What the light says of work that waits, and of agents that come and go, over real sockets."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from functools import partial

import httpx
import pytest

from lab.harness.hub import Hub
from lab.kit.viewer import Viewer
from tests.flow.conftest import Join, Submit, View

SETTINGS = {"AGENTCOM_WORKER_TICK_S": "0.1", "AGENTCOM_WAIT_LOW_S": "1"}


def about(viewer: Viewer, word: str) -> list[list[str]]:
    """What the light said with this word in it, each time that it said something else."""
    course: list[list[str]] = []
    for event in viewer.events:
        if event["type"] == "health_changed":
            said = [sentence for sentence in event["conditions"] if word in sentence]
            if said != (course[-1] if course else []):
                course.append(said)
    return course


def has_left(agent_id: str, times: int, viewer: Viewer) -> bool:
    left = [event for event in viewer.events if event["type"] == "agent_left"]
    return len([event for event in left if event["agent_id"] == agent_id]) == times


async def test_two_processes_with_one_name_are_named(
    api: httpx.AsyncClient, join: Join, view: View
):
    viewer = await view()
    await viewer.snapshot()
    twin = await join()
    for _ in range(5):
        await join(again=twin)
    await viewer.until(lambda viewer: about(viewer, twin.agent_id) != [])
    health = (await api.get("/api/dashboard/state")).json()["health"]
    [named] = [d for d in health["details"] if twin.agent_id in d["subjects"]]
    assert (named["code"], named["severity"]) == ("agent_contested", "warning")


async def test_an_agent_there_and_gone_is_one_incident(join: Join, view: View):
    viewer = await view()
    await viewer.snapshot()
    agent = await join()
    name = agent.agent_id
    for times in range(1, 8):
        agent.connection.cut()
        await viewer.until(partial(has_left, name, times))
        await viewer.until(lambda viewer: about(viewer, name) != [])
        agent = await join(again=agent)
    await viewer.until(lambda viewer: len(about(viewer, name)) > 1)
    offline, both = about(viewer, name)
    assert len(offline) == 1
    assert both[0] == offline[0]
    assert "losing" in both[1]


async def test_a_low_task_behind_a_steady_urgent_stream(join: Join, submit: Submit, view: View):
    viewer = await view()
    await viewer.snapshot()
    agent = await join()
    for _ in range(2):
        await submit(agent.skill, priority="urgent")
    low = await submit(agent.skill, priority="low")

    async def stream() -> None:
        while (task := await agent.assigned())["task_id"] != low:
            await submit(agent.skill, priority="urgent")
            await agent.say("task_complete", task, result={})

    streaming = asyncio.ensure_future(stream())
    await viewer.until(lambda viewer: about(viewer, "ow tasks wait for over 1 s") != [])
    assert not streaming.done()
    streaming.cancel()


@pytest.mark.sqlite_only
async def test_a_database_that_takes_no_changes_is_not_healthy(hub: Hub, api: httpx.AsyncClient):
    async def probe(status: int) -> str:
        while (answer := await api.get("/health")).status_code != status:
            pass
        return str(answer.json().get("detail"))

    file = hub.data_dir / "agentcom.sqlite3"
    with closing(sqlite3.connect(file, isolation_level=None)) as another_program:
        another_program.execute("BEGIN IMMEDIATE")
        assert await probe(503) == "nothing could be committed for over 5 s"
        another_program.execute("ROLLBACK")
    await probe(200)
