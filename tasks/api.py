"""The tasks' HTTP API: submit, list, steer. Reading one task is in fleet/api.py."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from rest_framework.request import Request

from agentcom import actors
from agentcom.access import Caller
from agentcom.api import ApiView, BadInput, json_answer, read_body, refuse_misspelt
from agentcom.database import millis, queries
from agentcom.fields import Check, seconds, text
from agentcom.work import Command
from agentcom.writer import writer
from tasks import listing
from tasks.models import QueueError, Status
from tasks.queue import FirstAnswer, NewTask, Submit
from tasks.serializers import DAY_S, PRIORITIES, check_priority, new_task, new_tasks
from tasks.steering import Cancel, Cancelled, Retry, SetPriority

TASK_ID = re.compile(r"task-[0-9a-f]{16}")
MAX_KEY = 128  # characters of an Idempotency-Key
MAX_PAGE = 500
DEFAULT_PAGE = 100
YIELD_EVERY = 100  # tasks of an array that are checked before yielding to the event loop


class Tasks(ApiView):
    async def post(self, request: Request) -> HttpResponse:
        """Queue one task, or an array of them: all or none."""
        assert self.caller is not None
        data, key = request.data, idempotency_key(request, self.caller)
        try:
            tasks = await _checked(data) if isinstance(data, list) else [new_task(data)]
        except BadInput:
            # a retried submit may now be past its deadline, although the first one was queued
            actor = actors.token(self.caller.agent_id)
            receipts = await _commit(FirstAnswer(key, actor)) if key else None
            if receipts is None:
                raise
        else:
            receipts = await _commit(Submit(tasks, self.caller.agent_id, key))
        # an array that is asked about with the key alone keeps all of its receipts
        if isinstance(data, list) or len(receipts) > 1:
            return json_answer({"tasks": receipts, "count": len(receipts)}, 201)
        return json_answer(receipts[0], 201)

    async def get(self, request: Request) -> dict[str, Any]:
        """List tasks, newest first."""
        query = request.query_params
        refuse_misspelt(query, ("status", "priority", "assigned_to", "limit", "cursor"))
        page = await queries.run(
            listing.newest, read_filters(query), read_limit(query), read_cursor(query, parts=1)
        )
        return page.json()


class DeadLetter(ApiView):
    async def get(self, request: Request) -> dict[str, Any]:
        """List the dead letters, the newest first."""
        query = request.query_params
        refuse_misspelt(query, ("limit", "cursor"))
        page = await queries.run(
            listing.dead_letters, read_limit(query), read_cursor(query, parts=2)
        )
        return page.json()


class Stats(ApiView):
    async def get(self, request: Request) -> dict[str, Any]:
        return await queries.run(listing.counts)


class SteerView(ApiView):
    """A view on one task that a person's command changes."""

    async def steer(
        self, task_id: str, command: Callable[[str], Command]
    ) -> tuple[Any, HttpResponse | None]:
        """The command's result, or the answer to its refusal. `command` gets the actor."""
        assert self.caller is not None
        if not TASK_ID.fullmatch(task_id):
            return None, task_not_found(task_id)
        try:
            return await _commit(command(actors.token(self.caller.agent_id))), None
        except QueueError as refused:
            if refused.code == "not_found":
                return None, task_not_found(task_id)
            return None, json_answer({"error": refused.code, "task_id": task_id}, 409)


class RetryTask(SteerView):
    async def post(self, request: Request, task_id: str) -> Any:
        priority, refusal = await self.steer(task_id, lambda actor: Retry(task_id, actor))
        return refusal or {"status": "requeued", "task_id": task_id, "priority": priority}


class CancelTask(SteerView):
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


MAX_REASON = 500  # characters
CANCEL_FIELDS: dict[str, Check] = {
    "reason": text(MAX_REASON),
    "timeout_s": seconds(DAY_S),
}
PRIORITY_FIELDS: dict[str, Check] = {"priority": check_priority}


def read_priority(data: Any) -> int:
    """Raises `BadInput`."""
    given = read_body(data, PRIORITY_FIELDS)
    if "priority" not in given:
        raise BadInput("priority", "is required")
    return int(given["priority"])


async def change_priority(view: SteerView, request: Request, task_id: str) -> Any:
    """Move a task that does not run to another lane."""
    priority = read_priority(request.data)
    status, refusal = await view.steer(task_id, lambda actor: SetPriority(task_id, actor, priority))
    return refusal or {"status": status, "task_id": task_id, "priority": priority}


async def _commit(command: Command) -> Any:
    return await writer.do(command, settings.AGENTCOM_COMMIT_TIMEOUT_S)


# --- Reading requests


async def _checked(data: list[Any]) -> list[NewTask]:
    tasks = []
    for task in new_tasks(data):
        tasks.append(task)
        if len(tasks) % YIELD_EVERY == 0:
            await asyncio.sleep(0)
    return tasks


def idempotency_key(request: Request, caller: Caller) -> str | None:
    """The client's key, bound to its token. Raises `BadInput`."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not (1 <= len(key) <= MAX_KEY and key.isprintable()):
        raise BadInput("Idempotency-Key", f"must have 1 to {MAX_KEY} printable characters")
    return f"{caller.token_hash}:{hashlib.sha256(key.encode()).hexdigest()}"


def read_filters(query: Mapping[str, str]) -> dict[str, Any]:
    """The filters for `listing.newest`; an empty one is ignored. Raises `BadInput`."""
    filters: dict[str, Any] = {}
    if status := query.get("status"):
        if status not in Status.values:
            raise BadInput("status", f"must be one of {', '.join(Status.values)}")
        filters["status"] = status
    if priority := query.get("priority"):
        try:
            filters["priority"] = check_priority(PRIORITIES.get(priority, _whole(priority)))
        except ValueError as error:
            raise BadInput("priority", str(error)) from None
    if agent_id := query.get("assigned_to"):
        if not agent_id.isprintable():
            raise BadInput("assigned_to", "must be an agent's id")
        filters["assigned_to"] = agent_id
    return filters


def read_limit(query: Mapping[str, str], default: int = DEFAULT_PAGE) -> int:
    """Raises `BadInput`."""
    return read_whole(query, "limit", default, MAX_PAGE)


def read_whole(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A number from 1 to `most`. Raises `BadInput`."""
    number = _whole(query.get(name) or str(default))
    if number is None or not 1 <= number <= most:
        raise BadInput(name, f"must be a whole number from 1 to {most}")
    return number


def read_cursor(query: Mapping[str, str], parts: int) -> tuple[int, ...] | None:
    """Raises `BadInput`."""
    cursor = query.get("cursor")
    try:
        return listing.read_cursor(cursor, parts) if cursor else None
    except ValueError as error:
        raise BadInput("cursor", str(error)) from None


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


# --- Responses


def task_not_found(task_id: str) -> HttpResponse:
    return json_answer({"error": "task_not_found", "task_id": task_id}, 404)
