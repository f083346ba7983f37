"""Exporting tasks: all that match, in the order of their submission, as lines of JSON or CSV.

Both are read and made in steps, so that a large export takes no more memory than a small one. The
caller reads within `consistent_read`, else tasks may change or be dropped between two steps.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from django.db.models.functions import Coalesce

from agentcom.wire import encode
from tasks.listing import EPOCH, history, task_json, without_secrets
from tasks.models import Task

STEP = 100  # tasks read at once; even the largest ones are some 40 MB together
COLUMNS = tuple(task_json(Task(created_at=EPOCH, updated_at=EPOCH)))
# A spreadsheet takes a cell that begins like this for a formula, which may run programs.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def matching(
    status: str | None = None, since: datetime | None = None, until: datetime | None = None
) -> Iterator[Task]:
    """The tasks with this status that were created from `since` on and before `until`."""
    # An expression, because an index on the time is of no use here: the database would sort all
    # tasks that match at each step.
    tasks = Task.objects.order_by("number").alias(created=Coalesce("created_at", "created_at"))
    if status is not None:
        tasks = tasks.filter(status=status)
    if since is not None:
        tasks = tasks.filter(created__gte=since)
    if until is not None:
        tasks = tasks.filter(created__lt=until)
    last = 0
    while step := list(tasks.filter(number__gt=last)[:STEP]):
        yield from step
        last = step[-1].number


def json_lines(
    tasks: Iterable[Task], with_history: bool = False, with_secrets: bool = False
) -> Iterator[bytes]:
    """Each task as the API gives it, with its history like the response for a single task."""
    for task in tasks:
        row = task_json(task)
        if with_history:
            row["history"] = history(task)
        yield encode(row if with_secrets else without_secrets(row)) + b"\n"


def csv_lines(tasks: Iterable[Task], with_secrets: bool = False) -> Iterator[bytes]:
    """The same fields, after a header: objects and lists as JSON, null as an empty cell."""
    yield _csv_line(COLUMNS)
    for task in tasks:
        row = task_json(task)
        yield _csv_line(map(_cell, (row if with_secrets else without_secrets(row)).values()))


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return encode(value).decode()
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value


def _csv_line(cells: Iterable[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().encode()
