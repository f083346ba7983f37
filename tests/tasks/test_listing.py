from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agentcom.wire import decode, encode
from tasks import listing
from tasks.models import Task
from tasks.queue import Complete, Fail, Progress, Reject
from tasks.steering import Retry
from tests.tasks.play import BOSS, again, agent, assigned, claim, dead, do, submit

pytestmark = pytest.mark.django_db

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def ids(page: listing.Page) -> list[str]:
    return [task["id"] for task in decode(encode(page.tasks))]


def pages(filters: dict[str, Any], limit: int) -> list[list[str]]:
    """All pages from the first to the last."""
    found, cursor = [], None
    while True:
        page = listing.newest(filters, limit, cursor)
        found.append(ids(page))
        if page.next_cursor is None:
            return found
        cursor = listing.read_cursor(page.next_cursor, parts=1)


def dead_pages(limit: int) -> list[list[str]]:
    found, cursor = [], None
    while True:
        page = listing.dead_letters(limit, cursor)
        found.append(ids(page))
        if page.next_cursor is None:
            return found
        cursor = listing.read_cursor(page.next_cursor, parts=2)


def all_states() -> None:
    """Tasks of two lanes in every state, held and finished by two agents."""
    workers = agent("a-1"), agent("a-2")
    for ending, worker, lane in itertools.product((Complete, Fail, Reject), workers, (0, 2)):
        submit(priority=lane, max_retries=1)
        [(_, task_id)] = claim(worker)
        generation = Task.objects.get(task_id=task_id).generation
        do(ending(task_id, worker.agent_id, generation))
    claim(*workers)


FILTERS = [
    {
        name: value
        for name, value in zip(("status", "priority", "assigned_to"), values, strict=True)
        if value is not None
    }
    for values in itertools.product(
        (None, "queued", "assigned", "completed", "cancelled", "dead_letter"),
        (None, 0, 2, 3),
        (None, "a-1", "x"),
    )
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_every_combination_of_filters_finds_what_it_should(filters: dict[str, Any]):
    all_states()
    expected = list(
        Task.objects.filter(**filters).order_by("-number").values_list("task_id", flat=True)
    )
    found = pages(filters, 2)
    assert list(itertools.chain(*found)) == expected
    assert all(len(page) == 2 for page in found[:-1])


def test_the_last_page_says_so():
    for _ in range(4):
        submit()
    assert [len(page) for page in pages({}, 2)] == [2, 2]
    assert [len(page) for page in pages({}, 3)] == [3, 1]
    assert [len(page) for page in pages({}, 4)] == [4]


def test_of_nothing_there_is_one_empty_page():
    assert pages({}, 2) == [[]]
    assert dead_pages(2) == [[]]


def test_tasks_that_come_meanwhile_shift_nothing():
    old = [submit().task_id for _ in range(4)]
    first = listing.newest({}, 2, None)
    submit()
    assert first.next_cursor is not None
    second = listing.newest({}, 2, listing.read_cursor(first.next_cursor, parts=1))
    assert ids(first) + ids(second) == old[::-1]


def test_the_dead_letter_is_in_the_order_of_dying_also_within_one_moment():
    tasks = [dead("a-1") for _ in range(6)]
    for task, days in zip(tasks, (0, 2, 2, 2, 1, 3), strict=True):
        Task.objects.filter(pk=task.pk).update(died_at=LONG_AGO + timedelta(days=days))
    expected = [tasks[index].task_id for index in (5, 1, 2, 3, 4, 0)]
    for limit in (1, 2, 3, 6):
        assert list(itertools.chain(*dead_pages(limit))) == expected


def test_what_was_retried_is_no_dead_letter_any_more():
    task = dead()
    do(Retry(task.task_id, BOSS))
    assert dead_pages(2) == [[]]
    assert again(task).died_at is None


class TestPagesEndByBytesToo:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(listing, "PAGE_BYTES", 5_000)
        monkeypatch.setattr(listing, "STEP", 2)

    def test_a_page_is_full_when_its_bytes_are(self) -> None:
        tasks = [submit(metadata={"text": "x" * size}) for size in (1_500, 1_500, 10_000, 1, 1)]
        found = pages({}, 10)
        assert [len(page) for page in found] == [2, 1, 2], "and one too large has its own"
        assert list(itertools.chain(*found)) == [task.task_id for task in tasks][::-1]

    def test_so_is_one_of_the_dead_letter(self) -> None:
        tasks = [dead("a-1", metadata={"text": "x" * 1_700}) for _ in range(3)]
        found = dead_pages(10)
        assert [len(page) for page in found] == [2, 1]
        assert list(itertools.chain(*found)) == [task.task_id for task in tasks][::-1]

    def test_what_there_is_no_room_for_is_not_read(self) -> None:
        for _ in range(20):
            submit(metadata={"text": "x" * 10_000})
        with CaptureQueriesContext(connection) as captured:
            listing.newest({}, 20, None)
        rows = [query for query in captured.captured_queries if "metadata" in query["sql"]]
        assert len(rows) == 1

    def test_a_history_keeps_its_newest_entries(self) -> None:
        task = assigned()
        for number in range(4):
            do(Progress(task.task_id, "a-1", task.generation, message=f"{number}" * 1_500))
        entries = listing.history(task)
        assert [entry["details"]["message"][0] for entry in entries] == ["1", "2", "3"]


def test_counts():
    all_states()
    submit(priority=3)
    assert listing.counts() == {
        "by_status": {
            **{"queued": 3, "scheduled": 0, "assigned": 2},
            **{"completed": 4, "cancelled": 0},
        },
        # each agent got a task that only the other one had rejected
        "by_priority": {"0": 1, "1": 0, "2": 1, "3": 1},
        "dead_letter": 4,
    }


def test_a_history_is_oldest_first_and_no_longer_than_allowed(monkeypatch: pytest.MonkeyPatch):
    task = dead()
    history = listing.history(task)
    assert [entry["event"] for entry in history] == [
        "task_submitted",
        "task_assigned",
        "task_failed",
        "task_dead_letter",
    ]
    assert history[2]["details"] == {"generation": 1, "error": "broken"}
    monkeypatch.setattr(listing, "HISTORY", 1)
    history = listing.history(task)
    assert [entry["event"] for entry in history] == ["task_dead_letter"]


@pytest.mark.parametrize(
    "cursor", ["", "x", "é", "====", "AAAA", listing.write_cursor(1, 2), "LTE", "MS0y", "\ud800"]
)
def test_what_is_no_cursor_of_this_list_is_refused(cursor: str):
    with pytest.raises(ValueError, match="cursor"):
        listing.read_cursor(cursor, parts=1)


def test_a_made_up_cursor_does_no_harm():
    submit()
    huge = listing.read_cursor(listing.write_cursor(10**18, 10**18), parts=2)
    assert listing.dead_letters(1, huge).tasks == []
    assert len(listing.newest({}, 1, huge[:1]).tasks) == 1


@pytest.mark.sqlite_only  # PostgreSQL plans by what is in the table, and here that is nothing
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_no_page_is_sorted_or_scanned_for(filters: dict[str, Any]):
    with CaptureQueriesContext(connection) as captured:
        listing.newest(filters, 2, (1_000_000,))
        listing.dead_letters(2, (1_000_000, 1))
    for query in captured.captured_queries:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {query['sql']}")
            plan = [row[3] for row in cursor.fetchall()]
        assert not [step for step in plan if "SCAN" in step or "TEMP B-TREE" in step], query["sql"]
