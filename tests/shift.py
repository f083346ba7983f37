"""A worker whose clock the test moves, and which commits on the test's own thread.

Beside it one process beats, `HERE`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentcom.nodes import Heartbeat
from agentcom.writer import writer
from tasks.models import Task
from tests.tasks.play import agent, assigned
from worker.tick import Tick, Worker

HERE = "here"


def held(agent_id: str = "a-1", **fields: Any) -> Task:
    """A task that an agent of the process holds, in its first generation."""
    agent(agent_id, node=HERE)
    return assigned(agent_id, **fields)


class Clock:
    """The database's clock, and beside it the steady one that nobody sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 5, 4, 12, 30, 15, tzinfo=UTC)
        self.steady_s = 0.0

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.steady_s += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock; no time passes."""
        self.now += timedelta(seconds=seconds)

    def steady(self) -> float:
        return self.steady_s


class Shift:
    """One worker at work, by the test's clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.worker = Worker(commit=writer.commit)

    def tick(self, after: float = 0) -> Tick:
        """Tick once, so many seconds later."""
        self.clock.advance(after)
        writer.commit([Heartbeat(HERE)])
        return self.worker.tick(self.clock.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of every commit."""
    clock = Clock()
    monkeypatch.setattr(writer.transaction, "clock", clock)
    return clock


@pytest.fixture
def shift(clock: Clock) -> Shift:
    return Shift(clock)
