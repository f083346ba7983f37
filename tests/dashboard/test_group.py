"""Batching for the dashboards: what each viewer gets, whatever the order of things.

The journal and the state are played by the test, so that it can put them in any order; over real
sockets the same is tested in tests/flow.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from agentcom.models import Event
from dashboard import group as group_module
from dashboard.group import DashboardGroup
from dashboard.state.whole import Snapshot
from dashboard.state.windows import View, Wanted

NOW = datetime(2026, 5, 4, tzinfo=UTC)
OK = {"status": "ok", "conditions": [], "details": []}


class Journal:
    seq = 0


class Live:
    """Shows what was delivered, unless it is told that a part has to be read again."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.health: dict[str, Any] = OK
        self.can_show = self.knows_health = True
        self.is_silent = False
        self.patched: dict[str, Any] = {}
        self.views: dict[Wanted, View] = {}

    def use(self) -> None: ...

    def on_read(self, tell: Callable[[], None]) -> None: ...

    def _sections(self) -> dict[str, Any]:
        return {"seq": self.journal.seq, "health": self.health, "queue": {"n": self.journal.seq}}

    def snapshot(self) -> Snapshot:
        return Snapshot(0, self._sections(), {"agents": [b'"all"'], "offline_agents": []})

    def window(self, wanted: Wanted) -> View | None:
        return self.views.get(wanted)

    def take_patch(self) -> dict[str, Any]:
        new, old = self._sections(), self.patched
        self.patched = new
        patch = {name: new[name] for name in new if new[name] != old.get(name)}
        return {**patch, "agents": {"upsert": ["all"], "remove": []}} if patch else {}


class Client:
    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []

    async def send_text(self, text: str) -> None:
        self.frames.append(orjson.loads(text))
        await asyncio.sleep(0)

    def types(self) -> list[str]:
        return [frame["type"] for frame in self.frames]

    def state(self) -> dict[str, Any]:
        """What it knows from its snapshot and its patches."""
        known: dict[str, Any] = {}
        for frame in self.frames:
            if frame["type"] == "snapshot":
                known = {name: frame["data"][name] for name in ("seq", "health", "queue")}
            elif frame["type"] == "patch":
                assert frame["seq"] >= known["seq"]
                known |= {name: value for name, value in frame["data"].items() if name in known}
        return known


class Stage:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.journal = Journal()
        self.live, self.group = Live(self.journal), DashboardGroup()
        self.committed = 0
        monkeypatch.setattr(group_module, "journal", self.journal)
        monkeypatch.setattr(group_module, "live", self.live)

    def commit(self, count: int = 1) -> list[Event]:
        first = self.committed + 1
        self.committed += count
        return [
            Event(seq=seq, kind="task_submitted", task_id=f"task-{seq}", at=NOW, data={})
            for seq in range(first, first + count)
        ]

    def deliver(self, events: list[Event]) -> None:
        self.journal.seq = events[-1].seq
        self.group.on_events(events)

    async def flush(self) -> bool:
        return await self.group._flush()

    def known(self) -> dict[str, Any]:
        return self.live._sections()


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
    stage.live.can_show = False
    stage.group.join(client)
    stage.deliver(stage.commit())
    await stage.flush()
    assert client.frames == []
    stage.live.can_show = True
    await stage.flush()
    stage.deliver(stage.commit())
    await stage.flush()
    assert client.types() == ["snapshot", "events"]
    assert list(seen(client.frames)) == [1, 2]


async def test_events_of_one_flush_come_in_one_frame_and_no_frame_is_empty(stage: Stage) -> None:
    client = Client()
    stage.group.join(client)
    assert await stage.flush()
    stage.deliver(stage.commit(3))
    assert await stage.flush()
    assert not await stage.flush()
    assert client.types() == ["snapshot", "events"]
    assert [len(frame["data"]) for frame in client.frames[1:]] == [3]


async def test_events_come_also_while_a_part_of_the_state_is_read_again(stage: Stage) -> None:
    client = Client()
    viewer = stage.group.join(client)
    stage.group.subscribe(viewer)
    await stage.flush()
    stage.live.can_show = False
    stage.deliver(stage.commit())
    stage.group.request_snapshot(viewer)
    await stage.flush()
    assert client.types() == ["snapshot", "events"]
    stage.live.can_show = True
    stage.deliver(stage.commit())
    await stage.flush()
    assert client.types() == ["snapshot", "events", "events", "snapshot"]
    assert list(seen(client.frames)) == [1, 2]


async def test_what_happens_while_frames_are_sent_is_in_the_next_ones(stage: Stage) -> None:
    clients = [Client() for _ in range(3)]
    for client in clients:
        stage.group.subscribe(stage.group.join(client))
    await stage.flush()
    stage.deliver(stage.commit())
    flushing = asyncio.create_task(stage.flush())
    await asyncio.sleep(0)  # the first client has its frame
    stage.deliver(stage.commit())
    await flushing
    await stage.flush()
    for client in clients:
        assert list(seen(client.frames)) == [1, 2]
        assert client.state() == stage.known()


async def test_many_requests_between_two_snapshots_get_one(stage: Stage) -> None:
    client = Client()
    viewer = stage.group.join(client)
    await stage.flush()
    for _ in range(5):
        stage.group.request_snapshot(viewer)
    await stage.flush()
    assert client.types() == ["snapshot", "snapshot"]


async def test_patches_start_from_the_viewers_own_snapshot(stage: Stage) -> None:
    early, late = Client(), Client()
    stage.group.subscribe(stage.group.join(early))
    await stage.flush()
    stage.deliver(stage.commit())
    stage.group.subscribe(stage.group.join(late))
    await stage.flush()
    stage.deliver(stage.commit())
    await stage.flush()
    patches = [f["data"]["queue"]["n"] for f in early.frames if f["type"] == "patch"]
    assert patches == [1, 2]
    assert late.types() == ["snapshot", "events", "patch"]
    assert early.state() == late.state() == stage.known()


async def test_who_subscribes_a_moment_later_gets_the_patches_since_its_snapshot(
    stage: Stage,
) -> None:
    client = Client()
    viewer = stage.group.join(client)
    await stage.flush()
    for _ in range(3):
        stage.deliver(stage.commit())
        await stage.flush()
    stage.group.subscribe(viewer)
    await stage.flush()
    assert client.types() == ["snapshot", *["events"] * 3, *["patch"] * 3]
    assert client.state() == stage.known()


async def test_who_subscribes_late_gets_a_snapshot_to_start_from(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client()
    viewer = stage.group.join(client)
    await stage.flush()
    monkeypatch.setattr(group_module, "KEEP_S", -1.0)
    stage.deliver(stage.commit())
    await stage.flush()
    stage.group.subscribe(viewer)
    await stage.flush()
    stage.deliver(stage.commit())
    await stage.flush()
    assert client.types() == ["snapshot", "events", "snapshot", "events", "patch"]


async def test_who_looks_at_a_window_gets_it_and_no_other_agents(stage: Stage) -> None:
    client, other = Client(), Client()
    viewer, wanted = stage.group.join(client), Wanted(first=3)
    stage.group.subscribe(stage.group.join(other))
    await stage.flush()
    stage.live.views[wanted] = View(wanted, 9, 9, {"a": b'"row of a"'})
    stage.group.subscribe(viewer, wanted)
    stage.deliver(stage.commit())
    await stage.flush()
    await stage.flush()
    patches = [frame["data"] for frame in client.frames if frame["type"] == "patch"]
    assert not any("agents" in patch for patch in patches)
    [window] = [patch["agents_window"] for patch in patches if "agents_window" in patch]
    assert (window["from"], window["total"], window["rows"]) == (3, 9, ["row of a"])
    assert all("agents" in frame["data"] for frame in other.frames if frame["type"] == "patch")
    stage.group.request_snapshot(viewer)
    await stage.flush()
    assert client.frames[-2]["data"]["agents"] == []  # and the window anew, as a patch
    assert client.frames[-1]["data"]["agents_window"]["rows"] == ["row of a"]
    stage.group.subscribe(viewer)
    await stage.flush()
    assert client.frames[-1]["data"]["agents"] == ["all"]


async def test_a_window_that_is_not_sorted_yet_comes_a_moment_later(stage: Stage) -> None:
    client = Client()
    viewer, wanted = stage.group.join(client), Wanted()
    stage.group.subscribe(viewer, wanted)
    await stage.flush()
    assert "agents_window" not in str(client.frames)
    stage.live.views[wanted] = View(wanted, 1, 1, {"a": b'"row of a"'})
    stage.group._wanted.clear()
    await asyncio.wait_for(stage.group._wanted.wait(), 5)
    await stage.flush()
    assert "agents_window" in str(client.frames)


async def test_a_state_that_is_out_of_date_is_sent_as_a_patch_and_as_no_snapshot(
    stage: Stage,
) -> None:
    client, newcomer = Client(), Client()
    stage.group.subscribe(stage.group.join(client))
    await stage.flush()
    stage.live.is_silent, stage.live.health = True, {**OK, "status": "critical"}
    stage.group.join(newcomer)
    await stage.flush()
    await stage.flush()
    assert client.types() == ["snapshot", "events", "patch"]
    assert client.state()["health"]["status"] == "critical"
    assert newcomer.frames == []
    stage.live.is_silent, stage.live.health = False, OK
    await stage.flush()
    assert newcomer.types() == ["snapshot"]
    assert client.state() == stage.known()


async def test_what_was_read_before_does_not_take_back_what_an_event_told_of_health(
    stage: Stage,
) -> None:
    client = Client()
    stage.group.join(client)
    await stage.flush()
    told = {"status": "warning", "conditions": ["slow"]}
    [change] = stage.commit()
    stage.live.knows_health = False  # it was read before that commit
    stage.deliver([Event(seq=change.seq, kind="health_changed", at=NOW, data=told)])
    await stage.flush()
    stage.live.knows_health, stage.live.health = True, {**told, "details": []}
    await stage.flush()
    events = [
        event for frame in client.frames if frame["type"] == "events" for event in frame["data"]
    ]
    assert [event["status"] for event in events] == ["warning"]


async def test_a_change_of_health_that_no_event_tells_is_told_once(stage: Stage) -> None:
    """The worker fell silent: nobody was there to write it into the journal."""
    client = Client()
    stage.group.join(client)
    await stage.flush()
    stage.live.health = {"status": "warning", "conditions": ["silent"], "details": []}
    await stage.flush()
    await stage.flush()
    told = [event for frame in client.frames[1:] for event in frame["data"]]
    change = {"type": "health_changed", "status": "warning", "conditions": ["silent"]}
    assert told == [{**change, "actor": "hub"}]


async def test_the_log_is_dropped_with_the_last_viewer_and_when_all_have_it(stage: Stage) -> None:
    viewer = stage.group.join(Client())
    await stage.flush()
    stage.deliver(stage.commit(3))
    await stage.flush()
    assert len(stage.group._log) == 0
    stage.deliver(stage.commit(3))
    stage.group.leave(viewer)
    assert len(stage.group._log) == 0


async def test_without_viewers_changes_do_not_accumulate(stage: Stage) -> None:
    """The state would keep every agent that has come and gone since somebody looked last."""
    stage.deliver(stage.commit())
    assert not await stage.flush()
    assert stage.live.take_patch() == {}


@pytest.mark.parametrize("seed", range(25))
async def test_every_viewer_gets_every_event_once_in_any_order_of_things(
    stage: Stage, seed: int
) -> None:
    """Commits, deliveries, flushes, requests, newcomers, reads at random; sending takes a while."""
    choice = random.Random(seed).choice
    clients: list[Client] = []
    patched: list[Client] = []
    undelivered: list[Event] = []
    flushing: list[asyncio.Task[bool]] = []
    for _ in range(150):
        match choice(
            ["commit", "deliver", "flush", "join", "subscribe", "request", "read", "known"]
        ):
            case "commit":
                undelivered += stage.commit(choice([1, 3]))
            case "deliver" if undelivered:
                stage.deliver(undelivered)
                undelivered = []
            case "flush" if all(task.done() for task in flushing):
                flushing.append(asyncio.create_task(stage.flush()))
            case "join" if len(clients) < 4:
                clients.append(Client())
                stage.group.join(clients[-1])
            case "subscribe" if stage.group.viewers:
                viewer = choice(sorted(stage.group.viewers, key=id))
                stage.group.subscribe(viewer)
                patched += [client for client in clients if client is viewer.client]
            case "request" if stage.group.viewers:
                stage.group.request_snapshot(choice(sorted(stage.group.viewers, key=id)))
            case "read":
                stage.live.can_show = False
            case "known":
                stage.live.can_show = True
        await asyncio.sleep(0)
    stage.live.can_show = True
    if undelivered:
        stage.deliver(undelivered)
    await asyncio.gather(*flushing)
    await stage.flush()
    for client in clients:
        assert client.types()[0] == "snapshot"
        assert list(seen(client.frames)) == list(range(1, stage.committed + 1))
    for client in patched:
        assert client.state() == stage.known()
