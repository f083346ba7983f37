"""The dashboard's socket: the snapshot, what follows it, and what a viewer may ask."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from agentcom_client import Agent, Task
from agentcom_client.patches import fold
from lab.harness.hub import Hub
from lab.kit.fleet import running
from lab.kit.member import Member
from lab.kit.sockets import BINARY, HOST
from lab.kit.viewer import Frame, Viewer
from tests.flow.conftest import Join, Submit, View
from tests.flow.contract import HEALTH_DETAIL, SNAPSHOT, SNAPSHOT_ROWS, assert_shape

FLUSH_S = 0.1
SETTINGS = {"AGENTCOM_WORKER_TICK_S": "0.2", "AGENTCOM_HEALTH_CLEAR_S": "0.5"}
VOLATILE = ("uptime_ms", "timestamp")


def lasting(snapshot: Frame) -> Frame:
    return {name: value for name, value in snapshot.items() if name not in VOLATILE}


async def fresh(api: httpx.AsyncClient) -> Frame:
    snapshot: Frame = (await api.get("/api/dashboard/state")).json()
    return snapshot


# The snapshot


async def test_the_snapshot_comes_first(
    api: httpx.AsyncClient, join: Join, submit: Submit, view: View
):
    agent, lost = await join(), await join()
    await submit(agent.skill, max_retries=1)
    await agent.say("task_failed", await agent.assigned(), error="no")
    await submit(agent.skill)
    await agent.say("task_complete", await agent.assigned(), result={"tokens_used": 5})
    lost.connection.cut()
    hold = {"scope": "agent", "subject": "somebody", "reason": "so that there is one"}
    assert (await api.post("/api/holds", json=hold)).status_code == 201

    viewer = await view()
    while not (snapshot := await viewer.snapshot())["offline_agents"]:  # the cut is known soon
        viewer.send("request_snapshot")
    assert viewer.frames[0]["type"] == "snapshot"
    assert_shape(snapshot, SNAPSHOT)
    for section, shape in SNAPSHOT_ROWS.items():
        assert snapshot[section], section
        for row in snapshot[section]:
            assert_shape(row, shape, section)
    assert abs(snapshot["timestamp"] - time.time() * 1000) < 60_000
    assert snapshot["health"]["status"] in ("ok", "warning", "critical")


async def test_socket_and_state_endpoint_show_the_same(api: httpx.AsyncClient, view: View):
    """Both from one build, where nothing happened in between."""
    viewer = await view()
    while lasting(await viewer.snapshot()) != lasting(await fresh(api)):
        viewer.send("request_snapshot")


async def test_a_requested_snapshot_holds_what_was_acked_before(submit: Submit, view: View):
    viewer = await view()
    queued = (await viewer.snapshot())["queue"]["by_priority"]["3"]
    for number in range(1, 6):
        await submit("nobody", priority="low")
        viewer.send("request_snapshot")
        assert (await viewer.snapshot())["queue"]["by_priority"]["3"] == queued + number


async def test_many_requests_get_one_snapshot(submit: Submit, view: View):
    viewer = await view()
    await viewer.snapshot()
    for _ in range(100):
        viewer.send("request_snapshot")
    await viewer.snapshot()
    # What was sent for the other requests would be here before these two.
    task_id = await submit("nobody")
    await viewer.until_event(task_id, "task_submitted")
    viewer.send("request_snapshot")
    await viewer.snapshot()
    asked = [frame for frame in viewer.frames if frame["type"] == "snapshot"]
    assert len(asked) <= 4  # the first, this one, and one or two for the hundred


# Events


@asynccontextmanager
async def traffic(hub: Hub, agent: Member) -> AsyncIterator[None]:
    """The member's agent processes whatever comes, by itself; one in five attempts fails."""

    async def work(task: Task) -> dict[str, Any]:
        await task.progress(50)
        await asyncio.sleep(0)
        if random.random() < 0.2:
            raise RuntimeError("no luck")
        return {"tokens_used": 3}

    worker = Agent(hub.ws_url, agent.token, work, capabilities=[agent.skill])
    async with running(worker):
        yield


async def test_nothing_is_lost_or_twice_between_snapshot_and_events(
    hub: Hub, api: httpx.AsyncClient, join: Join, submit: Submit, view: View
):
    """Viewers come in the middle of traffic. What each one's snapshot counts, and what it is told
    afterwards, add up to the end; and it is told the very end of what the first one is told."""
    first, late = await view(), list[Viewer]()
    await first.snapshot()
    agent = await join()
    async with traffic(hub, agent):
        ids = []
        for number in range(60):
            ids.append(await submit(agent.skill, max_retries=2))
            if number % 6 == 3:
                late.append(await view())
        await first.until(
            lambda viewer: all(ENDS & set(viewer.events_of(task_id)) for task_id in ids)
        )
    marker = await submit("nobody")
    end = await fresh(api)
    await first.until_event(marker, "task_submitted")
    told = up_to(first, marker)
    assert add_up(first, told) == counts(end)
    for viewer in late:
        await viewer.until_event(marker, "task_submitted")
        events = up_to(viewer, marker)
        assert events == told[-len(events) :]
        assert add_up(viewer, events) == counts(end)
    assert len(up_to(late[-1], marker)) < len(told)


ENDS = {"task_complete", "task_dead_letter"}
# how an event moves the counts of queued, assigned, completed and dead tasks
MOVES = {
    "task_submitted": (1, 0, 0, 0),
    "task_assigned": (-1, 1, 0, 0),
    "task_complete": (0, -1, 1, 0),
    "task_retried": (1, -1, 0, 0),  # by itself; nobody retries by hand here
    "task_rejected": (1, -1, 0, 0),
    "task_reclaimed": (1, -1, 0, 0),
    "task_dead_letter": (0, -1, 0, 1),
}


def up_to(viewer: Viewer, marker: str) -> list[Frame]:
    events = viewer.events
    last = next(n for n, event in enumerate(events) if event.get("task_id") == marker)
    return events[: last + 1]


def counts(snapshot: Frame) -> tuple[int, ...]:
    queue = snapshot["queue"]
    return (
        *(queue["by_status"][s] for s in ("queued", "assigned", "completed")),
        queue["dead_letter"],
    )


def add_up(viewer: Viewer, events: list[Frame]) -> tuple[int, ...]:
    """The counts of the viewer's first snapshot, moved by the events."""
    assert viewer.frames[0]["type"] == "snapshot"
    total = counts(viewer.frames[0]["data"])
    for event in events:
        move = MOVES.get(event.get("event", ""), (0, 0, 0, 0))
        total = tuple(a + b for a, b in zip(total, move, strict=True))
    return total


async def test_events_come_gathered(hub: Hub, join: Join, submit: Submit, view: View):
    viewer = await view()
    await viewer.snapshot()
    agent = await join()
    began = time.monotonic()
    async with traffic(hub, agent):
        ids = [await submit(agent.skill, max_retries=1) for _ in range(40)]
        await viewer.until(lambda viewer: all(ENDS & set(viewer.events_of(i)) for i in ids))
    frames = [frame for frame in viewer.frames if frame["type"] == "events"]
    assert len(frames) <= (time.monotonic() - began) / FLUSH_S + 2
    assert all(frame["data"] for frame in frames)
    seqs = [frame["seq"] for frame in frames]
    assert seqs == sorted(set(seqs))


async def test_each_tasks_events_come_in_order(join: Join, submit: Submit, view: View):
    viewer = await view()
    await viewer.snapshot()
    agent = await join()
    task_id = await submit(agent.skill, max_retries=2)
    assign = await agent.assigned()
    await agent.say("task_accepted", assign)
    await agent.connection.send("task_progress", task_id=task_id, progress=1)
    await agent.say("task_blocked", assign, reason="?")
    await agent.say("task_unblocked", assign)
    await agent.say("task_rejected", assign, reason="no")
    await agent.say("task_failed", await agent.assigned(), error="no")
    await agent.say("task_failed", await agent.assigned(), error="no")
    await viewer.until_event(task_id, "task_dead_letter")
    assert viewer.events_of(task_id) == [
        *("task_submitted", "task_assigned", "task_accepted", "task_progress"),
        *("task_blocked", "task_unblocked", "task_rejected"),
        *("task_assigned", "task_failed", "task_retried"),
        *("task_assigned", "task_failed", "task_dead_letter"),
    ]
    events = [event for event in viewer.events if event.get("task_id") == task_id]
    for event in events:
        assert event["type"] == "task_event"
        assert event.keys() >= {"task_id", "event", "agent_id", "timestamp"}
        assert event["agent_id"] in (agent.agent_id, None)
    assert events[0]["agent_id"] is None
    assert events[1]["agent_id"] == agent.agent_id
    said = [{name: e[name] for name in e.keys() - COMMON} for e in events]
    assert said[0] == {"title": "Something to do", "until": None}
    assert said[1] == {"title": "Something to do"}
    assert said[3] == {"progress": 1, "message": None}
    assert (said[4], said[6]) == ({"reason": "?"}, {"reason": "no"})
    assert said[8:10] == [{"error": "no"}, {"by_hand": False, "until": None}]
    assert said[11:] == [{"error": "no"}, {"error": "no"}]
    times = [event["timestamp"] for event in events]
    assert times == sorted(times)


COMMON = {"type", "task_id", "event", "agent_id", "actor", "timestamp"}


async def test_agents_come_and_go(join: Join, view: View):
    viewer = await view()
    await viewer.snapshot()
    agent = await join(name="Ada")
    await agent.connection.request("status", status="reading")
    await agent.connection.request("sign_off")
    await viewer.until(lambda viewer: "agent_left" in [e["type"] for e in about(viewer, agent)])
    joined, changed, left = about(viewer, agent)
    about_agent = {"agent_id": agent.agent_id, "actor": f"agent:{agent.agent_id}"}
    assert joined == {
        **about_agent,
        "type": "agent_joined",
        "name": "Ada",
        "capabilities": [agent.skill],
    }
    assert changed == {**about_agent, "type": "status_changed", "status": "reading"}
    assert left == {**about_agent, "type": "agent_left"}


def about(viewer: Viewer, agent: Member) -> list[Frame]:
    return [event for event in viewer.events if event.get("agent_id") == agent.agent_id]


def last_about(viewer: Viewer, agent: Member) -> str | None:
    """The type of the newest event of this agent; None before the first one."""
    return next((event["type"] for event in reversed(about(viewer, agent))), None)


async def test_a_lost_agent_and_its_return_change_the_health(
    api: httpx.AsyncClient, join: Join, view: View
):
    viewer = await view()
    await viewer.snapshot()
    agent = await join(name="Lost One")

    agent.connection.cut()
    await viewer.until(lambda viewer: agent.agent_id in newest_conditions(viewer))
    [detail] = await offline(api)
    assert_shape(detail, HEALTH_DETAIL)
    assert agent.agent_id in detail["subjects"]
    assert detail["severity"] == "warning"
    assert health_changes(viewer)[-1]["status"] != "ok"

    await join(again=agent)
    await viewer.until(lambda viewer: agent.agent_id not in newest_conditions(viewer))
    assert agent.agent_id not in [
        subject for detail in await offline(api) for subject in detail["subjects"]
    ]


def newest_conditions(viewer: Viewer) -> str:
    changes = health_changes(viewer)
    return "; ".join(changes[-1]["conditions"]) if changes else ""


def health_changes(viewer: Viewer) -> list[Frame]:
    return [event for event in viewer.events if event["type"] == "health_changed"]


async def offline(api: httpx.AsyncClient) -> list[Frame]:
    details = (await fresh(api))["health"]["details"]
    return [detail for detail in details if detail["code"] == "agent_offline"]


# What a viewer may ask


async def test_retry_from_the_dashboard(join: Join, submit: Submit, view: View):
    viewer, other = await view(), await view()
    await other.snapshot()
    agent = await join()
    task_id = await submit(agent.skill, max_retries=1)
    await agent.say("task_failed", await agent.assigned(), error="no")

    viewer.send("retry_task", task_id=task_id)
    result = {"type": "retry_result", "task_id": task_id}
    assert await viewer.frame("retry_result") == {**result, "status": "requeued"}
    again = await agent.assigned()
    assert again["task_id"] == task_id
    viewer.send("retry_task", task_id=task_id)
    assert await viewer.frame("retry_result") == {**result, "status": "not_found"}
    viewer.send("retry_task", task_id="task-0000000000000000")
    assert (await viewer.frame("retry_result"))["status"] == "not_found"
    await agent.say("task_complete", again, result={})
    await other.until_event(task_id, "task_complete")
    assert "retry_result" not in [frame["type"] for frame in other.frames]
    assert other.events_of(task_id)[-3:] == ["task_retried", "task_assigned", "task_complete"]
    by = [event["actor"] for event in other.events if event.get("task_id") == task_id]
    assert by[-3:] == ["anyone", "hub", f"agent:{agent.agent_id}"]


async def test_a_viewer_may_look_at_a_window_of_the_agents(join: Join, view: View):
    viewer = await view()
    await viewer.snapshot()
    agents = [await join(name=f"Window {number}") for number in range(4)]
    names = {agent.agent_id: f"Window {number}" for number, agent in enumerate(agents)}
    window = {"sort": "name", "filter": "window", "from": 1, "count": 2}
    viewer.send("subscribe", patches=True, agents=window)

    async def shown() -> tuple[list[str], list[str], int]:
        while True:
            patch = (await viewer.frame("patch"))["data"]
            assert not patch.keys() & {"agents", "offline_agents"} or not asked
            if told := patch.get("agents_window"):
                rows = [row["name"] for row in told["rows"]]
                return [names[agent_id] for agent_id in told["ids"]], rows, told["matching"]

    asked = False  # patches of all agents may be on their way
    assert await shown() == (["Window 1", "Window 2"], ["Window 1", "Window 2"], 4)
    asked = True
    viewer.send("subscribe", patches=True, agents={**window, "from": 2})
    assert await shown() == (["Window 2", "Window 3"], ["Window 3"], 4)
    await agents[3].connection.request("status", status="busy")
    assert await shown() == (["Window 2", "Window 3"], ["Window 3"], 4)
    viewer.send("request_snapshot")
    snapshot = await viewer.snapshot()
    assert snapshot["agents"] == []
    assert await shown() == (["Window 2", "Window 3"], ["Window 2", "Window 3"], 4)
    viewer.send("subscribe", patches=True, agents={"count": 0})
    refused = await viewer.frame("subscribe_result")
    assert (refused["status"], refused["detail"][:6]) == ("invalid", "count:")
    viewer.send("subscribe", patches=True)
    assert {row["agent_id"] for row in (await viewer.snapshot())["agents"]} >= names.keys()


async def test_ping(view: View):
    viewer = await view()
    viewer.send("ping")
    pong = await viewer.frame("pong")
    assert abs(pong["timestamp"] - time.time() * 1000) < 60_000


async def test_forget_an_agent(join: Join, submit: Submit, view: View):
    viewer = await view()
    await viewer.snapshot()
    agent = await join()

    async def forget(agent_id: str) -> str:
        viewer.send("forget_agent", agent_id=agent_id)
        result = await viewer.frame("forget_result")
        assert result["agent_id"] == agent_id
        status: str = result["status"]
        return status

    assert await forget(agent.agent_id) == "agent_connected"
    await submit(agent.skill)
    await agent.assigned()
    agent.connection.cut()
    await viewer.until(lambda viewer: last_about(viewer, agent) == "agent_left")
    assert await forget(agent.agent_id) == "agent_holds_task"
    agent = await join(again=agent)
    await agent.say("task_rejected", await agent.assigned(), reason="no")
    await agent.connection.request("sign_off")
    await viewer.until(lambda viewer: last_about(viewer, agent) == "agent_left")
    assert await forget(agent.agent_id) == "forgotten"
    assert await forget(agent.agent_id) == "agent_not_found"
    await viewer.until(lambda viewer: last_about(viewer, agent) == "agent_forgotten")


RUBBISH = [
    "",
    "hello",
    "{",
    "[]",
    "null",
    "7",
    '"request_snapshot"',
    "{}",
    '{"type":7}',
    '{"type":"no_such_thing"}',
    '{"type":"identify","agent_id":"x","token":"y"}',
    '{"type":"retry_task"}',
    '{"type":"retry_task","task_id":7}',
    '{"type":"retry_task","task_id":["x"]}',
    '{"type":"retry_task","task_id":"nul\\u0000"}',
    '{"type":"retry_task","task_id":"\\ud800"}',
    '{"type":"forget_agent"}',
    '{"type":"forget_agent","agent_id":7}',
    '{"type":"forget_agent","agent_id":"nul\\u0000"}',
    '{"type":"subscribe"}',
    '{"type":"subscribe","patches":"yes"}',
    '{"type":"ping","x":NaN}',
    "[" * 100_000,
]


async def test_rubbish_is_ignored_in_silence(submit: Submit, view: View):
    viewer = await view()
    await viewer.snapshot()
    for rubbish in RUBBISH:
        viewer.socket.send_raw(rubbish.encode())
    viewer.socket.send_raw(b"\x00\xff", BINARY)
    viewer.send("request_snapshot")
    await viewer.snapshot()
    task_id = await submit("nobody")
    await viewer.until_event(task_id, "task_submitted")
    types = {frame["type"] for frame in viewer.frames}
    assert types <= {"snapshot", "events", "retry_result"}
    retries = [frame for frame in viewer.frames if frame["type"] == "retry_result"]
    assert {frame["status"] for frame in retries} <= {"not_found"}


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://127.0.0.1.evil.example", "null", "file://"]
)
async def test_pages_of_others_are_not_let_in(hub: Hub, origin: str):
    with pytest.raises(InvalidStatus) as refused:
        await connect(hub.dashboard_url, additional_headers={"Origin": origin})
    assert refused.value.response.status_code == 403


async def test_our_own_page_is_let_in(hub: Hub):
    for name in ("127.0.0.1", "localhost"):
        address, origin = (url.replace(HOST, name) for url in (hub.dashboard_url, hub.url))
        async with connect(address, additional_headers={"Origin": origin}) as socket:
            assert json.loads(await socket.recv())["type"] == "snapshot"


# Patches


async def test_patches_only_for_those_who_ask(submit: Submit, view: View):
    subscriber, other = await view(), await view()
    await subscriber.snapshot()
    await other.snapshot()  # else the task may be in it, and is not told
    subscriber.subscribe()
    task_id = await submit("nobody")
    await subscriber.frame("patch")
    await other.until_event(task_id, "task_submitted")
    other.send("request_snapshot")
    await other.snapshot()
    assert "patch" not in [frame["type"] for frame in other.frames]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.bound_s(60)
async def test_the_first_snapshot_and_the_patches_give_a_fresh_snapshot(
    hub: Hub, api: httpx.AsyncClient, join: Join, submit: Submit, view: View, seed: int
):
    chance = random.Random(seed)
    viewer = await view()
    folded = await viewer.snapshot()
    viewer.subscribe()
    members = [await join() for _ in range(4)]
    async with traffic(hub, members[0]):  # enough to push old rows out of the lists
        task = {"description": "x", "needed_capabilities": [members[0].skill], "max_retries": 1}
        await api.post("/api/tasks", json=[task] * 150)
        while members[0].skill in await waiting_skills(api):
            folded = fold(folded, await viewer.frame("patch"))
    members[0] = await join()
    for _ in range(5):
        for _ in range(chance.randint(3, 12)):
            await something_happens(chance, api, join, submit, members)
        while lasting(folded) != lasting(await fresh(api)):
            folded = fold(folded, await viewer.frame("patch"))
    assert [frame["type"] for frame in viewer.frames].count("snapshot") == 1


async def waiting_skills(api: httpx.AsyncClient) -> set[str]:
    queued = (await api.get("/api/tasks", params={"status": "queued", "limit": 500})).json()
    return {skill for task in queued["tasks"] for skill in task["needed_capabilities"]}


async def something_happens(
    chance: random.Random,
    api: httpx.AsyncClient,
    join: Join,
    submit: Submit,
    members: list[Member],
) -> None:
    index = chance.randrange(len(members))
    member = members[index]
    match chance.choice(
        ["submit", "complete", "complete", "fail", "status", "cut", "swap", "retry"]
    ):
        case "submit":
            priority = chance.choice(["urgent", "high", "normal", "low"])
            await submit("nobody", priority=priority)
        case "complete":
            await submit(member.skill)
            await member.say("task_complete", await member.assigned(), result={"tokens_used": 9})
        case "fail":
            await submit(member.skill, max_retries=1, priority="urgent")
            await member.say("task_failed", await member.assigned(), error="bad luck")
        case "status":
            await member.connection.request("status", status=f"mood {chance.random()}")
        case "cut":
            member.connection.cut()
            members[index] = await join(again=member)
        case "swap":
            await member.connection.request("sign_off")
            members[index] = await join()
        case "retry":
            dead = (await api.get("/api/tasks/dead-letter")).json()["tasks"]
            if dead:
                await api.post(f"/api/tasks/{chance.choice(dead)['id']}/retry")
