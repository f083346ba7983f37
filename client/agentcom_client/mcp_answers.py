"""What the tools of the MCP server answer: their shapes, for schemas, and how long they may be.

They fill a model's context, so long texts are cut, and say so. Times are ISO 8601 in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, Literal

from pydantic import BaseModel, Field

from agentcom_client.info import TaskInfo

# Characters. The hub takes results of 256 KiB, and descriptions and errors of 16,384 characters.
MOST_RESULT = 24_000  # in one answer, shared by its tasks
LEAST_RESULT = 500
MOST_TEXT = 4_000
MOST_TITLE = 200
MOST_AGENTS = 100
MOST_HISTORY = 20
PRINTS_ALL = "`agentcom-client show TASK_ID --json` prints everything"

Priority = Literal["urgent", "high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = ("urgent", "high", "normal", "low")


class Submitted(BaseModel):
    task_id: str
    status: str = Field(description="queued or scheduled; or later ones, if an agent was quick")
    waiting: str | None = Field(default=None, description="why it is not running yet")


class TaskSummary(BaseModel):
    """A task in a list."""

    id: str
    status: str
    priority: Priority
    description: str
    needed_capabilities: list[str]
    assigned_to: str | None = Field(description="the agent that has it, or was the last to have it")
    submitted_by: str | None
    created_at: str | None
    updated_at: str | None


class Outcome(BaseModel):
    """Either `result` is there, or `result_part`, or neither."""

    result: dict[str, Any] | None = Field(default=None, description="what the agent returned")
    result_part: str | None = Field(
        default=None,
        description="of a result that is too long: a part of its JSON, and how to go on",
    )
    error: str | None = Field(
        default=None, description="of the last failed attempt, or why it was ended"
    )


class Ended(Outcome):
    task_id: str
    status: str = Field(description="completed, cancelled or dead_letter")


class Running(BaseModel):
    task_id: str
    status: str = Field(description="queued, scheduled or assigned")
    assigned_to: str | None = None
    waiting: str | None = Field(default=None, description="why it is not running yet")


class Waited(BaseModel):
    ended: list[Ended]
    running: list[Running] = Field(description="those to call wait_for_tasks with again")
    unknown: list[str] = Field(description="ids of which the hub has no task")


class Entry(BaseModel):
    at: str | None
    event: str
    actor: str | None
    said: str | None


class Shown(Outcome, TaskSummary):
    """A task with all there is to know of it."""

    metadata: dict[str, Any] | None = None
    metadata_part: str | None = None
    max_retries: int = Field(description="how many attempts there are in all")
    failed_attempts: int
    assign_to: str | None = None
    not_before: str | None = None
    complete_by: str | None = None
    waiting: str | None = Field(default=None, description="why it is not running")
    history: list[Entry] = Field(description="the newest entries, the oldest of them first")
    history_left_out: int = Field(description="how many older entries there are")


class Listed(BaseModel):
    tasks: list[TaskSummary] = Field(description="the newest first")
    may_have_more: bool


class Cancelled(BaseModel):
    task_id: str
    status: str = Field(
        description="cancelled, or cancelling: its agent is asked to stop, and wait_for_tasks tells"
        " how it ended"
    )


class Retried(BaseModel):
    task_id: str
    status: Literal["queued"] = "queued"


class AgentState(BaseModel):
    agent_id: str
    name: str | None
    state: str = Field(
        description="idle, assigned, working, blocked, stopping, unresponsive or offline"
    )
    capabilities: list[str]
    current_task_id: str | None
    last_seen: str | None


class Fleet(BaseModel):
    hub: str
    you_are: str = Field(description="whose token this server uses")
    agents: list[AgentState]
    agents_left_out: int
    agents_by_state: dict[str, int] = Field(description="of all known agents")
    tasks_by_status: dict[str, int]
    queued_by_priority: dict[str, int]


def waited(found: dict[str, TaskInfo | None]) -> Waited:
    """`found`: the tasks by their ids; None for what the hub does not know."""
    tasks = [task for task in found.values() if task is not None]
    ended = [task for task in tasks if task.is_ended]
    room = max(LEAST_RESULT, MOST_RESULT // max(1, len(ended)))
    return Waited(
        ended=[
            Ended(task_id=task.id, status=task.status, **_outcome(task, room)) for task in ended
        ],
        running=[
            Running(
                task_id=task.id,
                status=task.status,
                assigned_to=task.assigned_to,
                waiting=waiting(task),
            )
            for task in tasks
            if not task.is_ended
        ],
        unknown=[task_id for task_id, task in found.items() if task is None],
    )


def shown(task: TaskInfo, result_offset: int) -> Shown:
    metadata = json.dumps(task.metadata, ensure_ascii=False)
    is_long = len(metadata) > MOST_TEXT
    newest = task.history[-MOST_HISTORY:]
    return Shown(
        **_about(task, MOST_TEXT),
        **_outcome(task, MOST_RESULT, result_offset),
        metadata=None if is_long else task.metadata,
        metadata_part=_cut(metadata, MOST_TEXT) if is_long else None,
        max_retries=task.max_retries,
        failed_attempts=task.retry_count,
        assign_to=task.assign_to,
        not_before=_time(task.not_before),
        complete_by=_time(task.complete_by),
        waiting=waiting(task),
        history=[_entry(entry) for entry in newest],
        history_left_out=len(task.history) - len(newest),
    )


def summary(task: TaskInfo) -> TaskSummary:
    return TaskSummary(**_about(task, MOST_TITLE))


def agents_of(states: Sequence[dict[str, Any]]) -> list[AgentState]:
    return [_agent(state) for state in states[:MOST_AGENTS]]


def waiting(task: TaskInfo) -> str | None:
    return task.waiting["message"] if task.waiting else None


def _about(task: TaskInfo, most: int) -> dict[str, Any]:
    return {
        "id": task.id,
        "status": task.status,
        "priority": PRIORITIES[task.priority],
        "description": _cut(task.description, most),
        "needed_capabilities": task.needed_capabilities,
        "assigned_to": task.assigned_to,
        "submitted_by": task.submitted_by,
        "created_at": _time(task.created_at),
        "updated_at": _time(task.updated_at),
    }


def _outcome(task: TaskInfo, room: int, offset: int = 0) -> dict[str, Any]:
    """`room`: how many characters of the result's JSON there may be; `offset`: from which one."""
    error = task.cancel_reason or task.last_error
    outcome: dict[str, Any] = {"error": error and _cut(error, min(room, MOST_TEXT))}
    if task.result is None:
        return outcome
    text = json.dumps(task.result, ensure_ascii=False)
    if len(text) <= room and not offset:
        return {**outcome, "result": task.result}
    end = min(len(text), offset + room)
    note = f"characters {offset} to {end} of {len(text)}"
    if end < len(text):
        note += f"; show_task with result_offset={end} gives the next; {PRINTS_ALL}"
    return {**outcome, "result_part": f"{text[offset:end]} […cut: {note}]"}


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[:most]} […cut: the first {most} of {len(text)} characters; {PRINTS_ALL}]"


def _entry(entry: dict[str, Any]) -> Entry:
    details = entry.get("details") or {}
    said = details.get("message") or details.get("error") or details.get("reason")
    return Entry(
        at=_time(entry["timestamp"]),
        event=entry["event"],
        actor=entry.get("actor"),
        said=_cut(str(said), MOST_TITLE) if said else None,
    )


def _agent(state: dict[str, Any]) -> AgentState:
    return AgentState(
        agent_id=state["agent_id"],
        name=state["name"],
        state=state["fsm_state"],
        capabilities=state["capabilities"],
        current_task_id=state["current_task_id"],
        last_seen=_time(state["last_seen"]),
    )


def _time(ms: int | None) -> str | None:
    if ms is None:
        return None
    moment = datetime.fromtimestamp(ms / 1000, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
