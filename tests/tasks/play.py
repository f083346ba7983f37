"""What the tests of the queue do over and over, all of it through the Writer, on this thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db.models import Model

from agentcom import actors
from agentcom.errors import Refused
from agentcom.models import Event
from agentcom.work import Command, Wanted, Work
from agentcom.writer import writer
from counters.models import AgentHour, DurationCount, LaneMinute, Minute
from fleet.dispatcher import Claim, Idle
from fleet.models import Agent, AgentState, Hold
from tasks.models import Completion, Submission, Tally, Task
from tasks.queue import Fail, NewTask, Submit

CONNECTION = "socket"
BOSS = actors.user("boss")


def do(command: Command) -> Any:
    """Commit one command; raise what it was refused with."""
    [outcome] = writer.commit([command])
    if isinstance(outcome, Refused):
        raise outcome
    return outcome


def submit(description: str = "a task", **fields: Any) -> Task:
    fields = {"retry_backoff_s": 0, **fields}  # or it would wait before its next attempt
    [receipt] = do(Submit([NewTask(description, **fields)], submitted_by="boss"))
    return Task.objects.get(task_id=receipt["task_id"])


def agent(agent_id: str = "a-1", **fields: Any) -> Agent:
    """An agent that is connected and idle."""
    fields = {"fsm_state": AgentState.IDLE, "connection": CONNECTION, **fields}
    return Agent.objects.create(agent_id=agent_id, **fields)


def claim(*agents: Agent) -> list[tuple[str, str]]:
    """Give who was assigned what: (agent id, task id)."""
    idle = [Idle(a.agent_id, CONNECTION, frozenset(a.capabilities)) for a in agents]
    return [(agent.agent_id, frame["task_id"]) for agent, frame in do(Claim(idle)).tasks]


def assigned(agent_id: str = "a-1", **fields: Any) -> Task:
    """A task that the agent holds, in its first generation."""
    task = submit(**fields)
    holder = Agent.objects.filter(agent_id=agent_id).first() or agent(agent_id)
    assert claim(holder) == [(agent_id, task.task_id)]
    return again(task)


def dead(agent_id: str = "a-1", **fields: Any) -> Task:
    """A task in the dead letter."""
    task = assigned(agent_id, **{"max_retries": 1, **fields})
    do(Fail(task.task_id, agent_id, task.generation, error="broken"))
    return again(task)


def again(task: Task) -> Task:
    return Task.objects.get(task_id=task.task_id)


def kinds(task: Task) -> list[str]:
    """What happened to it, oldest first."""
    return list(
        Event.objects.filter(task_id=task.task_id).order_by("seq").values_list("kind", flat=True)
    )


def counted() -> Counter[tuple[str, int, str]]:
    """What the tally says, without its zeros."""
    return Counter(
        {(t.status, t.priority, t.needs): t.count for t in Tally.objects.exclude(count=0)}
    )


def recounted() -> Counter[tuple[str, int, str]]:
    """What it ought to say."""
    return counted_in(Task.objects.all())


def counted_in(tasks: Iterable[Task]) -> Counter[tuple[str, int, str]]:
    return Counter(
        (task.status, task.priority, task.needs if task.status == "queued" else "")
        for task in tasks
    )


@contextmanager
def nothing_changes() -> Iterator[None]:
    before = _everything()
    yield
    assert _everything() == before


def _everything() -> dict[str, list[dict[str, Any]]]:
    models: list[type[Model]] = [
        *(Task, Event, Tally, Completion, Submission, Agent, Hold),
        *(Minute, LaneMinute, AgentHour, DurationCount),
    ]
    return {
        model.__name__: list(model._default_manager.order_by("pk").values()) for model in models
    }


class Poison:
    """A command with a bug."""

    actor = actors.HUB

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> Any:
        raise ZeroDivisionError
