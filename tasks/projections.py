"""The read models of the queue, updated with every event."""

from __future__ import annotations

from agentcom.models import Event
from agentcom.rows import new
from agentcom.work import Work
from tasks.models import Completion, Status, Tally, Task
from tasks.moves import MOVES
from tasks.needs import filed_under, needs_of


def project_tally(work: Work, event: Event) -> None:
    """Move the task's count from its old place to its new one."""
    move = MOVES.get(event.kind)
    if move is None or move.to is None:
        return
    task = work.get(Task, event.task_id)
    assert task is not None
    before, after = move.start(event.data), move.end(event.data)
    if before is not None:
        priority = event.data.get("old_priority", task.priority)
        _count(work, before, priority, event.data.get("old_needs", task.needs), -1)
    if after is not None:
        _count(work, after, task.priority, task.needs, 1)


def _count(work: Work, status: str, priority: int, needs: str, step: int) -> None:
    if status != Status.QUEUED:
        needs = ""
    place = {
        "status": status,
        "priority": priority,
        "needs": needs,
        "filed_under": filed_under(needs_of(needs)),
    }
    work.increment(Tally, place, count=step)


def project_completion(work: Work, event: Event) -> None:
    if event.kind != "task_complete":
        return
    task = work.get(Task, event.task_id)
    assert task is not None
    work.append(
        new(
            Completion,
            seq=event.seq,
            task_id=task.task_id,
            agent_id=task.assigned_to or "",
            description=task.description,
            duration_ms=event.data["duration_ms"],
            tokens_used=event.data["tokens_used"] or 0,
            completed_at=event.at,
        )
    )
