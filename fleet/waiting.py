"""Why a queued task is not running: no agent is connected, none can do it, all that can are busy,
or other tasks come first. Uses the dispatcher's rules, over the connected agents of all processes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from django.db.models import Count

from agentcom.database import consistent_read
from agentcom.texts import listed
from fleet.dispatcher import Skills, SkillSets
from fleet.models import Agent, AgentState
from tasks import listing
from tasks.models import Status, Task
from tasks.queue import count_before, filed_under, needs_of, waiting_needs

MAX_AHEAD = 1_000  # counted exactly; beyond that the number does not matter
MAX_STEPS = 100_000  # needs examined for one answer, so that no queue makes a page take seconds
INDEX_STEPS = 10  # needs that can be examined in the time of one lookup by index


def with_history(task_id: str) -> dict[str, Any] | None:
    """The task with its history, and in `waiting` why it is not running (None unless queued)."""
    with consistent_read():
        task = Task.objects.filter(task_id=task_id).first()
        if task is None:
            return None
        waiting = FleetState.now().explain(task) if task.status == Status.QUEUED else None
        return {**listing.task_json(task), "history": listing.history(task), "waiting": waiting}


@dataclass(slots=True)
class TasksAhead:
    """What a set of agents could take from the queue before a given task of one lane."""

    keys: set[str]  # the needs in this lane that they meet
    count: int  # tasks before the one that was explained last
    explained: int  # how many tasks of the lane had been explained then


class FleetState:
    """The connected agents and the queued tasks at one moment."""

    def __init__(
        self,
        connected: Mapping[Skills, int],
        idle: Iterable[Skills],
        waiting: Iterable[tuple[int, Mapping[str, int]]],
    ) -> None:
        """`connected`: agents by what they can do. `waiting`: queued tasks by needs, by lane."""
        self._connected = connected
        self._skills = SkillSets(connected)
        self._idle = set(idle)
        self._known: frozenset[str] = frozenset().union(*connected)
        self._waiting = [(lane, _by_capability(needs)) for lane, needs in waiting]
        self._ahead: dict[tuple[int, frozenset[Skills]], TasksAhead] = {}
        self._explained = defaultdict[int, list[str]](list)  # the needs of each lane's tasks
        self._steps_left = MAX_STEPS

    @classmethod
    def now(cls) -> FleetState:
        """Read from the database. Grouped, so that a thousand identical agents are one row."""
        rows = (
            Agent.objects.connected()
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
        return cls(connected, idle, waiting_needs(frozenset[str]().union(*connected)))

    def explain(self, task: Task) -> dict[str, Any]:
        """``{"reason", "message", "missing", "ahead"}``.

        For several tasks, call it in the queue's order without gaps: each count builds on the one
        before.
        """
        waiting = self._explain(task)
        self._explained[task.priority].append(task.needs)
        return waiting

    def _explain(self, task: Task) -> dict[str, Any]:
        needs = needs_of(task.needs)
        able = self._skills.able(needs)
        missing = sorted(needs - self._known)
        if not self._connected:
            return _because("nobody_connected", "No agent is connected.", missing)
        if not able:
            return _because("nobody_capable", _lacking(missing, needs), missing)
        ahead = self._count_ahead(task, able)
        if ahead is None:
            return _because("in_line", "Too many different needs wait to count its place in line.")
        if ahead > MAX_AHEAD:
            return _because("in_line", f"Over {MAX_AHEAD:,} tasks are before it in line.")
        if ahead == 0 and not able & self._idle:
            count = sum(self._connected[skills] for skills in able)
            return _because("all_busy", _busy(count), ahead=0)
        return _because("in_line", _in_line(ahead), ahead=ahead)

    def _count_ahead(self, task: Task, able: frozenset[Skills]) -> int | None:
        """Earlier tasks that the agents able to do this one could take, counted at least up to
        `MAX_AHEAD`. None when counting would exceed `MAX_STEPS`."""
        explained = self._explained[task.priority]
        ahead = self._ahead.get((task.priority, able))
        if ahead is None:
            if self._steps_left <= 0:
                return None
            ahead = self._ahead[task.priority, able] = self._counted(task, able)
        ahead.count += sum(needs in ahead.keys for needs in explained[ahead.explained :])
        ahead.explained = len(explained)
        return ahead.count

    def _counted(self, task: Task, able: frozenset[Skills]) -> TasksAhead:
        """A fresh count: made once for all tasks of a lane that the same agents can do."""
        skills, capabilities = SkillSets(able), {"", *chain.from_iterable(able)}
        ahead = TasksAhead(set(), 0, len(self._explained[task.priority]))
        for lane, filed in self._waiting:
            if lane > task.priority or ahead.count > MAX_AHEAD:
                break
            counts = dict(chain.from_iterable(filed.get(c, {}).items() for c in capabilities))
            keys = skills.servable(counts)
            self._steps_left -= len(counts)
            if lane < task.priority:
                ahead.count += sum(counts[key] for key in keys)
            else:
                self._steps_left -= INDEX_STEPS * len(keys)
                ahead.keys.update(keys)
                ahead.count += count_before(lane, keys, task.number, MAX_AHEAD + 1)
        return ahead


def _by_capability(needs: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """A lane's counts, grouped by the capability under which the needs are filed."""
    filed = defaultdict[str, dict[str, int]](dict)
    for key, count in needs.items():
        filed[filed_under(needs_of(key))][key] = count
    return filed


# --- Sentences


def _because(
    reason: str, message: str, missing: Sequence[str] = (), ahead: int | None = None
) -> dict[str, Any]:
    return {"reason": reason, "message": message, "missing": list(missing), "ahead": ahead}


def _lacking(missing: Sequence[str], needs: Iterable[str]) -> str:
    if missing:
        return f"No connected agent can do this: nobody has {listed(missing)}."
    return f"No connected agent has all of {listed(sorted(needs))} together."


def _busy(count: int) -> str:
    if count == 1:
        return "It is next; the one agent that can do it is busy."
    return f"It is next; all {count:,} agents that can do it are busy."


def _in_line(ahead: int) -> str:
    if ahead == 0:
        return "It is next, and an agent that can do it is free."
    return f"{ahead:,} {'task is' if ahead == 1 else 'tasks are'} before it in line."
