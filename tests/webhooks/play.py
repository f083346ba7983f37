"""What the tests of webhooks do over and over, through the Writer on this thread."""

from __future__ import annotations

from typing import Any

from agentcom.writer import writer
from tasks.queue import Accept, Complete
from tests.tasks.play import BOSS, again, assigned, dead, do, submit
from webhooks.endpoints import AddEndpoint, Target
from webhooks.feed import next_batches
from webhooks.models import Delivery, Endpoint

URL = "https://receiver.example/hook"

__all__ = ["BOSS", "again", "assigned", "dead", "do", "submit"]


def add(url: str = URL, **target: Any) -> Endpoint:
    command = AddEndpoint(BOSS, Target(url, **target))
    do(command)
    return Endpoint.objects.get(endpoint_id=command.endpoint_id)


def fresh(endpoint: Endpoint) -> Endpoint:
    return Endpoint.objects.get(endpoint_id=endpoint.endpoint_id)


def feed() -> list[Any]:
    """Until nothing is left in the journal."""
    done: list[Any] = []
    while batches := next_batches(Endpoint.objects.filter(enabled=True)):
        outcomes = writer.commit(batches)
        done += outcomes
        if not any(outcome is True for outcome in outcomes):
            break
    return done


def complete(task_id: str, agent_id: str = "a-1", result: Any = None, **fields: Any) -> None:
    do(Accept(task_id, agent_id, 1))
    do(Complete(task_id, agent_id, 1, result=result or {}, **fields))


def completed(agent_id: str = "a-1", result: Any = None, **fields: Any) -> str:
    task_id = assigned(agent_id, **fields).task_id
    complete(task_id, agent_id, result)
    return task_id


def types(endpoint: Endpoint) -> list[str]:
    rows = Delivery.objects.filter(endpoint_id=endpoint.endpoint_id).order_by("number")
    return list(rows.values_list("type", flat=True))
