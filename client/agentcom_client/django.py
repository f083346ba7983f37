"""Django's tasks framework on a hub: a backend for `TASKS`. Needs Django 6.0 or newer.

    TASKS = {"default": {"BACKEND": "agentcom_client.django.AgentComBackend"}}

`agentcom-client run-django` runs the tasks, with django_worker.py.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import SuspiciousOperation
from django.tasks import Task, TaskResult, TaskResultStatus
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import TaskError
from django.tasks.exceptions import InvalidTask, InvalidTaskBackend, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued
from django.utils import timezone as django_timezone
from django.utils.json import normalize_json
from django.utils.module_loading import import_string

from agentcom_client import config
from agentcom_client.config import ConfigError
from agentcom_client.django_calls import (
    KEY,
    call_of,
    description,
    error_of,
    packed,
    signature,
    unpacked,
)
from agentcom_client.errors import Invalid, NotFound
from agentcom_client.hub import Hub
from agentcom_client.info import TaskInfo
from agentcom_client.threads import ThreadTask

PATIENCE_S = 10.0  # a request of the project waits for the hub so long
LONGEST_NAME = 64  # of a capability

# OPTIONS that are fields of a submission, and what else OPTIONS may have.
FIELDS = {
    "MAX_RECLAIMS": "max_reclaims",
    "RETRY_BACKOFF_S": "retry_backoff_s",
    "RUN_TIMEOUT_S": "run_timeout_s",
}
OPTIONS = {"URL", "TOKEN", "PROJECT", "CAPABILITIES", "MAX_RETRIES", "PATIENCE_S", *FIELDS}

STATUSES = {
    "queued": TaskResultStatus.READY,
    "scheduled": TaskResultStatus.READY,
    "assigned": TaskResultStatus.RUNNING,
    "completed": TaskResultStatus.SUCCESSFUL,
    "dead_letter": TaskResultStatus.FAILED,
    "cancelled": TaskResultStatus.FAILED,
}


current: ContextVar[ThreadTask | None] = ContextVar("agentcom_task", default=None)


def current_task() -> ThreadTask | None:
    """In a task function: what the hub calls this task, to report progress and to stop when it is
    cancelled. None where no worker runs the function, as in tests."""
    return current.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentComTask(Task):
    """A task that may need more of its worker, and may be tried more than once.

        @task(capabilities=["gpu"], attempts=3)              # since Django 6.1
        render.using(capabilities=["gpu"], attempts=3).enqueue(7)    # in 6.0 too

    `capabilities`: words, in addition to those of OPTIONS; a worker has them by its `--capability`.
    `attempts`: how often it is tried in all, 0 to 100; without it, MAX_RETRIES of OPTIONS.
    """

    capabilities: Sequence[str] = ()
    attempts: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.capabilities, str):  # which is refused
            object.__setattr__(self, "capabilities", tuple(self.capabilities))
        Task.__post_init__(self)

    def using(
        self,
        *,
        capabilities: Sequence[str] | None = None,
        attempts: int | None = None,
        **changes: Any,
    ) -> AgentComTask:
        own: dict[str, Any] = {"capabilities": capabilities, "attempts": attempts}
        given = {name: value for name, value in own.items() if value is not None}
        # `super()` does not work in a class with slots, which the decorator has made anew.
        changed: Any = Task.using(self, **changes)
        return replace(changed, **given)  # type: ignore[no-any-return]


class AgentComBackend(BaseTaskBackend):
    """Submits tasks to a hub and reads their results from it. OPTIONS, none of them required:

    - URL, TOKEN: those of the environment or of `agentcom-client login` without them.
    - PROJECT: keeps projects that share a hub apart. A task needs the capability `django:PROJECT`.
      The first part of the settings module's name without it.
    - CAPABILITIES: what all tasks need of their worker, such as ["gpu"].
    - MAX_RETRIES: how often a task is tried in all (1).
    - MAX_RECLAIMS, RETRY_BACKOFF_S, RUN_TIMEOUT_S: as the hub's fields of the same name.
    - PATIENCE_S: how long a call waits for a hub that does not answer (10).

    Calls raise `agentcom_client.Unavailable` when the hub does not answer, and `ConfigError` when
    there is no token.
    """

    task_class = AgentComTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        if unknown := sorted(set(self.options) - OPTIONS):
            raise InvalidTaskBackend(
                f"TASKS[{alias!r}]: OPTIONS has {', '.join(unknown)}, which is not known. Known are"
                f" {', '.join(sorted(OPTIONS))}."
            )
        self.project = str(self.options.get("PROJECT") or _project(alias))

    @property
    def hub(self) -> Hub:
        """Shared by all threads of the process."""
        options = self.options
        return _shared_hub(
            options.get("URL"), options.get("TOKEN"), options.get("PATIENCE_S", PATIENCE_S)
        )

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """A warning: what builds or tests the project may well have no token."""
        try:
            config.addresses_and_token(self.options.get("URL"), self.options.get("TOKEN"))
        except ConfigError as error:
            about = f"TASKS[{self.alias!r}] cannot enqueue. {error}"
            return [checks.Warning(about, id="agentcom_client.W001")]
        return []

    def validate_task(self, task: Task) -> None:
        super().validate_task(task)
        for needed in self.needs(task):
            if not isinstance(needed, str) or not 0 < len(needed) <= LONGEST_NAME:
                raise InvalidTask(
                    f"{needed!r} is no capability: a text of 1 to {LONGEST_NAME} characters."
                )
        attempts = getattr(task, "attempts", None)
        if attempts is not None and not (isinstance(attempts, int) and 0 <= attempts <= 100):
            raise InvalidTask("attempts must be a whole number from 0 to 100.")

    def needs(self, task: Task) -> list[str]:
        """The capabilities that a worker must have."""
        own = getattr(task, "capabilities", ())
        if isinstance(own, str):
            raise InvalidTask("capabilities must be a list of texts, not a single one.")
        return [*self.served([task.queue_name]), *self.options.get("CAPABILITIES", ()), *own]

    def served(self, queues: list[str]) -> list[str]:
        """The capabilities of a worker that serves these queues."""
        return [f"django:{self.project}", *(f"queue:{queue}" for queue in queues)]

    def enqueue(self, task: Task, args: Any, kwargs: Any) -> TaskResult:
        """Raises `InvalidTask` also for what the hub does not take, such as too long arguments."""
        self.validate_task(task)
        # As a worker gets them: a signature is of exactly that, where all keys are texts.
        args, kwargs = json.loads(json.dumps([normalize_json(args), normalize_json(kwargs)]))
        attempts = getattr(task, "attempts", None)
        fields = {field: self.options.get(option) for option, field in FIELDS.items()}
        try:
            task_id = self.hub.submit(
                description(task, args, kwargs),
                metadata={KEY: self._metadata(task, args, kwargs)},
                priority=lane(task.priority),
                needed_capabilities=list(dict.fromkeys(self.needs(task))),
                max_retries=self.options.get("MAX_RETRIES", 1) if attempts is None else attempts,
                not_before=_ms(task.run_after),
                **fields,
            )
        except Invalid as refused:
            raise InvalidTask(f"The hub refuses the task. {refused}") from refused
        result = _result(task, task_id, TaskResultStatus.READY, args, kwargs, self.alias)
        assign(result, enqueued_at=django_timezone.now())
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """Raises `TaskResultDoesNotExist` also for a task of the hub that is not this project's,
        and ImportError or `SuspiciousOperation` when its function is no task any more."""
        try:
            found = self.hub.show(str(result_id))
        except NotFound:
            raise TaskResultDoesNotExist(result_id) from None
        if call_of(found).get("project") != self.project:
            raise TaskResultDoesNotExist(result_id)
        return self.result_of(found)

    def result_of(self, found: TaskInfo) -> TaskResult:
        """From a task of `Hub.show`: its history tells of attempts and workers."""
        call = call_of(found)
        task = replace(
            task_at(call["task"]),
            priority=call["priority"],
            queue_name=call["queue_name"],
            backend=self.alias,
            run_after=_moment(call["run_after"]),
        )
        status = STATUSES[found.status]
        arguments = unpacked(call, "arguments")
        result = _result(task, found.id, status, arguments["args"], arguments["kwargs"], self.alias)
        begun = {
            entry["details"].get("generation"): entry
            for entry in found.history
            if entry["event"] == "task_accepted"
        }
        times = [entry["timestamp"] for entry in begun.values()]
        assign(
            result,
            enqueued_at=_moment(found.created_at),
            started_at=_moment(times[0]) if times else None,
            last_attempted_at=_moment(times[-1]) if times else None,
            finished_at=_moment(found.updated_at) if found.is_ended else None,
            errors=_errors(found),
            # Without a history, which the hub keeps for some days only, the last one is known.
            worker_ids=[entry["agent_id"] for entry in begun.values()]
            or [found.assigned_to] * (found.assigned_to is not None),
        )
        if status == TaskResultStatus.SUCCESSFUL:
            assign(result, _return_value=unpacked(found.result or {}, "return_value"))
        return result

    def _metadata(self, task: Task, args: Any, kwargs: Any) -> dict[str, Any]:
        return {
            "project": self.project,
            "backend": self.alias,
            "task": task.module_path,
            **packed("arguments", {"args": args, "kwargs": kwargs}),
            "signature": signature(task.module_path, args, kwargs),
            "priority": task.priority,
            "queue_name": task.queue_name,
            "run_after": _ms(task.run_after),
            "takes_context": task.takes_context,
        }


def task_at(path: str) -> Task:
    """The `@task` at this path. Nothing else is ever run: what it is, the project's own code says,
    not who submitted it. Raises ImportError or `SuspiciousOperation`."""
    found = import_string(path)
    if not isinstance(found, Task) or found.module_path != path:
        raise SuspiciousOperation(f"{path} is not a task of this project.")
    return found


def lane(priority: int) -> str:
    """Of Django's -100 to 100, where more is more urgent. Within a lane, first in is first out."""
    if priority > 50:
        return "urgent"
    if priority > 0:
        return "high"
    return "normal" if priority == 0 else "low"


def _errors(found: TaskInfo) -> list[TaskError]:
    """Of all failed attempts, and why the task was ended if it was not the last of them."""
    said = [entry["details"]["error"] for entry in found.history if entry["event"] == "task_failed"]
    if not said and found.last_error:
        said = [found.last_error]
    errors = [error_of(text) for text in said]
    if found.status == "cancelled":
        errors.append(
            TaskError(
                exception_class_path="agentcom_client.Cancelled",
                traceback=found.cancel_reason or "",
            )
        )
    elif found.status == "dead_letter" and found.last_error and found.last_error != said[-1]:
        errors.append(error_of(found.last_error))
    return errors


def _result(
    task: Task, id: str, status: TaskResultStatus, args: list[Any], kwargs: Any, alias: str
) -> TaskResult:
    return TaskResult(
        task=task,
        id=id,
        status=status,
        enqueued_at=None,
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=args,
        kwargs=kwargs,
        backend=alias,
        errors=[],
        worker_ids=[],
    )


def assign(result: TaskResult, **values: Any) -> None:
    """A result is frozen for projects; backends write it like this."""
    for name, value in values.items():
        object.__setattr__(result, name, value)


def _ms(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if django_timezone.is_naive(moment):  # with USE_TZ = False
        moment = django_timezone.make_aware(moment)
    return round(moment.timestamp() * 1000)


def _moment(ms: int | None) -> datetime | None:
    """Aware or naive, as the project's settings have it."""
    if ms is None:
        return None
    moment = datetime.fromtimestamp(ms / 1000, timezone.utc)
    return moment if settings.USE_TZ else django_timezone.make_naive(moment)


def _project(alias: str) -> str:
    module = getattr(settings, "SETTINGS_MODULE", None) or alias
    return str(module).partition(".")[0]


# Django makes a backend for each thread, and under ASGI for each request.
_hubs: dict[tuple[Any, ...], Hub] = {}
_hubs_lock = threading.Lock()


def _shared_hub(url: str | None, token: str | None, patience_s: float) -> Hub:
    key = (os.getpid(), url, token, patience_s)  # a forked process lacks the threads of its parent
    with _hubs_lock:
        if key not in _hubs:
            _hubs[key] = Hub(url, token, patience_s=patience_s)
        return _hubs[key]
