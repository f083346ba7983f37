"""The dead letter by cause."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agentcom.database import millis
from agentcom.wire import decode, encode
from dashboard import dead_letters
from tasks.listing import read_cursor
from tasks.models import Task
from tasks.queue import Fail
from tasks.steering import Retry
from tests.shift import Clock
from tests.tasks.play import BOSS, again, assigned, do

pytestmark = pytest.mark.django_db


def died(error: str, agent_id: str, clock: Clock) -> Task:
    task = assigned(agent_id, max_retries=1)
    clock.advance(60)
    do(Fail(task.task_id, agent_id, task.generation, error=error))
    return again(task)


def test_tasks_that_died_of_the_same_are_one_group(clock: Clock) -> None:
    first = died("no answer within 30 s", "a-2", clock)
    died("context too long", "a-1", clock)
    last = died("no answer within 45 s", "a-1", clock)
    found = dead_letters.groups()
    assert found["total"] == 3
    assert found["groups"][0] == {
        "group": first.cause,
        "error": "no answer within … s",
        "count": 2,
        "first_at": millis(first.died_at),
        "last_at": millis(last.died_at),
        "agents": ["a-1", "a-2"],
        "agent_count": 2,
    }
    assert [group["error"] for group in found["groups"][1:]] == ["context too long"]


def test_a_group_names_five_agents_and_counts_them_all(clock: Clock) -> None:
    for n in (*range(7), 0):
        died("broken", f"a-{n}", clock)
    [group] = dead_letters.groups()["groups"]
    assert group["count"] == 8
    assert group["agents"] == [f"a-{n}" for n in range(5)]
    assert group["agent_count"] == 7


def test_a_retried_task_leaves_its_group(clock: Clock) -> None:
    tasks = [died("broken", "a-1", clock) for _ in range(2)]
    do(Retry(tasks[1].task_id, BOSS))
    [group] = dead_letters.groups()["groups"]
    assert (group["count"], group["last_at"]) == (1, millis(tasks[0].died_at))
    do(Retry(tasks[0].task_id, BOSS))
    assert dead_letters.groups() == {"groups": [], "total": 0}


def test_at_most_a_hundred_groups_and_all_are_counted(clock: Clock) -> None:
    words = [f"{chr(97 + n // 20)}{chr(97 + n % 20)}" for n in range(102)]
    for word in words:
        died(f"broken by {word}", "a-1", clock)
    found = dead_letters.groups()
    assert [g["error"] for g in found["groups"]] == [f"broken by {w}" for w in words[:1:-1]]
    assert found["total"] == 102


def test_a_groups_tasks_come_page_by_page_what_died_last_first(clock: Clock) -> None:
    tasks = [died(f"no answer within {n} s", "a-1", clock) for n in range(5)]
    died("something else", "a-1", clock)
    Task.objects.filter(pk__in=[tasks[0].pk, tasks[1].pk]).update(died_at=tasks[1].died_at)
    group = tasks[0].cause or ""
    rows, cursor = [], None
    while True:
        page = dead_letters.tasks_of(group, 2, cursor)
        assert page["count"] == len(page["tasks"])
        rows += decode(encode(page["tasks"]))
        if page["next_cursor"] is None:
            break
        cursor = read_cursor(page["next_cursor"], parts=2)
    order = [tasks[n].task_id for n in (4, 3, 2, 0, 1)]
    assert [row["id"] for row in rows] == order
    assert rows[0] == {
        "id": tasks[4].task_id,
        "description": "a task",
        "last_error": "no answer within 4 s",
        "retry_count": 1,
        "created_at": millis(tasks[4].created_at),
        "failed_at": millis(tasks[4].died_at),
        "agent_id": "a-1",
    }
    assert tasks[4].died_at == clock.now - timedelta(seconds=60)


def test_a_group_that_nobody_is_in_has_no_tasks() -> None:
    empty = {"tasks": [], "count": 0, "next_cursor": None}
    assert dead_letters.tasks_of("0" * 16, 10, None) == empty
