"""The snapshot against the rows."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from fleet.models import Agent
from tasks.models import Task
from tasks.queue import Complete
from tasks.steering import Retry
from tests.shown import fresh, shown
from tests.tasks.play import BOSS, again, agent, assigned, dead, do, submit
from worker.health import Condition, Report
from worker.reports import FileReport


@pytest.mark.django_db
class TestSnapshot:
    def test_it_tells_of_the_fleet_and_the_queue(self) -> None:
        agent("idle-one")
        done, waiting = assigned("busy-one", priority=0), submit(priority=3)
        data = shown()
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
        data = shown()
        titles = {row["agent_id"]: row["current_task_title"] for row in data["agents"]}
        assert titles == {"idle-one": None, "busy": "Review the change", "wordy": "x" * 80 + "…"}
        [gone] = data["offline_agents"]
        assert gone["current_task_title"] == "draw a map"

    def test_a_completion_counts_once_and_newest_come_first(self) -> None:
        for n in range(3):
            task = assigned("a-1")
            complete = Complete(task.task_id, "a-1", task.generation, {}, tokens_used=n)
            do(complete)
            do(complete)
        data = shown()
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
        offline = [row["agent_id"] for row in shown()["offline_agents"]]
        assert offline == ["lately", "named"]

    def test_dead_letters_are_counted_exactly_and_listed_up_to_a_hundred(self) -> None:
        letters = [dead(f"a-{n}") for n in range(102)]
        data = shown()
        assert data["queue"]["dead_letter"] == 102
        assert len(data["dead_letter_tasks"]) == 100
        do(Retry(letters[-1].task_id, BOSS))
        assert shown()["queue"]["dead_letter"] == 101

    def test_long_texts_are_cut_there_and_whole_in_the_task(self) -> None:
        task = dead(description="x" * 16_384)
        [row] = shown()["dead_letter_tasks"]
        assert len(row["description"]) == 501
        assert len(Task.objects.get(pk=task.pk).description) == 16_384

    def test_texts_come_without_the_colours_of_a_terminal(self) -> None:
        red, plain = "\x1b[31m" * 150 + "no\x1b[0m " + "luck" * 4, "no " + "luck" * 4
        dead(description=red)
        task = assigned(description="\x1b[1m" + "x" * 400 + "\x1b[0m" * 24)
        do(Complete(task.task_id, "a-1", task.generation, {}))
        data = shown()
        assert data["dead_letter_tasks"][0]["description"] == plain
        assert data["recent_completions"][0]["description"] == "x" * 400
        assert again(task).description.startswith("\x1b[1m")

    def test_its_etag_stays_while_nothing_but_time_changes(self) -> None:
        submit()
        first = fresh()
        assert fresh().etag == first.etag
        submit()
        assert fresh().etag != first.etag
