"""What the project's own code does, and what it then holds; each test runs one of the functions.
`python -m tests.client.django_project.cases NAME`."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from datetime import timedelta
from typing import Any

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.core.signing import Signer  # noqa: E402
from django.tasks import TaskResult, TaskResultStatus, task_backends  # noqa: E402
from django.tasks.exceptions import (  # noqa: E402
    InvalidTask,
    TaskResultDoesNotExist,
    TaskResultMismatch,
)
from django.tasks.signals import task_enqueued  # noqa: E402
from django.utils import timezone  # noqa: E402

from agentcom_client.django import AgentComBackend, AgentComTask, lane  # noqa: E402

# What `@task` makes of a function is this backend's class, which type checkers do not see.
jobs: Any = importlib.import_module("tests.client.django_project.jobs")

NEVER = "task-0000000000000000"


def hub() -> Any:
    backend = task_backends["default"]
    assert isinstance(backend, AgentComBackend)
    return backend.hub


def ended(result: Any) -> Any:
    hub().wait(result.id, 30)
    result.refresh()
    assert result.is_finished
    return result


def until_noted(text: str) -> None:
    """By the worker, another process."""
    while not jobs.NOTES.exists() or text not in jobs.NOTES.read_text():
        time.sleep(0.05)


def raises(kind: type[BaseException], act: Any, *args: Any, **kwargs: Any) -> str:
    try:
        act(*args, **kwargs)
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def results() -> None:
    seen: list[TaskResult] = []

    def see(task_result: TaskResult, **_: object) -> None:
        seen.append(task_result)

    task_enqueued.connect(see)
    result = jobs.add.enqueue(3, b=4)
    assert seen == [result]
    assert result.status == TaskResultStatus.READY
    ended(result)
    assert (result.status, result.return_value) == (TaskResultStatus.SUCCESSFUL, 7)
    assert (result.args, result.kwargs, result.errors) == ([3], {"b": 4}, [])
    assert (result.attempts, len(result.worker_ids)) == (1, 1)
    assert result.enqueued_at and result.started_at and result.finished_at  # noqa: PT018
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.last_attempted_at == result.started_at
    again = jobs.add.get_result(result.id)
    assert (again.id, again.return_value, again.task) == (result.id, 7, result.task)
    raises(TaskResultMismatch, jobs.echo.get_result, result.id)
    raises(TaskResultDoesNotExist, jobs.add.get_result, NEVER)
    raises(TaskResultDoesNotExist, jobs.add.get_result, hub().submit("no task of Django's"))
    other = hub().submit("another project's", metadata={"django": {"project": "other"}})
    raises(TaskResultDoesNotExist, jobs.add.get_result, other)
    shown = hub().show(result.id)
    assert shown.description == "tests.client.django_project.jobs.add(3, b=4)"
    for value in (
        None, {"b": [1.5, 1e22, -0.0], "a": True}, 2**70, "nul \0 and \ud800", {"1": ["é🙂"]},
    ):  # fmt: skip
        assert ended(jobs.echo.enqueue(value)).return_value == value
    assert ended(jobs.echo.enqueue({2: "a", 10: ["b"]})).return_value == {"2": "a", "10": ["b"]}
    raises(TypeError, jobs.echo.enqueue, object())
    assert ended(jobs.reports.enqueue()).return_value
    assert [ended(jobs.queries.enqueue()).return_value for _ in range(3)] == [0, 0, 0]


async def coroutines() -> None:
    result = await jobs.shout.aenqueue("hello")
    await asyncio.to_thread(ended, result)
    assert (await jobs.shout.aget_result(result.id)).return_value == "HELLO"
    assert result.task.priority == 70
    shown = await asyncio.to_thread(hub().show, result.id)
    assert (shown.priority, shown.metadata["django"]["priority"]) == (0, 70)


def failures() -> None:
    failed = ended(jobs.fails.enqueue())
    assert failed.status == TaskResultStatus.FAILED
    [error] = failed.errors
    assert error.exception_class is jobs.Boom
    assert error.traceback.startswith("Traceback (most recent call last):")
    assert error.traceback.endswith("jobs.Boom: as wanted\nand more\n")
    assert (failed.attempts, hub().show(failed.id).retry_count) == (1, 1)
    [deep] = ended(jobs.fails.enqueue(depth=60)).errors
    assert deep.exception_class is jobs.Boom
    assert deep.traceback.endswith("jobs.Boom: as wanted\nand more\n")
    [chain] = ended(jobs.chained.enqueue()).errors
    assert chain.exception_class is jobs.Boom
    assert chain.traceback.count("Traceback (most recent call last):") == 2
    [wrong] = ended(jobs.add.enqueue("a", nothing=1)).errors
    assert wrong.exception_class is TypeError
    [large] = ended(jobs.repeats.enqueue("x", 300_000)).errors
    assert "larger than" in large.traceback
    [no_json] = ended(jobs.gives_no_json.enqueue()).errors
    assert no_json.exception_class is TypeError

    twice = jobs.succeeds_at.using(attempts=3)
    result = ended(twice.enqueue(3))
    assert (result.return_value, result.attempts) == (3, 3)
    assert [error.exception_class for error in result.errors] == [jobs.Boom, jobs.Boom]
    by_options = ended(jobs.succeeds_at.using(backend="retries").enqueue(2))
    assert (by_options.return_value, by_options.backend) == (2, "retries")
    gave_up = ended(twice.using(attempts=2).enqueue(3))
    assert (gave_up.status, gave_up.attempts, len(gave_up.errors)) == ("FAILED", 2, 2)


def submissions() -> None:
    priorities = (100, 51, 50, 1, 0, -1, -100)
    lanes = ["urgent", "urgent", "high", "high", "normal", "low", "low"]
    assert [lane(priority) for priority in priorities] == lanes
    task = jobs.add.using(capabilities=["gpu"], attempts=5)
    assert isinstance(task, AgentComTask)
    later = timezone.now() + timedelta(days=1)
    result: Any = task.using(run_after=later, priority=-3, queue_name="mail").enqueue(1)
    shown = hub().show(result.id)
    project = shown.metadata["django"]["project"]
    assert shown.needed_capabilities == [f"django:{project}", "queue:mail", "gpu"]
    assert (shown.status, shown.priority, shown.max_retries) == ("scheduled", 3, 5)
    result.refresh()
    assert result.status == TaskResultStatus.READY
    read = jobs.add.get_result(result.id).task
    assert read.run_after is not None
    assert abs(read.run_after - later) < timedelta(milliseconds=2)
    assert (read.priority, read.queue_name) == (-3, "mail")
    hub().cancel(result.id, "no more")
    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    assert [error.traceback for error in result.errors] == ["no more"]
    assert result.errors[0].exception_class.__name__ == "Cancelled"
    assert "metadata" in raises(InvalidTask, jobs.echo.enqueue, "x" * 70_000)
    raises(InvalidTask, jobs.add.using, queue_name="unknown")
    raises(InvalidTask, jobs.add.using, capabilities="gpu")
    raises(InvalidTask, jobs.add.using, capabilities=["x" * 65])
    raises(InvalidTask, jobs.add.using, attempts=101)
    if django.VERSION >= (6, 1):
        declared = jobs.task(capabilities=["gpu"], attempts=2)(jobs.no_task)
        assert (declared.capabilities, declared.attempts) == (("gpu",), 2)


def strangers() -> None:
    """Whoever may submit to the hub cannot have anything run that the project did not enqueue, and
    the project nothing but its tasks."""
    later = jobs.repeats.using(run_after=timezone.now() + timedelta(days=1)).enqueue("a", 1)
    shown = hub().show(later.id)
    call = shown.metadata["django"]
    name = jobs.__name__
    for changed, error in (
        ({"arguments": {"args": ["a", 2], "kwargs": {}}}, "SuspiciousOperation"),
        ({"task": f"{name}.fails"}, "SuspiciousOperation"),
        (signed("os.getpid"), "SuspiciousOperation"),
        (signed(f"{name}.no_task"), "SuspiciousOperation"),
        (signed(f"{name}.time.sleep"), "ModuleNotFoundError"),
        (signed("no.such"), "ModuleNotFoundError"),
        ({"backend": "nothing"}, "InvalidTaskBackend"),
        ({"project": "other"}, "SuspiciousOperation"),
        ({"signature": None}, "SuspiciousOperation"),
    ):
        task_id = hub().submit(
            "x",
            metadata={"django": {**call, **changed}},
            needed_capabilities=shown.needed_capabilities,
        )
        task = hub().wait(task_id, 30)
        assert task.status == "dead_letter", changed
        assert error in (task.last_error or ""), (changed, task.last_error)
    assert not jobs.NOTES.exists()
    task_id = hub().submit(
        "x", metadata=shown.metadata, needed_capabilities=shown.needed_capabilities
    )
    assert hub().wait(task_id, 30).outcome() == {"return_value": "a"}


def signed(path: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {"args": [], "kwargs": {}}
    text = json.dumps([path, [], {}])
    signature = Signer(salt="agentcom_client.django").signature(text)
    return {"task": path, "arguments": arguments, "signature": signature}


def cancelled() -> None:
    result = jobs.stops.enqueue()
    until_noted("stops")
    assert hub().cancel(result.id, "enough") == "cancelling"
    ended(result)
    assert result.status == TaskResultStatus.FAILED
    assert [error.traceback for error in result.errors] == ["enough"]


def lost_workers() -> None:
    result = jobs.waits.enqueue()
    until_noted("waits in")
    result.refresh()
    assert (result.status, result.attempts) == (TaskResultStatus.RUNNING, 1)
    print(json.dumps({"pid": int(jobs.NOTES.read_text().rpartition(" ")[2])}), flush=True)
    ended(result)
    assert (result.status, result.attempts) == (TaskResultStatus.SUCCESSFUL, 2)
    assert len(set(result.worker_ids)) == 2


def stopped() -> None:
    result = jobs.waits.enqueue()
    until_noted("waits in")
    print("waits", flush=True)
    ended(result)
    assert (result.status, result.attempts) == (TaskResultStatus.SUCCESSFUL, 1)


def queues() -> None:
    mail = jobs.shout.enqueue("only mail")
    default = jobs.add.enqueue(1)
    assert ended(mail).return_value == "ONLY MAIL"
    default.refresh()
    assert default.status == TaskResultStatus.READY


def checks() -> None:
    call_command("check")


case = globals()[sys.argv[1]]
asyncio.run(case()) if asyncio.iscoroutinefunction(case) else case()
