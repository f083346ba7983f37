"""Batching for the dashboards: what each viewer gets, whatever the order of things.

The journal and the snapshots are played by the test, so that it can put them in any order; over
real sockets the same is tested in tests/flow.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from agentcom.models import Event
from dashboard import group as group_module
from dashboard.group import DashboardGroup
from dashboard.snapshot import Snapshot

NOW = datetime(2026, 5, 4, tzinfo=UTC)


class Journal:
    def __init__(self) -> None:
        self.seq = 0
        self._moved = asyncio.Condition()

    async def reached(self, seq: int) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: self.seq >= seq)

    async def move(self, seq: int) -> None:
        async with self._moved:
            self.seq = seq
            self._moved.notify_all()


class Snapshots:
    """Builds when told, from the committed `seq` at that moment, which may be ahead of the tail."""

    def __init__(self) -> None:
        self.committed = 0
        self.health = {"status": "ok", "conditions": [], "details": []}
        self.gate = asyncio.Event()
        self.gate.set()

    async def current(self) -> Snapshot:
        data = {
            "seq": self.committed,
            "health": self.health,
            "queue": {"done": self.committed},
            "holds": [],
            "throughput": {},
            "agents": [],
            "offline_agents": [],
            "dead_letter_tasks": [],
            "recent_completions": [],
        }
        await self.gate.wait()
        return Snapshot(data, 0.0)


class Client:
    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []

    async def send_text(self, text: str) -> None:
        self.frames.append(orjson.loads(text))
        await asyncio.sleep(0)

    def types(self) -> list[str]:
        return [frame["type"] for frame in self.frames]


class Stage:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.journal, self.snapshots, self.group = Journal(), Snapshots(), DashboardGroup()
        monkeypatch.setattr(group_module, "journal", self.journal)
        monkeypatch.setattr(group_module, "snapshots", self.snapshots)

    def commit(self, count: int = 1) -> list[Event]:
        first = self.snapshots.committed + 1
        self.snapshots.committed += count
        return [
            Event(seq=seq, kind="task_submitted", task_id=f"task-{seq}", at=NOW, data={})
            for seq in range(first, first + count)
        ]

    async def deliver(self, events: list[Event]) -> None:
        self.group.on_events(events)
        await self.journal.move(events[-1].seq)

    async def flush(self) -> None:
        await self.group._flush()

    async def serve(self) -> None:
        await self.group._serve_snapshot()


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def seen(frames: list[dict[str, Any]]) -> Iterator[int]:
    """The numbers of all events, and of those that each snapshot holds, in order of arrival."""
    known = 0
    for frame in frames:
        if frame["type"] == "snapshot":
            assert frame["data"]["seq"] >= known
            yield from range(known + 1, frame["data"]["seq"] + 1)
            known = max(known, frame["data"]["seq"])
        elif frame["type"] == "events":
            for event in frame["data"]:
                known = int(event["task_id"].removeprefix("task-"))
                yield known
            assert frame["seq"] >= known
            known = frame["seq"]


async def test_the_snapshot_comes_first_and_events_after_it(stage: Stage) -> None:
    client = Client()
    stage.group.join(client)
    await stage.deliver(stage.commit())
    await stage.flush()
    assert client.frames == []
    await stage.serve()
    await stage.flush()
    await stage.deliver(stage.commit())
    await stage.flush()
    assert client.types() == ["snapshot", "events"]
    assert list(seen(client.frames)) == [1, 2]


async def test_events_of_one_flush_come_in_one_frame_and_no_frame_is_empty(stage: Stage) -> None:
    client = Client()
    stage.group.join(client)
    await stage.serve()
    await stage.deliver(stage.commit(3))
    await stage.flush()
    await stage.flush()
    assert client.types() == ["snapshot", "events"]
    assert [len(frame["data"]) for frame in client.frames[1:]] == [3]


async def test_a_snapshot_ahead_of_the_tail_swallows_nothing_and_repeats_nothing(
    stage: Stage,
) -> None:
    client = Client()
    viewer = stage.group.join(client)
    await stage.serve()
    late = stage.commit(2)  # committed, not delivered yet
    stage.group.request_snapshot(viewer)
    serving = asyncio.create_task(stage.serve())
    await asyncio.sleep(0)
    await stage.deliver(late)
    await serving
    await stage.flush()
    assert client.types() == ["snapshot", "events", "snapshot"]
    assert list(seen(client.frames)) == [1, 2]


async def test_events_flushed_while_a_first_snapshot_is_built_still_reach_the_newcomer(
    stage: Stage,
) -> None:
    """Whatever the others have already got, the newcomer's snapshot does not hold it."""
    other, newcomer = Client(), Client()
    stage.group.join(other)
    await stage.serve()
    stage.group.join(newcomer)
    stage.snapshots.gate.clear()
    serving = asyncio.create_task(stage.serve())
    await asyncio.sleep(0)  # the snapshot has been read and is on its way
    await stage.deliver(stage.commit(2))
    await stage.flush()
    stage.snapshots.gate.set()
    await serving
    await stage.flush()
    assert list(seen(newcomer.frames)) == [1, 2]


async def test_many_requests_between_two_snapshots_get_one(stage: Stage) -> None:
    client = Client()
    viewer = stage.group.join(client)
    await stage.serve()
    for _ in range(5):
        stage.group.request_snapshot(viewer)
    await stage.serve()
    assert client.types() == ["snapshot", "snapshot"]


async def test_patches_start_from_the_viewers_own_snapshot(stage: Stage) -> None:
    early, late = Client(), Client()
    stage.group.subscribe(stage.group.join(early))
    await stage.serve()
    await stage.deliver(stage.commit())
    stage.group.subscribe(stage.group.join(late))
    await stage.serve()
    await stage.deliver(stage.commit())
    await stage.serve()
    patches = [f["data"]["queue"]["done"] for f in early.frames if f["type"] == "patch"]
    assert patches == [1, 2]
    assert late.types() == ["snapshot", "patch"]


async def test_who_subscribes_late_gets_a_snapshot_to_start_from(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client()
    viewer = stage.group.join(client)
    await stage.serve()
    monkeypatch.setattr(group_module, "KEEP_BASE_S", -1.0)
    await stage.serve()
    stage.group.subscribe(viewer)
    await stage.serve()
    await stage.deliver(stage.commit())
    await stage.serve()
    assert client.types() == ["snapshot", "snapshot", "patch"]


async def test_a_snapshot_does_not_take_back_what_a_later_event_told_of_health(
    stage: Stage,
) -> None:
    client = Client()
    stage.group.join(client)
    await stage.serve()
    told = {"status": "warning", "conditions": ["slow"]}
    change = Event(seq=stage.commit()[0].seq, kind="health_changed", at=NOW, data=told)
    stage.snapshots.committed = 0  # the next snapshot was read before that commit …
    await stage.deliver([change])  # … of which the viewers hear first
    await stage.serve()
    await stage.flush()
    stage.snapshots.committed = change.seq
    stage.snapshots.health = {**told, "details": []}
    await stage.serve()
    await stage.flush()
    events = [
        event for frame in client.frames if frame["type"] == "events" for event in frame["data"]
    ]
    assert [event["status"] for event in events] == ["warning"]


async def test_a_change_of_health_that_no_event_tells_is_told_once(stage: Stage) -> None:
    """The worker fell silent: nobody was there to write it into the journal."""
    client = Client()
    stage.group.join(client)
    await stage.serve()
    stage.snapshots.health = {"status": "warning", "conditions": ["silent"], "details": []}
    await stage.serve()
    await stage.serve()
    await stage.flush()
    told = [event for frame in client.frames[1:] for event in frame["data"]]
    change = {"type": "health_changed", "status": "warning", "conditions": ["silent"]}
    assert told == [{**change, "actor": "hub"}]


async def test_the_log_is_dropped_with_the_last_viewer_and_when_all_have_it(stage: Stage) -> None:
    viewer = stage.group.join(Client())
    await stage.serve()
    await stage.deliver(stage.commit(3))
    await stage.flush()
    assert len(stage.group._log) == 0
    await stage.deliver(stage.commit(3))
    stage.group.leave(viewer)
    assert len(stage.group._log) == 0


@pytest.mark.parametrize("seed", range(25))
async def test_every_viewer_gets_every_event_once_in_any_order_of_things(
    stage: Stage, seed: int
) -> None:
    """Commits, deliveries, flushes, requests and newcomers at random, builds that take a while."""
    choice = random.Random(seed).choice
    clients: list[Client] = []
    undelivered: list[Event] = []
    serving: list[asyncio.Task[None]] = []
    for _ in range(120):
        match choice(["commit", "deliver", "flush", "join", "request", "serve", "hold", "go"]):
            case "commit":
                undelivered += stage.commit(choice([1, 3]))
            case "deliver" if undelivered:
                await stage.deliver(undelivered)
                undelivered = []
            case "flush":
                await stage.flush()
            case "join" if len(clients) < 4:
                clients.append(Client())
                stage.group.join(clients[-1])
            case "request" if stage.group.viewers:
                stage.group.request_snapshot(choice(sorted(stage.group.viewers, key=id)))
            case "serve" if all(task.done() for task in serving):
                serving.append(asyncio.create_task(stage.serve()))
            case "hold":
                stage.snapshots.gate.clear()
            case "go":
                stage.snapshots.gate.set()
        await asyncio.sleep(0)
    stage.snapshots.gate.set()
    if undelivered:
        await stage.deliver(undelivered)
    await asyncio.gather(*serving)
    await stage.serve()
    await stage.flush()
    for client in clients:
        assert client.types()[0] == "snapshot"
        assert list(seen(client.frames)) == list(range(1, stage.snapshots.committed + 1))


async def test_parts_that_run_together_end_together(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each start after a failure would leave one behind that flushes for ever."""

    async def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(stage.group, "_serve_snapshot", fail)
    stage.group.join(Client())
    before = asyncio.all_tasks()
    with pytest.raises(ExceptionGroup) as failed:
        await stage.group.run()
    assert failed.group_contains(ZeroDivisionError)
    assert asyncio.all_tasks() == before
