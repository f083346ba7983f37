"""`show`, `tasks`, `cancel` and `retry`: look at tasks, and steer them."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agentcom_client.cli import exits
from agentcom_client.cli.output import (
    BOLD,
    BY_STATUS,
    PRIORITIES,
    age,
    at,
    coloured,
    complain,
    line,
    print_json,
    table,
)
from agentcom_client.errors import RequestRefused
from agentcom_client.hub import AsyncHub
from agentcom_client.info import TaskInfo
from agentcom_client.text import plain

STATUSES = ("queued", "scheduled", "assigned", "completed", "cancelled", "dead_letter")


def add(commands: Any) -> None:
    show = commands.add_parser("show", help="show a task with its history")
    show.add_argument("task_id", metavar="TASK")
    show.add_argument("--json", action="store_true", help="as the hub describes it")
    show.set_defaults(run=lambda options: asyncio.run(_show(options)))

    tasks = commands.add_parser("tasks", help="list tasks, the newest first")
    tasks.add_argument("--status", choices=STATUSES)
    tasks.add_argument("--priority", choices=PRIORITIES)
    tasks.add_argument("--agent", help="that this agent holds, or was the last to have")
    tasks.add_argument("--limit", type=int, default=20, help="how many; 0: all (%(default)s)")
    tasks.add_argument("--json", action="store_true", help="as JSON, one a line")
    tasks.set_defaults(run=lambda options: asyncio.run(_tasks(options)))

    cancel = commands.add_parser("cancel", help="cancel tasks")
    cancel.add_argument("task_ids", nargs="+", metavar="TASK")
    cancel.add_argument("--reason", help="for the agent and for people")
    cancel.add_argument(
        "--timeout", type=float, metavar="S", help="how long an agent may take to stop; 0: none"
    )
    cancel.set_defaults(run=lambda options: asyncio.run(_cancel(options)))

    retry = commands.add_parser("retry", help="queue dead letters or cancelled tasks again")
    retry.add_argument("task_ids", nargs="+", metavar="TASK")
    retry.set_defaults(run=lambda options: asyncio.run(_retry(options)))


async def _show(options: argparse.Namespace) -> int:
    async with AsyncHub() as hub:
        task = await hub.show(options.task_id)
    if options.json:
        print_json(task.raw)
    else:
        _print_task(task)
    return exits.OK


def _print_task(task: TaskInfo) -> None:
    print(coloured(task.id, BOLD), coloured(task.status, BY_STATUS.get(task.status)))
    print(plain(task.description))
    print()
    facts = {
        "priority": PRIORITIES[task.priority],
        "needs": ", ".join(task.needed_capabilities),
        "agent": task.assigned_to,
        "attempts": f"{task.retry_count} of {task.max_retries} failed" if task.retry_count else "",
        "submitted": f"{at(task.created_at)} by {task.submitted_by}",
        "not before": at(task.not_before),
        "complete by": at(task.complete_by),
        "waits": (task.waiting or {}).get("message"),
        "cancelled": task.cancel_reason,
        "error": task.last_error,
        "tokens": f"{task.tokens_used:,}" if task.tokens_used is not None else "",
        "metadata": json.dumps(task.metadata, ensure_ascii=False) if task.metadata else "",
    }
    for name, value in facts.items():
        if value:
            print(f"{name:<12} {line(str(value))}")
    if task.result is not None:
        print(f"\n{coloured('result', BOLD)}")
        text = task.result.get("text")
        is_text = isinstance(text, str) and set(task.result) <= {"text", "tokens_used"}
        shown = text if is_text else json.dumps(task.result, ensure_ascii=False, indent=2)
        print(plain(str(shown)))
    if task.history:
        print(f"\n{coloured('history', BOLD)}")
        for entry in task.history:
            details = entry.get("details") or {}
            said = details.get("message") or details.get("error") or details.get("reason") or ""
            who = entry.get("agent_id") or entry.get("actor") or ""
            what = entry["event"].removeprefix("task_")
            print(
                f"{at(entry['timestamp'])}  {what:<16} {line(who):<20} {line(str(said))}".rstrip()
            )


async def _tasks(options: argparse.Namespace) -> int:
    async with AsyncHub() as hub:
        found = hub.tasks(
            status=options.status,
            priority=options.priority,
            assigned_to=options.agent,
            limit=options.limit or None,
        )
        if options.json:
            async for task in found:
                print_json(task.raw)
            return exits.OK
        rows = [
            (
                task.id,
                task.status,
                PRIORITIES[task.priority],
                age(task.created_at),
                task.assigned_to or "",
                task.description,
            )
            async for task in found
        ]
    if rows:
        table(("TASK", "STATUS", "PRIORITY", "AGE", "AGENT", "DESCRIPTION"), rows, tint=1)
    else:
        print("There are no such tasks.")
    return exits.OK


async def _cancel(options: argparse.Namespace) -> int:
    async with AsyncHub() as hub:

        async def cancel(task_id: str) -> str:
            return await hub.cancel(task_id, options.reason, options.timeout)

        return await _each(options.task_ids, cancel)


async def _retry(options: argparse.Namespace) -> int:
    async with AsyncHub() as hub:

        async def retry(task_id: str) -> str:
            await hub.retry(task_id)
            return "queued"

        return await _each(options.task_ids, retry)


async def _each(task_ids: Sequence[str], steer: Callable[[str], Awaitable[str]]) -> int:
    """One that is refused does not keep the others from being steered."""
    code = exits.OK
    for task_id in task_ids:
        try:
            print(f"{task_id} {await steer(task_id)}")
        except RequestRefused as refused:
            complain(f"{task_id}: {refused}")
            code = next(code for kind, code in exits.BY_ERROR.items() if isinstance(refused, kind))
    return code
