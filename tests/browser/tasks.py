"""Tasks to show, as a hub tells of them: factories with defaults, each test builds what differs."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Page

from tests.browser.snapshots import MINUTE, NOW, dead_letter, queue, snapshot
from tests.browser.stage import Stage

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\" ' & שלום 🚀"
HISTORY = "/api/dashboard/history"
QUEUE = "/api/dashboard/queue"
DEAD = "/api/dashboard/dead-letters"


def event(kind: str, task_id: str = "task-1", **fields: Any) -> dict[str, Any]:
    return {
        "type": "task_event",
        "task_id": task_id,
        "event": kind,
        "agent_id": "writer-1",
        "timestamp": NOW,
    } | fields


def queued(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"task-{number}",
        "description": f"wait {number}",
        "priority": 2,
        "needed_capabilities": [],
        "created_at": NOW - 5 * MINUTE,
        "generation": 0,
        "waiting": {"reason": "in_line", "message": "In line.", "missing": [], "ahead": number},
    } | fields


def waiting(reason: str, **fields: Any) -> dict[str, Any]:
    return {
        "reason": reason,
        "message": "The hub's sentence.",
        "missing": [],
        "ahead": None,
    } | fields


def task(**fields: Any) -> dict[str, Any]:
    return {
        "id": "task-1",
        "description": "say hello",
        "metadata": {},
        "priority": 2,
        "status": "completed",
        "assigned_to": "writer-1",
        "assigned_at": NOW - MINUTE,
        "generation": 1,
        "retry_count": 0,
        "max_retries": 3,
        "needed_capabilities": [],
        "last_error": None,
        "complete_by": None,
        "result": {"said": "hello"},
        "tokens_used": 12,
        "submitted_by": "writer-1",
        "created_at": NOW - 2 * MINUTE,
        "updated_at": NOW,
        "history": [
            entry("task_submitted", NOW - 2 * MINUTE, None, priority=2),
            entry("task_assigned", NOW - 2 * MINUTE + 2500, generation=1),
            entry("task_complete", NOW, duration_ms=117_500, tokens_used=12),
        ],
        "waiting": None,
    } | fields


def entry(kind: str, at: int, agent_id: str | None = "writer-1", **details: Any) -> dict[str, Any]:
    return {"event": kind, "timestamp": at, "agent_id": agent_id, "details": details}


def group(key: str = "boom", count: int = 3, **fields: Any) -> dict[str, Any]:
    return {
        "group": key,
        "error": "Boom",
        "count": count,
        "first_at": NOW - 60 * MINUTE,
        "last_at": NOW - MINUTE,
        "agents": ["writer-1"],
        "agent_count": 1,
    } | fields


def open_with_group(stage: Stage, count: int = 3, **fields: Any) -> None:
    """A dead letter of one cause, with `count` tasks in it."""
    letters = [
        dead_letter(f"task-{number}", description=f"try {number}", last_error="Boom")
        for number in range(count)
    ]
    about = group(count=count, **fields)
    stage.api[DEAD] = {"groups": [about], "total": count}
    stage.api[f"{DEAD}?group={about['group']}&limit=50"] = {
        "tasks": letters,
        "count": count,
        "next_cursor": None,
    }
    stage.open(snapshot(dead_letter_tasks=letters, queue=queue(dead_letter=count)))


def points(page: Page, chart: str) -> Any:
    return json.loads(page.locator(f'[data-chart="{chart}"]').get_attribute("data-points") or "{}")


def answer_retries(stage: Stage, refused: str = "") -> None:
    def answer(asked: dict[str, Any]) -> None:
        status = "not_found" if asked["task_id"] == refused else "requeued"
        stage.send(type="retry_result", task_id=asked["task_id"], status=status)

    stage.reactions["retry_task"] = answer


def asked_of(stage: Stage) -> list[str]:
    return [said["task_id"] for said in stage.heard if said["type"] == "retry_task"]
