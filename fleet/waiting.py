"""Why a queued task is not running: nobody is there, nobody can do it, all who can are busy, or
others come first. By the predicate that dispatches, over the connected agents of all processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db.models import Count

from agentcom.database import consistent_read
from fleet.dispatcher import Skills, servable
from fleet.models import Agent, AgentState
from tasks import listing
from tasks.models import Status, Task
from tasks.queue import count_before, needs_of, waiting_counts

MAX_AHEAD = 1_000  # counted exactly; beyond it nobody cares how many


def with_history(task_id: str) -> dict[str, Any] | None:
    """The task with its history, and in `waiting` why it is not running (None unless queued)."""
    with consistent_read():
        task = Task.objects.filter(task_id=task_id).first()
        if task is None:
            return None
        waiting = Fleet.now().explain(task) if task.status == Status.QUEUED else None
        return {**listing.task_json(task), "history": listing.history(task), "waiting": waiting}


class Fleet:
    """The connected agents, and what waits for them, at one moment."""

    def __init__(
        self,
        connected: Mapping[Skills, int],
        idle: Iterable[Skills],
        waiting: Sequence[tuple[int, Mapping[str, int]]],
    ) -> None:
        """`connected`: agents by what they can do. `waiting`: queued tasks by needs, by lane."""
        self._connected = connected
        self._idle = set(idle)
        self._waiting = waiting
        self._known: frozenset[str] = frozenset().union(*connected)
        self._ahead: dict[tuple[int, str], int] = {}  # of the last task of a lane and needs

    @classmethod
    def now(cls) -> Fleet:
        """As the rows have it. Grouped, so that a thousand agents alike are one row."""
        rows = (
            Agent.objects.exclude(fsm_state=AgentState.OFFLINE)
            .order_by()
            .values_list("capabilities", "fsm_state")
            .annotate(count=Count("agent_id"))
        )
        connected: Counter[Skills] = Counter()
        idle = set()
        for capabilities, state, count in rows:
            connected[frozenset(capabilities)] += count
            if state == AgentState.IDLE:
                idle.add(frozenset(capabilities))
        return cls(connected, idle, waiting_counts())

    def explain(self, task: Task) -> dict[str, Any]:
        """``{"reason", "message", "missing", "ahead"}``. Of several, ask in the queue's order."""
        needs = needs_of(task.needs)
        able = {skills for skills in self._connected if needs <= skills}
        missing = sorted(needs - self._known)
        if not self._connected:
            return _because("nobody_connected", "No agent is connected.", missing)
        if not able:
            return _because("nobody_capable", _lacking(missing, needs), missing)
        ahead = self._count_ahead(task, able)
        count = sum(self._connected[skills] for skills in able)
        if ahead == 0 and not able & self._idle:
            return _because("all_busy", _busy(count), ahead=0)
        return _because("in_line", _in_line(ahead), ahead=ahead)

    def _count_ahead(self, task: Task, able: set[Skills]) -> int | None:
        """Tasks before this one that the agents which can do it could take; None: very many."""
        place = task.priority, task.needs
        if self._ahead.get(place, 0) > MAX_AHEAD:
            return None  # as for the one before it
        ahead = 0
        for lane, needs in self._waiting:
            if lane <= task.priority and ahead <= MAX_AHEAD:
                keys = servable(needs, able)
                ahead += (
                    sum(needs[key] for key in keys)
                    if lane < task.priority
                    else count_before(lane, keys, task.number, MAX_AHEAD + 1)
                )
        self._ahead[place] = ahead
        return ahead if ahead <= MAX_AHEAD else None


# --- Sentences


def _because(
    reason: str, message: str, missing: Sequence[str] = (), ahead: int | None = None
) -> dict[str, Any]:
    return {"reason": reason, "message": message, "missing": list(missing), "ahead": ahead}


def _lacking(missing: Sequence[str], needs: Iterable[str]) -> str:
    if missing:
        return f"No connected agent can do this: nobody has {_listed(missing)}."
    return f"No connected agent has all of {_listed(sorted(needs))} together."


def _busy(count: int) -> str:
    if count == 1:
        return "It is next; the one agent that can do it is busy."
    return f"It is next; all {count:,} agents that can do it are busy."


def _in_line(ahead: int | None) -> str:
    if ahead is None:
        return f"Over {MAX_AHEAD:,} tasks are before it in line."
    if ahead == 0:
        return "It is next, and an agent that can do it is free."
    return f"{ahead:,} {'task is' if ahead == 1 else 'tasks are'} before it in line."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
