"""The tasks' HTTP API: submit, list, steer. Reading one task is in fleet/api.py."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from rest_framework.request import Request

from agentcom import actors
from agentcom.addresses import client_address
from agentcom.api import (
    ApiView,
    BadInput,
    NotAllowed,
    Throttled,
    json_answer,
    read_body,
    read_query,
)
from agentcom.audit import acting
from agentcom.audit.entries import Act, Auditable
from agentcom.audit.gathered import note_refusal
from agentcom.calls import call, problem
from agentcom.database import millis, queries
from agentcom.fields import Check, digits, fields, number, seconds, takes, text
from agentcom.limits import Buckets
from agentcom.rights import Caller, Right
from agentcom.shapes import TEXT, Shape, nullable, one_of, shown
from agentcom.work import Command
from agentcom.writer import writer
from tasks import listing, shapes
from tasks.models import QueueError, Status
from tasks.queue import FirstAnswer, NewTask, Submit
from tasks.serializers import (
    DAY_S,
    PRIORITIES,
    check_priority,
    new_task,
    new_tasks,
)
from tasks.steering import Cancel, Cancelled, Retry, SetPriority

TASK_ID = re.compile(r"task-[0-9a-f]{16}")
KEY_HEADER = "Idempotency-Key"
KEY_IN_META = "HTTP_IDEMPOTENCY_KEY"  # all of `request.headers` would be made for one of them
MAX_KEY = 128  # characters of it
MAX_PAGE = 500
MAX_REASON = 500  # characters
DEFAULT_PAGE = 100
YIELD_EVERY = 100  # tasks of an array that are checked before yielding to the event loop


# --- What requests carry


def page_size(default: int = DEFAULT_PAGE) -> Check:
    return number(MAX_PAGE, 1, default)


def cursor(parts: int) -> Check:
    """Where a page begins; a list's cursors have so many parts."""

    @takes(shown(TEXT, format=f"cursor-{parts}", description="`next_cursor` of the page before."))
    def check(value: str) -> tuple[int, ...]:
        return listing.read_cursor(value, parts)

    return check


@takes(one_of(Status.values))
def check_status(value: str) -> str:
    if value not in Status.values:
        raise ValueError(f"must be one of {', '.join(Status.values)}")
    return value


@takes(check_priority.shape)
def check_lane(value: str) -> int:
    lane: int = check_priority(PRIORITIES.get(value, digits(value)))
    return lane


@takes(shown(shapes.AGENT_ID, format="printable", description="An agent's id."))
def check_holder(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be an agent's id")
    return value


PRINTABLE = "!-~\u00a1-\u00ac\u00ae-\u00ff"  # of what a header can have, without the space


@takes(
    {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_KEY,
        "pattern": f"^[{PRINTABLE}]([ {PRINTABLE}]*[{PRINTABLE}])?$",
        "examples": ["order-4711"],
    }
)
def check_key(value: str) -> str:
    if not (1 <= len(value) <= MAX_KEY and value.isprintable()):
        raise ValueError(f"must have 1 to {MAX_KEY} printable characters")
    return value


PAGE: dict[str, Check] = {"limit": page_size(), "cursor": cursor(parts=2)}
FILTERS: dict[str, Check] = {
    "status": check_status,
    "priority": check_lane,
    "assigned_to": check_holder,
}
TASKS_PAGE: dict[str, Check] = {**FILTERS, "limit": page_size(), "cursor": cursor(parts=1)}
KEY: dict[str, Check] = {KEY_HEADER: check_key}
CANCEL_FIELDS: dict[str, Check] = {
    "reason": text(MAX_REASON),
    "timeout_s": seconds(DAY_S),
}
PRIORITY_FIELDS: dict[str, Check] = {"priority": check_priority}
CANCEL_SHAPE: Shape = shown(fields(CANCEL_FIELDS), {"reason": "wrong customer", "timeout_s": 60})
CANCEL_BODY = nullable(CANCEL_SHAPE)
PRIORITY_BODY: Shape = shown(
    fields(PRIORITY_FIELDS, required=PRIORITY_FIELDS), {"priority": "urgent"}
)

TASK_NOT_FOUND = problem(
    404, "TaskNotFound", "No such task.", "task_not_found", {"task_id": shapes.TASK_ID_SAID}
)
NOT_RETRYABLE = replace(
    TASK_NOT_FOUND, when="No such task, or it is neither a dead letter nor cancelled."
)
TOO_LATE = problem(
    409,
    "TooLate",
    "The task's status does not allow it any more.",
    "too_late",
    {"task_id": shapes.TASK_ID},
)


submits = Buckets("it submits too much with this token", shown=12)


# --- The calls


class Tasks(ApiView):
    @call(
        "submit_tasks",
        Right.SUBMIT,
        {201: ("What was queued; of an array, all receipts.", shapes.RECEIVED)},
        headers=KEY,
        body=shapes.NEW_TASKS,
    )
    async def post(self, request: Request) -> HttpResponse:
        """Queue one task, or an array of them: all or none."""
        assert self.caller is not None
        data, key = request.data, idempotency_key(request, self.caller)
        slow_down(self.caller, len(data) if isinstance(data, list) else 1)
        try:
            tasks = await _checked(data) if isinstance(data, list) else [new_task(data)]
            refuse_outside_scope(self.caller, tasks)
        except BadInput:
            # a retried submit may now be past its deadline, although the first one was queued
            actor = actors.token(self.caller.name)
            receipts = await _commit(FirstAnswer(key, actor)) if key else None
            if receipts is None:
                raise
        else:
            receipts = await _commit(Submit(tasks, self.caller.name, key))
        # an array that is asked about with the key alone keeps all of its receipts
        if isinstance(data, list) or len(receipts) > 1:
            return json_answer({"tasks": receipts, "count": len(receipts)}, 201)
        return json_answer(receipts[0], 201)

    @call("list_tasks", Right.READ, {200: ("A page of tasks.", shapes.TASKS)}, query=TASKS_PAGE)
    async def get(self, request: Request) -> dict[str, Any]:
        """List tasks, newest first: all, or those that a token of this name submitted."""
        given = read_query(request.query_params, TASKS_PAGE)
        filters = {name: given[name] for name in FILTERS if name in given}
        if not (caller := self.known).has_all_tasks and not caller.is_for(
            filters.get("assigned_to")
        ):
            filters["submitted_by"] = caller.name
        page = await queries.run(listing.newest, filters, given["limit"], given.get("cursor"))
        return page.json()


class DeadLetter(ApiView):
    @call(
        "list_dead_letters",
        Right.READ,
        {200: ("A page of dead letters.", shapes.TASKS)},
        query=PAGE,
    )
    async def get(self, request: Request) -> dict[str, Any]:
        """List the dead letters, the newest first: all, or those of a token of this name."""
        given = read_query(request.query_params, PAGE)
        of = {} if self.known.has_all_tasks else {"submitted_by": self.known.name}
        page = await queries.run(listing.dead_letters, given["limit"], given.get("cursor"), of)
        return page.json()


class Stats(ApiView):
    @call(
        "count_tasks",
        Right.READ_ALL,
        {200: ("How many tasks there are in each status.", shapes.COUNTS)},
    )
    async def get(self, request: Request) -> dict[str, Any]:
        """Count the tasks."""
        return await queries.run(listing.counts)


class SteerView(ApiView):
    """A view on one task that a person's command changes."""

    parts = {"task_id": shapes.TASK_ID}

    async def steer(
        self, task_id: str, command: Callable[[str], Auditable]
    ) -> tuple[Any, HttpResponse | None]:
        """The command's result, or the answer to its refusal. `command` gets the actor."""
        if not TASK_ID.fullmatch(task_id):
            return None, task_not_found(task_id)
        asked = command(actors.token(self.known.name))
        if not await self._may_steer(task_id):
            self._note_refusal_of(asked, "not_found")
            return None, task_not_found(task_id)
        try:
            return await self._steer(asked), None
        except QueueError as refused:
            if refused.code == "not_found":
                return None, task_not_found(task_id)
            return None, json_answer({"error": refused.code, "task_id": task_id}, 409)

    async def _steer(self, asked: Auditable) -> Any:
        """What a program does with its own tasks is traffic: the audit trail has only how often it
        was refused."""
        if self.known.has_all_tasks:
            return await acting.do(asked, client_address(self.request.scope))
        try:
            return await _commit(asked)
        except QueueError as refused:
            self._note_refusal_of(asked, refused.code)
            raise

    def _note_refusal_of(self, asked: Auditable, code: str) -> None:
        act, address = Act(asked.act().what), client_address(self.request.scope)
        note_refusal(act, self.known, address, code, logging.INFO)

    async def _may_steer(self, task_id: str) -> bool:
        """Whoever submitted a task, which never changes, may steer it."""
        if self.known.has_all_tasks:
            return True
        return bool(await queries.run(listing.submitter, task_id) == self.known.name)


class RetryTask(SteerView):
    @call(
        "retry_task",
        Right.STEER,
        {200: ("It is queued again.", shapes.RETRIED)},
        problems=[NOT_RETRYABLE],
    )
    async def post(self, request: Request, task_id: str) -> Any:
        """Queue a dead letter or a cancelled task again."""
        priority, refusal = await self.steer(task_id, lambda actor: Retry(task_id, actor))
        return refusal or {"status": "requeued", "task_id": task_id, "priority": priority}


class CancelTask(SteerView):
    @call(
        "cancel_task",
        Right.STEER,
        {
            200: ("It is cancelled.", shapes.CANCELLED),
            202: ("Its agent was asked to stop.", shapes.CANCELLING),
        },
        problems=[TASK_NOT_FOUND, TOO_LATE],
        body=CANCEL_BODY,
        body_needed=False,
    )
    async def post(self, request: Request, task_id: str) -> Any:
        """End a task: 200 if it is cancelled, 202 if its agent was asked to stop."""
        given = read_body(request.data, CANCEL_FIELDS)
        reason, timeout_s = given.get("reason", ""), given.get("timeout_s")
        cancelled, refusal = await self.steer(
            task_id, lambda actor: Cancel(task_id, actor, reason, timeout_s)
        )
        return refusal or cancel_answer(task_id, cancelled)


def cancel_answer(task_id: str, cancelled: Cancelled) -> HttpResponse:
    if cancelled.deadline is None:
        return json_answer({"status": "cancelled", "task_id": task_id}, 200)
    deadline = millis(cancelled.deadline)
    return json_answer({"status": "cancelling", "task_id": task_id, "deadline": deadline}, 202)


def read_priority(data: Any) -> int:
    """Raises `BadInput`."""
    return int(read_body(data, PRIORITY_FIELDS, PRIORITY_FIELDS)["priority"])


MOVES_A_TASK = call(
    "change_priority",
    Right.STEER,
    {200: ("It is in this lane now.", shapes.MOVED)},
    problems=[TASK_NOT_FOUND, TOO_LATE],
    body=PRIORITY_BODY,
)


async def change_priority(view: SteerView, request: Request, task_id: str) -> Any:
    """Move a task that does not run to another lane."""
    priority = read_priority(request.data)
    if hint := view.known.refusal_of_lane(priority):
        raise NotAllowed(hint)
    status, refusal = await view.steer(task_id, lambda actor: SetPriority(task_id, actor, priority))
    return refusal or {"status": status, "task_id": task_id, "priority": priority}


async def _commit(command: Command) -> Any:
    return await writer.do(command, settings.AGENTCOM_COMMIT_TIMEOUT_S)


# --- Reading requests


def slow_down(caller: Caller, count: int) -> None:
    """Raises `Throttled` when the token has submitted too much lately."""
    if caller.submits_like_an_agent:
        rate = settings.AGENTCOM_AGENT_SUBMITS_PER_S, settings.AGENTCOM_AGENT_SUBMIT_BURST
    else:
        rate = settings.AGENTCOM_SUBMITS_PER_S, settings.AGENTCOM_SUBMIT_BURST
    if wait_s := submits.admit(caller.origin, count, *rate):
        raise Throttled(wait_s, f"at most {rate[0]:g} tasks a second with this token")


def refuse_outside_scope(caller: Caller, tasks: Sequence[NewTask]) -> None:
    """Raises `NotAllowed` when the token's scopes do not allow to submit one of the tasks."""
    for task in tasks:
        if hint := caller.refusal_to_submit(task.needed_capabilities, task.priority):
            raise NotAllowed(hint)


async def _checked(data: list[Any]) -> list[NewTask]:
    tasks = []
    for task in new_tasks(data):
        tasks.append(task)
        if len(tasks) % YIELD_EVERY == 0:
            await asyncio.sleep(0)
    return tasks


def idempotency_key(request: Request, caller: Caller) -> str | None:
    """The client's key, bound to its token and those that replace it. Raises `BadInput`."""
    key = request.META.get(KEY_IN_META)
    if key is None:
        return None
    try:
        check_key(key)
    except ValueError as error:
        raise BadInput(KEY_HEADER, str(error)) from None
    return f"{caller.origin}:{hashlib.sha256(key.encode()).hexdigest()}"


# --- Responses


def task_not_found(task_id: str) -> HttpResponse:
    return json_answer({"error": "task_not_found", "task_id": task_id}, 404)
