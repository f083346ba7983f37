"""Runs the `@task` functions of a Django project: the work of an agent, in threads."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.db import close_old_connections, connections
from django.tasks import TaskContext, TaskResult, TaskResultStatus, task_backends
from django.tasks.exceptions import InvalidTask, InvalidTaskBackend
from django.tasks.signals import task_finished, task_started
from django.utils import timezone
from django.utils.connection import ConnectionDoesNotExist
from django.utils.json import normalize_json

from agentcom_client.connection import encode
from agentcom_client.django import AgentComBackend, assign, current
from agentcom_client.django_calls import KEY, error_of, error_text, packed, verify
from agentcom_client.errors import Cancelled, NoRetry, Reject, RetryAfter, Unavailable
from agentcom_client.info import TaskInfo
from agentcom_client.slot import LARGEST_RESULT
from agentcom_client.threads import ThreadTask


class Failed(Exception):
    """A task function raised; the text is that of `error_text`."""


def work(task: ThreadTask) -> dict[str, Any]:
    """One attempt at a task, in a thread of its own, which ends with it."""
    close_old_connections()
    current.set(task)
    try:
        backend, found, result = _looked_up(task)
        return _attempt(backend, task, found, result)
    finally:
        connections.close_all()


def _looked_up(task: ThreadTask) -> tuple[AgentComBackend, TaskInfo, TaskResult]:
    """Raises `NoRetry` for what is not a task of this project."""
    try:
        call = task.metadata[KEY]
        backend = task_backends[call["backend"]]
        if not isinstance(backend, AgentComBackend) or backend.project != call["project"]:
            raise SuspiciousOperation(f"{task.id} is not a task of this project.")
        verify(call)
        found = _found(backend, task)
        return backend, found, backend.result_of(found)
    except (
        ConnectionDoesNotExist, ImportError, InvalidTask, InvalidTaskBackend, KeyError,
        SuspiciousOperation, TypeError,
    ) as error:  # fmt: skip
        raise NoRetry(error_text(error)) from error


def _found(backend: AgentComBackend, task: ThreadTask) -> TaskInfo:
    """Waits for a hub that restarts: the task is this worker's all the same."""
    while True:
        try:
            return backend.hub.show(task.id)
        except Unavailable as away:
            if task.wait(1):
                raise Cancelled(str(away)) from away


def _attempt(
    backend: AgentComBackend, task: ThreadTask, found: TaskInfo, result: TaskResult
) -> dict[str, Any]:
    sender = type(backend)
    try:
        task_started.send(sender, task_result=result)
        value = normalize_json(_call(result))
        outcome = packed("return_value", value)
        if len(encode(outcome)) > LARGEST_RESULT:
            raise ValueError(f"the return value is larger than {LARGEST_RESULT} bytes of JSON")
    except BaseException as error:
        text = error_text(error)
        is_given_back = isinstance(error, Cancelled | Reject)
        is_last = found.retry_count + 1 >= max(1, found.max_retries) and not is_given_back
        if is_last or task.cancel or isinstance(error, NoRetry):
            result.errors.append(error_of(text))
            assign(result, status=TaskResultStatus.FAILED, finished_at=timezone.now())
            task_finished.send_robust(sender, task_result=result)  # with the error at hand
        if is_given_back:
            raise
        if isinstance(error, NoRetry):
            raise NoRetry(text) from error
        if isinstance(error, RetryAfter):
            raise RetryAfter(text, error.seconds) from error
        raise Failed(text) from error
    assign(
        result,
        status=TaskResultStatus.SUCCESSFUL,
        finished_at=timezone.now(),
        _return_value=value,
    )
    # A receiver that fails must not have a task done again that was done.
    task_finished.send_robust(sender, task_result=result)
    return outcome


def _call(result: TaskResult) -> Any:
    context: list[Any] = [TaskContext(task_result=result)] if result.task.takes_context else []
    return result.task.call(*context, *result.args, **result.kwargs)
