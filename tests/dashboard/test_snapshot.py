"""The snapshot against the rows, and the difference of two of them."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import orjson
import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from agentcom.journal import journal
from agentcom_client.patches import fold
from dashboard import snapshot as snapshot_module
from dashboard.snapshot import LISTS, Snapshot, Snapshots, build, difference, gap
from fleet.models import Agent
from tasks.models import Task
from tasks.queue import Complete
from tasks.steering import Retry
from tests.tasks.play import BOSS, again, agent, assigned, dead, do, submit
from worker.health import Condition, Report
from worker.reports import FileReport

TEXT = st.text("abc", max_size=2)


def rows(key: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows of a list of the snapshot, in the order that the contract gives them."""
    row = st.fixed_dictionaries(
        {key: st.text("abcd", min_size=1, max_size=2), "failed_at": st.integers(0, 3)}
    ).map(lambda row: {**row, "completed_at": row["failed_at"]})
    return st.lists(row, unique_by=lambda row: row[key], max_size=6)


def ordered(snapshot: dict[str, Any]) -> dict[str, Any]:
    by_id = ("agents", "offline_agents")
    return {
        **snapshot,
        **{name: sorted(snapshot[name], key=lambda row: row["agent_id"]) for name in by_id},
        "dead_letter_tasks": sorted(
            snapshot["dead_letter_tasks"], key=lambda row: (-row["failed_at"], row["id"])
        ),
        "recent_completions": sorted(
            snapshot["recent_completions"], key=lambda row: (-row["completed_at"], row["task_id"])
        ),
    }


SNAPSHOTS = st.fixed_dictionaries(
    {
        "seq": st.integers(0, 9),
        "health": st.fixed_dictionaries({"status": TEXT}),
        "queue": st.fixed_dictionaries({"n": st.integers(0, 2)}),
        "holds": st.lists(st.fixed_dictionaries({"id": st.text()}), max_size=1),
        "throughput": st.fixed_dictionaries({"n": st.integers(0, 2)}),
        **{name: rows(key) for name, key in LISTS.items()},
    }
).map(ordered)


@pytest.mark.sqlite_only
@given(old=SNAPSHOTS, new=SNAPSHOTS)
def test_a_snapshot_and_its_difference_to_another_give_the_other(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    assert fold(old, {"data": difference(old, new)}) == new


@pytest.mark.sqlite_only
@given(snapshot=SNAPSHOTS)
def test_equal_snapshots_differ_in_nothing(snapshot: dict[str, Any]) -> None:
    assert difference(snapshot, orjson.loads(orjson.dumps(snapshot))) == {}


@pytest.mark.django_db
class TestBuild:
    def test_it_tells_of_the_fleet_and_the_queue(self) -> None:
        agent("idle-one")
        done, waiting = assigned("busy-one", priority=0), submit(priority=3)
        data = build().data
        assert [a["fsm_state"] for a in data["agents"]] == ["assigned", "idle"]
        assert data["agents"][0]["current_task_id"] == done.task_id
        by_status = {status: n for status, n in data["queue"]["by_status"].items() if n}
        assert by_status == {"queued": 1, "assigned": 1}
        assert data["queue"]["by_priority"]["3"] == 1
        assert waiting.task_id not in str(data["agents"])

    def test_agents_tell_what_their_task_is_called(self) -> None:
        agent("idle-one")
        assigned("busy", description="\x1b[1mReview\x1b[0m the change")
        assigned("wordy", description="x" * 16_384)
        assigned("lost", description="draw a map")
        gone_now = {"fsm_state": "offline", "disconnected_at": timezone.now()}
        Agent.objects.filter(agent_id="lost").update(**gone_now)
        data = build().data
        titles = {row["agent_id"]: row["current_task_title"] for row in data["agents"]}
        assert titles == {"idle-one": None, "busy": "Review the change", "wordy": "x" * 80 + "…"}
        [gone] = data["offline_agents"]
        assert gone["current_task_title"] == "draw a map"

    def test_titles_are_read_only_for_agents_that_changed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[set[str]] = []
        read = snapshot_module.titles_of

        def titles(task_ids: set[str]) -> dict[str, str]:
            asked.append(set(task_ids))
            return read(task_ids)

        monkeypatch.setattr(snapshot_module, "titles_of", titles)
        first = assigned("first")
        build()
        second = assigned("second")
        build()
        build()
        assert asked[::2] == [{first.task_id}, {second.task_id}, set()]

    def test_a_completion_counts_once_and_newest_come_first(self) -> None:
        for n in range(3):
            task = assigned("a-1")
            complete = Complete(task.task_id, "a-1", task.generation, {}, tokens_used=n)
            do(complete)
            do(complete)
        data = build().data
        assert data["throughput"]["completed_last_hour"] == 3
        assert data["throughput"]["total_tokens_hour"] == 3
        times = [row["completed_at"] for row in data["recent_completions"]]
        assert times == sorted(times, reverse=True)
        assert len(times) == 3

    def test_it_shows_the_agents_that_the_light_names(self) -> None:
        """The clock was set forward: they were lost within the window, which nobody here knows."""
        long_ago = timezone.now() - timedelta(hours=2)
        for name in ("named", "retired", "back"):
            agent(name, fsm_state="offline", disconnected_at=long_ago)
        agent("signed-off", fsm_state="offline", signed_off=True, disconnected_at=long_ago)
        agent("lately", fsm_state="offline", disconnected_at=timezone.now())
        Agent.objects.filter(agent_id="back").update(fsm_state="idle")
        subjects = ("named", "back", "signed-off", "forgotten")
        told = Condition("agent_offline", "warning", "4 agents are offline", 1, subjects)
        do(FileReport(Report((told,)), timezone.now()))
        shown = [row["agent_id"] for row in build().data["offline_agents"]]
        assert shown == ["lately", "named"]

    def test_dead_letters_are_counted_exactly_and_listed_up_to_a_hundred(self) -> None:
        letters = [dead(f"a-{n}") for n in range(102)]
        data = build().data
        assert data["queue"]["dead_letter"] == 102
        assert len(data["dead_letter_tasks"]) == 100
        do(Retry(letters[-1].task_id, BOSS))
        assert build().data["queue"]["dead_letter"] == 101

    def test_long_texts_are_cut_there_and_whole_in_the_task(self) -> None:
        task = dead(description="x" * 16_384)
        [row] = build().data["dead_letter_tasks"]
        assert len(row["description"]) == 501
        assert len(Task.objects.get(pk=task.pk).description) == 16_384

    def test_texts_come_without_the_colours_of_a_terminal(self) -> None:
        red, plain = "\x1b[31m" * 150 + "no\x1b[0m " + "luck" * 4, "no " + "luck" * 4
        dead(description=red)
        task = assigned(description="\x1b[1m" + "x" * 400 + "\x1b[0m" * 24)
        do(Complete(task.task_id, "a-1", task.generation, {}))
        data = build().data
        assert data["dead_letter_tasks"][0]["description"] == plain
        assert data["recent_completions"][0]["description"] == "x" * 400
        assert again(task).description.startswith("\x1b[1m")

    def test_its_etag_stays_while_nothing_but_time_changes(self) -> None:
        submit()
        first = build()
        assert build().etag == first.etag
        submit()
        assert build().etag != first.etag

    def test_an_agent_that_did_not_change_is_not_converted_again(self) -> None:
        agent("still")
        task = assigned("busy")
        before = {row["agent_id"]: row for row in build().data["agents"]}
        do(Complete(task.task_id, "busy", task.generation, {}))
        after = {row["agent_id"]: row for row in build().data["agents"]}
        assert after["still"] is before["still"]
        assert (before["busy"]["fsm_state"], after["busy"]["fsm_state"]) == ("assigned", "idle")
        assert [row["busy"]["completed_this_hour"] for row in (before, after)] == [0, 1]


def test_builds_wait_by_what_they_cost_rather_than_by_how_long_they_were_held_up() -> None:
    assert gap(cost=0.001, took=0.001) == 0.1
    assert gap(cost=0.02, took=0.02) == 0.2
    assert gap(cost=0.005, took=0.04) == 0.1
    assert gap(cost=0.005, took=3.0) == 6.0


class TestSingleFlight:
    @pytest.fixture
    def builds(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        builds: list[int] = []

        def build() -> Snapshot:
            builds.append(journal.newest)
            return Snapshot({"seq": journal.newest}, time.monotonic())

        monkeypatch.setattr(snapshot_module, "build", build)
        monkeypatch.setattr(journal, "newest", 1)
        return builds

    async def test_one_build_serves_all_who_ask_at_once(self, builds: list[int]) -> None:
        snapshots = Snapshots()
        given = await asyncio.gather(*(snapshots.current() for _ in range(50)))
        assert len(builds) == 1
        assert len({id(snapshot) for snapshot in given}) == 1

    async def test_who_comes_as_a_build_has_just_ended_gets_a_newer_one(
        self, builds: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The task is done and nobody was told yet: to wait for it is not to wait."""
        snapshots = Snapshots()
        building = asyncio.create_task(snapshots._build())
        await building
        snapshots._building = building
        monkeypatch.setattr(journal, "newest", 2)
        waits, wait = iter(range(100)), asyncio.shield  # or it would turn for ever
        monkeypatch.setattr(asyncio, "shield", lambda task: (next(waits), wait(task))[1])
        assert (await snapshots.current()).seq == 2

    async def test_an_event_makes_the_next_one_who_asks_get_a_new_one(
        self, builds: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        snapshots = Snapshots()
        await snapshots.current()
        await snapshots.current()
        monkeypatch.setattr(journal, "newest", 2)
        assert (await snapshots.current()).seq == 2
        assert builds == [1, 2]
