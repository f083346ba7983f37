"""What the benchmarks' filler writes is what the Writer would have written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import transaction
from django.db.models import Model
from django.utils import timezone

from agentcom import actors
from agentcom.models import Event
from agentcom.work import Wanted, Work
from agentcom.writer import writer
from counters.models import AgentHour, DurationCount, LaneMinute, Minute
from lab.bench import fill
from tasks.models import Completion, Tally, Task
from tasks.queue import Accept, Complete, Fail, NewTask, Submit, title_of

MODELS: list[type[Model]] = [
    *(Task, Event, Tally, Completion),
    *(Minute, LaneMinute, AgentHour, DurationCount),
]


@dataclass(frozen=True, slots=True)
class Take:
    """Assign a task as a claim does, to an agent that has no row and may hold many."""

    task_id: str
    actor = actors.HUB

    def rows(self) -> Wanted:
        return [(Task, [self.task_id])]

    def apply(self, work: Work) -> None:
        task = work.get(Task, self.task_id)
        assert task is not None
        task.assign(fill.AGENT, work.now)
        data = {
            "priority": task.priority,
            "generation": task.generation,
            "title": title_of(task),
        }
        work.emit("task_assigned", task_id=task.task_id, agent_id=fill.AGENT, **data)


def submitted(count: int, **fields: Any) -> list[str]:
    new = [NewTask(fill.DESCRIPTION, metadata={"source": "bench"}, **fields) for _ in range(count)]
    [receipts] = writer.commit([Submit(new, "submitter")])
    return [receipt["task_id"] for receipt in receipts]


def taken(ids: Sequence[str]) -> None:
    writer.commit([Take(task_id) for task_id in ids])
    writer.commit([Accept(task_id, fill.AGENT, 1) for task_id in ids])


def everything() -> dict[str, list[dict[str, Any]]]:
    """All rows, with the tasks' numbers in place of their ids, which are random."""
    numbers = dict(Task.objects.values_list("task_id", "number"))
    found = {}
    for model in MODELS:
        rows = list(model._default_manager.order_by("pk").values())
        for row in rows:
            row.pop("id", None)
            if "task_id" in row:
                row["task_id"] = numbers[row["task_id"]]
        found[model.__name__] = sorted(rows, key=str)
    return found


@pytest.mark.django_db
def test_the_filler_writes_what_the_writer_would_have_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = timezone.now().replace(microsecond=0)
    clock = [moment]
    monkeypatch.setattr(writer.transaction, "clock", lambda: clock[0])
    with transaction.atomic():
        done = submitted(3)
        taken(done)
        clock[0] = moment + fill.WORK_TIME
        outcome: dict[str, Any] = {"result": {"ok": True}, "tokens_used": fill.TOKENS}
        writer.commit([Complete(task_id, fill.AGENT, 1, **outcome) for task_id in done])
        clock[0] = moment
        [dead] = submitted(1, max_retries=1)
        taken([dead])
        clock[0] = moment + fill.WORK_TIME
        writer.commit([Fail(dead, fill.AGENT, 1, "the model did not answer")])
        clock[0] = moment
        submitted(2, needed_capabilities=["b", "a"])
        submitted(2, not_before=moment + fill.FAR_AWAY)
        expected = everything()
        transaction.set_rollback(True)
    assert not Task.objects.exists()

    filler = fill.Filler()
    filler._completed(3, moment)
    filler._dead(1, moment)
    filler._queued(2, moment, ["b", "a"])
    filler._queued(2, moment, [], not_before=moment + fill.FAR_AWAY)
    assert everything() == expected
