"""Why a task is not running: its time has not come, it is held, no agent is connected, none may
have it, all that may are busy, or other tasks come first. Uses the dispatcher's rules, over the
connected agents of all processes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from django.db.models import Count

from agentcom import actors
from agentcom.database import consistent_read, millis, now
from agentcom.texts import isolated, listed
from fleet.dispatcher import Skills, SkillSets
from fleet.holds import NO_HOLDS, Holds, hold_json
from fleet.models import Agent, AgentState, Hold, Scope
from tasks import listing
from tasks.heads import count_before, waiting_needs
from tasks.models import WAITING, Status, Task
from tasks.needs import Needs, filed_under, needs_of

MAX_AHEAD = 1_000  # counted exactly; beyond that the number does not matter
MAX_STEPS = 100_000  # needs examined for one answer, so that no queue makes a page take seconds
REASONS = (
    *("not_before", "backoff", "held", "only_agent", "nobody_connected", "nobody_capable"),
    *("rejected", "all_busy", "in_line"),
)
INDEX_STEPS = 10  # needs that can be examined in the time of one lookup by index


def with_history(task_id: str) -> dict[str, Any] | None:
    """The task with its history, and in `waiting` why it is not running (None unless it waits)."""
    with consistent_read():
        task = Task.objects.filter(task_id=task_id).first()
        if task is None:
            return None
        waiting = FleetState.now().explain(task) if task.status in WAITING else None
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
        holds: Holds = NO_HOLDS,
    ) -> None:
        """`connected`: agents by what they can do. `waiting`: queued tasks by needs, by lane."""
        self._holds = holds
        self._connected = connected
        self._skills = SkillSets(connected)
        self._idle = set(idle)
        self._known: frozenset[str] = frozenset().union(*connected)
        self._waiting = [
            (lane, _by_capability(needs)) for lane, needs in holds.without_held(waiting)
        ]
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
        waiting = waiting_needs(frozenset[str]().union(*connected))
        return cls(connected, idle, waiting, Holds.at(now()))

    def explain(self, task: Task) -> dict[str, Any]:
        """``{"reason", "message", "missing", "ahead", "until", "hold"}``; `until` in ms.

        For several tasks, call it in the queue's order without gaps: each count builds on the one
        before.
        """
        waiting = self._explain(task)
        self._explained[task.priority].append(task.needs)
        return waiting

    def _explain(self, task: Task) -> dict[str, Any]:
        needs = needs_of(task.needs)
        if task.status == Status.SCHEDULED:
            return _not_yet(task)
        if hold := self._holds.on(task.priority, task.needs):
            return _held(hold)
        if task.assign_to is not None:
            return self._explain_only(task.assign_to, needs)
        able = self._skills.able(needs)
        missing = sorted(needs.capabilities - self._known)
        if not self._connected:
            return _because("nobody_connected", "No agent is connected.", missing)
        if not able:
            return _because("nobody_capable", _lacking(missing, needs.capabilities), missing)
        if (agents := self._agents_in_question(task)) is not None:
            return self._explain_refused(task, needs, agents)
        ahead = self._count_ahead(task, able)
        if ahead is None:
            return _because("in_line", "Too many different needs wait to count its place in line.")
        if ahead > MAX_AHEAD:
            return _because("in_line", f"Over {MAX_AHEAD:,} tasks are before it in line.")
        if ahead == 0 and not able & self._idle:
            count = sum(self._connected[skills] for skills in able)
            return _because("all_busy", _busy(count), ahead=0)
        return _because("in_line", _in_line(ahead), ahead=ahead)

    def _agents_in_question(self, task: Task) -> list[Agent] | None:
        """The connected agents, if who they are matters: some rejected the task or are held."""
        if not (task.refusers or self._holds.agents):
            return None
        return list(Agent.objects.connected())

    def _explain_refused(
        self, task: Task, needs: Needs, connected: Sequence[Agent]
    ) -> dict[str, Any]:
        able = [a for a in connected if needs.capabilities <= frozenset(a.capabilities)]
        willing = [a for a in able if a.agent_id not in (task.refusers or {})]
        if not willing:
            return _because("rejected", _refused(len(able)), until=millis(task.due_at))
        free = [a for a in willing if a.agent_id not in self._holds.agents]
        if not free:
            return _held(self._holds.agents[willing[0].agent_id])
        skills = frozenset(frozenset(a.capabilities) for a in free)
        ahead = self._count_ahead(task, skills)
        if ahead is None or ahead > MAX_AHEAD:
            return _because("in_line", f"Over {MAX_AHEAD:,} tasks are before it in line.")
        if ahead == 0 and not any(a.fsm_state == AgentState.IDLE for a in free):
            return _because("all_busy", _busy(len(free)), ahead=0)
        return _because("in_line", _in_line(ahead), ahead=ahead)

    def _explain_only(self, agent_id: str, needs: Needs) -> dict[str, Any]:
        name = isolated(agent_id)
        agent = Agent.objects.connected().filter(agent_id=agent_id).first()
        if agent is None:
            return _because("only_agent", f"Only {name} may have it, which is not connected.")
        missing = sorted(needs.capabilities - frozenset(agent.capabilities))
        if missing:
            lacks = f"Only {name} may have it, which lacks {listed(missing)}."
            return _because("only_agent", lacks, missing)
        if hold := self._holds.agents.get(agent_id):
            return _held(hold)
        state = "is free" if agent.fsm_state == AgentState.IDLE else "is busy"
        return _because("only_agent", f"Only {name} may have it, which {state}.")

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
            keys = [key for key in counts if skills.able(needs_of(key))]
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
    reason: str,
    message: str,
    missing: Sequence[str] = (),
    ahead: int | None = None,
    until: int | None = None,
    hold: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "reason": reason,
        "message": message,
        "missing": list(missing),
        "ahead": ahead,
        "until": until,
        "hold": hold,
    }


def _not_yet(task: Task) -> dict[str, Any]:
    until = millis(task.due_at)
    if task.retry_count:
        tries = f"{task.retry_count} of {max(task.max_retries, 1)}"
        return _because(
            "backoff", f"It waits before its next attempt; {tries} failed.", until=until
        )
    return _because("not_before", "It is not to start yet.", until=until)


def _held(hold: Hold) -> dict[str, Any]:
    what = {
        Scope.HUB: "The hub is",
        Scope.LANE: f"The lane {hold.subject} is",
        Scope.CAPABILITY: f"What needs {isolated(hold.subject)} is",
        Scope.AGENT: f"The agent {isolated(hold.subject)}, which can do it, is",
    }[Scope(hold.scope)]
    by = actors.in_words(hold.placed_by)
    message = f"{what} on hold by {by}: {isolated(hold.reason)}"
    return _because("held", message, until=millis(hold.until), hold=hold_json(hold))


def _refused(count: int) -> str:
    if count == 1:
        return "The one agent that can do it rejected it; it is offered again later."
    return f"All {count:,} agents that can do it rejected it; it is offered again later."


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
