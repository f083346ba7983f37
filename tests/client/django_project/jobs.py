"""What the project does in the background."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from django.db import connection
from django.tasks import TaskContext, TaskResult, task
from django.tasks.signals import task_finished, task_started

from agentcom_client.django import current_task

NOTES = Path(os.environ["NOTES"])
connections: list[Any] = []


def note(text: str) -> None:
    with NOTES.open("a") as notes:
        notes.write(f"{text}\n")


def has_started(task_result: TaskResult, **_: object) -> None:
    note(f"started {task_result.task.name} {task_result.attempts}")


def has_finished(task_result: TaskResult, **_: object) -> None:
    note(f"finished {task_result.task.name} {task_result.status}")


task_started.connect(has_started)
task_finished.connect(has_finished)


class Boom(Exception):
    pass


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task
def echo(value: Any) -> Any:
    return value


@task(priority=70, queue_name="mail")
async def shout(text: str) -> str:
    await asyncio.sleep(0)
    return text.upper()


@task
def fails(depth: int = 0) -> None:
    if depth:
        fails.func(depth - 1)
    raise Boom("as wanted\nand more")


@task
def chained() -> None:
    try:
        raise ValueError("first")
    except ValueError as error:
        raise Boom("second") from error


@task
def repeats(text: str, times: int) -> str:
    return text * times


@task
def gives_no_json() -> object:
    return object()


@task(takes_context=True)
def succeeds_at(context: TaskContext, attempt: int) -> int:
    if context.attempt < attempt:
        raise Boom(f"attempt {context.attempt}")
    return context.attempt


@task
def reports() -> str | None:
    now = current_task()
    assert now is not None
    now.progress(50, "half of it")
    return now.id


@task
def waits() -> None:
    note(f"waits in {os.getpid()}")
    while not NOTES.with_name("go on").exists():
        time.sleep(0.05)


@task
def stops() -> None:
    now = current_task()
    assert now is not None
    note("stops when it is cancelled")
    now.wait(30)
    now.check()


@task
def queries() -> int:
    """How many connections of earlier calls are still open."""
    left_open = sum(each.connection is not None for each in connections)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connections.append(connection._connections[connection._alias])  # type: ignore[attr-defined]
    return left_open


def no_task() -> None:
    note("no_task was run")
