from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tasks import export
from tasks.listing import history, task_json
from tasks.models import Task
from tasks.queue import Complete
from tests.shift import Clock, clock
from tests.tasks.play import again, assigned, dead, do, submit

__all__ = ["clock"]

DAY = timedelta(days=1)

pytestmark = pytest.mark.django_db


def exported(**filters: Any) -> list[str]:
    return [task.task_id for task in export.matching(**filters)]


def as_csv(*tasks: Task) -> list[dict[str, str]]:
    text = b"".join(export.csv_lines(tasks)).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("step", [1, 2, 100])
def test_all_tasks_in_the_order_of_their_submission(step: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tasks.export.STEP", step)
    tasks = [submit(priority=lane) for lane in (3, 0, 2, 0, 1)]
    assert exported() == [task.task_id for task in tasks]


def test_a_status(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tasks.export.STEP", 1)
    letters = [dead("a-1"), dead("a-2")]
    waiting = submit()
    assert exported(status="dead_letter") == [task.task_id for task in letters]
    assert exported(status="queued") == [waiting.task_id]
    assert exported(status="completed") == []


def test_from_a_time_on_and_before_another(clock: Clock):
    began: datetime = clock.now
    tasks = []
    for _ in range(4):
        tasks.append(submit().task_id)
        clock.advance(3600)
    hour = timedelta(hours=1)
    assert exported(since=began + hour) == tasks[1:]
    assert exported(until=began + 2 * hour) == tasks[:2]
    assert exported(since=began + hour, until=began + 2 * hour) == tasks[1:2]


@pytest.mark.sqlite_only
@pytest.mark.parametrize("status", [None, "queued"])
def test_no_step_sorts_all_that_match(status: str | None, clock: Clock):
    submit()
    with CaptureQueriesContext(connection) as captured:
        assert len(exported(status=status, since=clock.now, until=clock.now + DAY)) == 1
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {captured.captured_queries[0]['sql']}")
        plan = str(cursor.fetchall())
    assert "task_status" in plan if status else "PRIMARY KEY" in plan
    assert "B-TREE" not in plan


def test_a_line_of_json_is_the_task_as_the_api_gives_it():
    task = assigned(description='naïve\n"漢字"', metadata={"n": [1, None, 2**60]})
    do(Complete(task.task_id, "a-1", task.generation, result={"a": "b\n"}, tokens_used=7))
    task = again(task)
    [line] = export.json_lines([task])
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == task_json(task)
    [line] = export.json_lines([task], with_history=True)
    assert json.loads(line) == {**task_json(task), "history": history(task)}
    assert len(history(task)) == 3


def test_a_row_of_csv_has_the_same_fields():
    task = assigned(description='one, "two"\nthree', metadata={"ü": "漢"})
    [row] = as_csv(task)
    assert row.keys() == task_json(task).keys()
    assert row["id"] == task.task_id
    assert row["description"] == 'one, "two"\nthree'
    assert json.loads(row["metadata"]) == {"ü": "漢"}
    assert json.loads(row["needed_capabilities"]) == []
    assert row["result"] == row["last_error"] == row["complete_by"] == ""
    assert row["created_at"] == str(task_json(task)["created_at"])


def test_csv_without_tasks_is_a_header():
    [header] = export.csv_lines([])
    assert header.startswith(b"id,description,")


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(begin: str):
    text = f"{begin}cmd|' /C calc'!A0"
    [row] = as_csv(submit(description=text))
    assert row["description"] == f"'{text}"


@pytest.mark.parametrize("text", ["a = b", "'quoted", "5 - 3"])
def test_what_is_no_formula_stays_as_it_is(text: str):
    [row] = as_csv(submit(description=text))
    assert row["description"] == text
