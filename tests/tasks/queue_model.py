"""A small model of the queue, for `test_queue_machine.py`: what every command answers, and what
each task and agent is afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from fleet.holds import LANES
from tasks.queue import (
    Accept,
    Block,
    Complete,
    ConfirmCancel,
    Fail,
    OnTask,
    Progress,
    Reject,
    Unblock,
    Why,
)
from tasks.steering import Cancelled

CANCEL_S, REJECT_PAUSE_S, BACKOFF_S, BACKOFF_MAX_S = 30, 60, 1, 300  # the hub's settings
JITTER = 0.75  # what the machine has of a backoff left
AGENTS = {"a": frozenset[str](), "b": frozenset({"x"}), "c": frozenset({"x", "y"})}
UNDERSTAND_CANCEL = {"b", "c"}


@dataclass
class Known:
    """What the model knows of a task."""

    order: int
    lane: int
    needs: tuple[str, ...] = ()
    budget: int = 3
    max_reclaims: int = 5
    max_rejections: int = 20
    backoff_s: float | None = None
    only: str | None = None
    not_before: datetime | None = None
    complete_by: datetime | None = None
    expires: bool = True
    status: str = ""
    generation: int = 0
    failures: int = 0
    rejections: int = 0
    lost: list[str] = field(default_factory=list)
    refusers: dict[str, datetime] = field(default_factory=dict)
    owner: str | None = None
    is_accepted: bool = False
    is_blocked: bool = False
    deadline: datetime | None = None  # of its cancellation
    due: datetime | None = None

    def wait(self, now: datetime) -> None:
        self.refusers = {agent: until for agent, until in self.refusers.items() if until > now}
        if self.not_before is not None and self.not_before > now:
            self.status, self.due = "scheduled", self.not_before
        else:
            self.status, self.due = "queued", min(self.refusers.values(), default=None)

    def back(self, now: datetime, not_before: datetime | None = None) -> None:
        self.not_before = not_before
        self.owner = self.deadline = None
        self.is_accepted = self.is_blocked = False
        self.generation += 1
        self.wait(now)

    def end(self, status: str) -> None:
        self.status, self.due, self.deadline, self.is_blocked = status, None, None, False

    def may_go_to(self, agent: str) -> bool:
        able = set(self.needs) <= AGENTS[agent] and self.only in (None, agent)
        return able and agent not in self.refusers


@dataclass
class Hand:
    """What the model knows of an agent."""

    state: str = "idle"
    task: str | None = None
    unanswered: int = 0

    def become(self, state: str, task: str | None = None) -> None:
        is_gone = self.state == "offline"
        if not is_gone:
            self.state = state
        self.task = None if is_gone and state == "stopping" else task

    def answer(self) -> None:
        self.unanswered = 0


@dataclass
class Held:
    """What the model knows of a hold."""

    scope: str
    subject: str
    until: datetime | None

    def is_on(self, task: Known, agent: str, now: datetime) -> bool:
        if self.until is not None and self.until <= now:
            return False
        match self.scope:
            case "lane":
                return LANES[self.subject] == task.lane
            case "capability":
                return self.subject in task.needs
            case "agent":
                return self.subject == agent
        return True


@dataclass
class Model:
    now: datetime
    tasks: dict[str, Known] = field(default_factory=dict)
    agents: dict[str, Hand] = field(default_factory=lambda: {name: Hand() for name in AGENTS})
    holds: dict[str, Held] = field(default_factory=dict)
    handed_out: list[tuple[str, int]] = field(default_factory=list)  # task id, generation
    done: list[str] = field(default_factory=list)

    def those(self, *statuses: str) -> list[str]:
        return [id_ for id_, t in self.tasks.items() if not statuses or t.status in statuses]

    def submit(self, task_id: str, task: Known) -> None:
        self.tasks[task_id] = task
        task.wait(self.now)

    def claim(self, agents: Sequence[str]) -> list[tuple[str, str]]:
        """Each task in its order goes to the first agent that may have it; a busy one wastes it."""
        queued = [(t.lane, t.order, id_) for id_, t in self.tasks.items() if t.status == "queued"]
        waiting, pairs = list(agents), []
        for _, _, task_id in sorted(queued):
            task = self.tasks[task_id]
            agent = next((a for a in waiting if self._may_get(task, a)), None)
            if agent is not None:
                waiting.remove(agent)
                pairs.append((agent, task_id))
        given = [pair for pair in pairs if self.agents[pair[0]].state == "idle"]
        for agent, task_id in given:
            task = self.tasks[task_id]
            task.status, task.owner, task.due = "assigned", agent, None
            task.generation += 1
            self.agents[agent].become("assigned", task_id)
            self.handed_out.append((task_id, task.generation))
        return given

    def _may_get(self, task: Known, agent: str) -> bool:
        is_held = any(hold.is_on(task, agent, self.now) for hold in self.holds.values())
        return task.may_go_to(agent) and not is_held

    # --- What agents say

    def hear(self, verb: OnTask) -> Any:
        """Give the answer, or the code of the refusal."""
        answer, was_refused = self._answer(verb)
        hand = self.agents[verb.agent_id]
        has_stopped = isinstance(verb, (Complete, Fail, Reject, ConfirmCancel))
        is_late = hand.state == "stopping" and hand.task == verb.task_id and has_stopped
        if hand.state == "unresponsive" or (was_refused and is_late):
            hand.answer()
            hand.become("idle")
        return answer

    def _answer(self, verb: OnTask) -> tuple[Any, bool]:
        task = self.tasks[verb.task_id]
        ended = {Complete: "completed", ConfirmCancel: "cancelled"}.get(type(verb))
        place = (task.status, task.owner, task.generation)
        if place == (ended, verb.agent_id, verb.generation):
            return None, False
        if verb.generation is not None and verb.generation != task.generation:
            return "stale_generation", True
        if task.status != "assigned":
            return "invalid_state", True
        if task.owner != verb.agent_id:
            return "not_yours", True
        if isinstance(verb, ConfirmCancel) and task.deadline is None:
            return "invalid_state", True
        return self._obey(verb, task, self.agents[verb.agent_id]), False

    def _obey(self, verb: OnTask, task: Known, hand: Hand) -> Any:
        match verb:
            case Accept():
                if not task.is_accepted:
                    task.is_accepted = True
                    self._work(hand, "working", verb)
            case Progress():
                hand.answer()
            case Block():
                if not task.is_blocked:
                    task.is_blocked = True
                    self._work(hand, "blocked", verb)
            case Unblock():
                if task.is_blocked:
                    task.is_blocked = False
                    self._work(hand, "working", verb)
            case _:
                hand.answer()
                hand.become("idle")
                return self._let_go(verb, task)
        return None

    def _work(self, hand: Hand, state: str, verb: OnTask) -> None:
        hand.answer()
        hand.become(state, verb.task_id)

    def _let_go(self, verb: OnTask, task: Known) -> Any:
        if isinstance(verb, Complete):
            task.end("completed")
            self.done.append(verb.task_id)
            return None
        if task.deadline is not None:
            task.end("cancelled")
            return None if isinstance(verb, ConfirmCancel) else "cancelled"
        if isinstance(verb, Fail):
            return self._fail(verb, task)
        assert isinstance(verb, Reject)
        task.rejections += 1
        task.refusers[verb.agent_id] = self.now + timedelta(seconds=REJECT_PAUSE_S)
        task.back(self.now)
        if task.rejections < task.max_rejections:
            return "requeued"
        task.end("dead_letter")
        return "dead_letter"

    def _fail(self, verb: Fail, task: Known) -> str:
        task.failures += 1
        if not verb.retryable or task.failures >= max(task.budget, 1):
            task.end("dead_letter")
            return "dead_letter"
        delay_s = verb.retry_after_s
        if delay_s is None:
            first_s = BACKOFF_S if task.backoff_s is None else task.backoff_s
            most_s = max(first_s, BACKOFF_MAX_S)
            delay_s = JITTER * min(first_s * 2 ** (task.failures - 1), most_s)
        task.back(self.now, self.now + timedelta(seconds=delay_s))
        return "retried"

    # --- What befalls agents

    def reclaim(
        self, task_id: str, agent: str, generation: int, why: Why, lost: bool
    ) -> str | None:
        task, hand = self.tasks[task_id], self.agents[agent]
        if generation != task.generation:
            return "stale_generation"
        if task.status != "assigned":
            return "invalid_state"
        if task.owner != agent:
            return "not_yours"
        if task.deadline is not None:
            task.generation += 1
            task.end("cancelled")
        else:
            if lost:
                task.lost.append(agent)
            task.back(self.now)
            is_over = why == Why.OVERDUE and task.expires
            if is_over or (lost and len(task.lost) >= task.max_reclaims):
                task.end("dead_letter")
            if why == Why.NOT_ACCEPTED:
                hand.unanswered += 1
        if why == Why.TOO_LONG:
            hand.become("stopping", task_id)
        elif why == Why.NOT_ACCEPTED and hand.unanswered >= 2:
            hand.become("unresponsive")
        else:
            hand.become("idle")
        return None

    def held_by(self, agent: str) -> str | None:
        task_id = self.agents[agent].task
        if task_id is None:
            return None
        task = self.tasks[task_id]
        return task_id if (task.status, task.owner) == ("assigned", agent) else None

    def leave(self, agent: str, signed_off: bool) -> None:
        hand = self.agents[agent]
        if hand.state == "offline":
            return
        task_id = self.held_by(agent)
        if signed_off and task_id is not None:
            generation = self.tasks[task_id].generation
            self.reclaim(task_id, agent, generation, Why.SIGNED_OFF, lost=False)
            hand.answer()  # it was its own word
        if hand.state in ("stopping", "unresponsive"):
            hand.task = None
        hand.state = "offline"

    def join(self, agent: str) -> tuple[str, str] | None:
        """Give what is pushed to it: the type of the frame and the task."""
        hand, task_id = self.agents[agent], self.held_by(agent)
        hand.state, hand.task, hand.unanswered = "idle", task_id, 0
        if task_id is None:
            return None
        task = self.tasks[task_id]
        hand.state = "blocked" if task.is_blocked else "working"
        if not task.is_accepted:
            hand.state = "assigned"
        if task.deadline is not None:
            return ("task_cancel", task_id) if agent in UNDERSTAND_CANCEL else None
        return None if task.is_accepted else ("task_assign", task_id)

    def recover(self, agent: str, task_id: str) -> int | None:
        hand, task = self.agents[agent], self.tasks[task_id]
        is_its = self.held_by(agent) == task_id
        if hand.state == "unresponsive" or (hand.state == "stopping" and hand.task == task_id):
            hand.answer()
            hand.become("idle")
        if not is_its:
            return None
        if not task.is_accepted:
            task.is_accepted = True
            hand.answer()
            hand.become("working", task_id)
        return task.generation

    def set_status(self, agent: str) -> None:
        hand = self.agents[agent]
        if hand.state == "unresponsive":
            hand.answer()
            hand.become("idle")

    # --- What people do

    def retry(self, task_id: str) -> Any:
        task = self.tasks[task_id]
        if task.status not in ("dead_letter", "cancelled"):
            return "not_found"
        starts = None if task.failures else task.not_before
        task.failures = task.rejections = 0
        task.lost, task.refusers = [], {}
        if task.complete_by is not None and task.complete_by <= self.now:
            task.expires = False
        task.back(self.now, starts)
        return task.lane

    def set_priority(self, task_id: str, lane: int) -> str:
        task = self.tasks[task_id]
        if task.status in ("assigned", "completed", "cancelled"):
            return "too_late"
        task.lane = lane
        return task.status

    def cancel(self, task_id: str, timeout_s: float | None) -> Any:
        task = self.tasks[task_id]
        if task.status == "completed":
            return "too_late"
        if task.status == "cancelled":
            return Cancelled()
        if task.status == "assigned":
            deadline = self.now + timedelta(seconds=CANCEL_S if timeout_s is None else timeout_s)
            if deadline > self.now:
                if task.deadline is None or deadline < task.deadline:
                    task.deadline = task.due = deadline
                return Cancelled(task.deadline)
            self.agents[str(task.owner)].become("stopping", task_id)
        task.generation += 1
        task.end("cancelled")
        return Cancelled()

    def lift(self, hold_id: str) -> str | None:
        return "hold_not_found" if self.holds.pop(hold_id, None) is None else None

    # --- What time does

    def act_when_due(self) -> int:
        due = [
            (task_id, task)
            for task_id, task in self.tasks.items()
            if task.due is not None and task.due <= self.now
        ]
        for task_id, task in due:
            if task.status == "assigned":
                task.generation += 1
                task.end("cancelled")
                self.agents[str(task.owner)].become("stopping", task_id)
            else:
                task.wait(self.now)
        return len(due)

    def expire(self, task_id: str) -> str | None:
        task = self.tasks[task_id]
        is_late = task.complete_by is not None and task.complete_by <= self.now
        if task.status not in ("queued", "scheduled") or not task.expires or not is_late:
            return "invalid_state"
        task.end("dead_letter")
        return None

    def expirable(self) -> list[str]:
        waiting = self.those("queued", "scheduled")
        late = [id_ for id_ in waiting if (self.tasks[id_].complete_by or self.now) <= self.now]
        return [id_ for id_ in late if self.tasks[id_].complete_by and self.tasks[id_].expires]
