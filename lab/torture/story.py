"""What the journal tells: each task's life, what each agent has, and which holds are in force.

Works out by itself what must follow from each entry, and uses nothing of the hub's code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from lab.torture import ledger as promises

ACTOR = re.compile(r"(agent|token|user):.+|anyone|worker|hub")
BY_AGENT = {
    *("task_accepted", "task_progress", "task_blocked", "task_unblocked", "task_complete"),
    *("task_failed", "task_rejected", "task_late"),
}
FREEING = {"task_complete", "task_failed", "task_rejected", "task_late"}
# Why an agent was lost for certain; one that was disconnected may have been so by the hub.
SURELY_LOST = {"unknown", "not_accepted", "silent", "too_long"}
PERHAPS_LOST = {"disconnected", "not_resumed"}
LANES = ("urgent", "high", "normal", "low")
BEGINNINGS = {"task_submitted", "task_retried"}
UNANSWERED_MAX = 2


class Against(ValueError):
    """An entry that cannot follow the others, and the promise that it breaks."""

    def __init__(self, text: str, promise: str = promises.TASKS) -> None:
        super().__init__(text)
        self.promise = promise


@dataclass
class Entry:
    seq: int
    kind: str
    task_id: str | None
    agent_id: str | None
    at: datetime
    data: Mapping[str, Any]
    actor: str | None

    @property
    def at_ms(self) -> int:
        return _ms(self.at)


@dataclass
class Life:
    """A task. The first fields are of its submission."""

    capabilities: list[str] = field(default_factory=list)
    only: str | None = None
    most: int = 3  # attempts
    most_lost: int = 5  # agents
    most_rejections: int = 20
    not_before: datetime | None = None  # as submitted, of one that never failed
    complete_by: datetime | None = None
    fails_for_good: bool = False  # its failures say that there is no use in a retry
    pause_s: float = 0  # of an agent that rejected it
    priority: int = 0
    status: str = ""
    generation: int = 0
    retries: int = 0
    rejections: int = 0
    surely_lost: int = 0
    perhaps_lost: int = 0
    refusers: dict[str, int] = field(default_factory=dict)  # until when (ms), by agent
    starts_ms: int = 0  # not before
    since: datetime | None = None  # the entry that says so
    holder: str | None = None
    doing: str = ""  # of an assigned task: assigned, accepted or blocked
    is_cancelling: bool = False
    must_die: str = ""  # why the next entry is a dead letter

    @property
    def needs(self) -> str:
        """As the tally has them: sorted, each once; with the marks of agents, an object."""
        wanted = sorted(set(self.capabilities))
        if self.only is None and not self.refusers:
            return _compact(wanted) if wanted else ""
        key: dict[str, Any] = {"needs": wanted}
        if self.only is not None:
            key["only"] = mark_of(self.only)
        if self.refusers:
            key["not"] = sorted({mark_of(agent) for agent in self.refusers})
        return _compact(key)

    def follow(self, entry: Entry) -> None:
        """Raises `Against`."""
        if self.must_die and entry.kind != "task_dead_letter":
            raise Against(f"follows, though {self.must_die}", promises.BUDGET)
        step = STEPS.get(entry.kind)
        if step is None:
            raise Against("is not known")
        step(self, entry)
        said = entry.data.get("generation", self.generation)
        if entry.kind != "task_late" and said != self.generation:
            raise Against(f"has another generation than {self.generation}")

    # --- One kind each

    def _submitted(self, entry: Entry) -> None:
        self._from("")
        self.priority = entry.data["priority"]
        self._wait(entry)

    def _due(self, entry: Entry) -> None:
        self._from("scheduled")
        # a wait that was counted from a time which the clock was set back from is over at once
        was_set_back = self.retries and self.since is not None and entry.at < self.since
        if entry.at_ms < self.starts_ms and not was_set_back:
            raise Against(f"came {self.starts_ms - entry.at_ms} ms too early", promises.EARLY)
        self.starts_ms = 0
        self._wait(entry)

    def _assigned(self, entry: Entry) -> None:
        if self.status == "cancelled":
            raise Against("follows, though it is cancelled", promises.CANCELLED)
        if self.status == "scheduled":
            raise Against("follows, though it waits for its time", promises.EARLY)
        self._from("queued")
        agent = entry.agent_id or ""
        if self.only not in (None, agent) or agent in self.refusers:
            raise Against(f"gives it to {agent}, which must not have it")
        self.generation += 1
        self.status, self.holder, self.doing = "assigned", agent, "assigned"

    def _at_work(self, entry: Entry) -> None:
        self._held_by(entry)
        if entry.kind != "task_progress":
            self.doing = "blocked" if entry.kind == "task_blocked" else "accepted"

    def _complete(self, entry: Entry) -> None:
        if self.status == "completed":
            raise Against("follows a completion", promises.ONCE)
        self._held_by(entry)
        self.status, self.is_cancelling = "completed", False

    def _failed(self, entry: Entry) -> None:
        self._let_go(entry)
        self.retries += 1
        self.status = "failed"
        if self.fails_for_good or self.retries >= max(1, self.most):
            self.must_die = f"{self.retries} attempts failed"

    def _retried(self, entry: Entry) -> None:
        if entry.data["by_hand"]:
            self._from("dead_letter", "cancelled")
            self.retries = self.rejections = self.surely_lost = self.perhaps_lost = 0
            self.refusers = {}
        else:
            self._from("failed")
        self._queue_again(entry)

    def _rejected(self, entry: Entry) -> None:
        self._let_go(entry)
        self.rejections += 1
        until = entry.at + timedelta(seconds=self.pause_s)
        if self.pause_s:
            self.refusers[entry.agent_id or ""] = int(until.timestamp() * 1000)
        self._queue_again(entry)
        if self.rejections >= self.most_rejections:
            self.must_die = f"it was rejected {self.rejections} times"

    def _reoffered(self, entry: Entry) -> None:
        self._from("queued")
        if all(until > entry.at_ms for until in self.refusers.values()):
            self.refusers = {}  # the clock was set back
        self._wait(entry)

    def _reclaimed(self, entry: Entry) -> None:
        self._let_go(entry)
        self.surely_lost += entry.data["why"] in SURELY_LOST
        self.perhaps_lost += entry.data["why"] in PERHAPS_LOST
        self._queue_again(entry)
        if entry.data["why"] in SURELY_LOST and self.surely_lost >= self.most_lost:
            self.must_die = f"{self.surely_lost} agents were lost with it"

    def _dead_letter(self, entry: Entry) -> None:
        self._from("failed", "queued", "scheduled")
        is_late = self.complete_by is not None and self.complete_by <= entry.at
        is_lost = self.surely_lost + self.perhaps_lost >= self.most_lost
        if not (self.must_die or (self.status != "failed" and (is_late or is_lost))):
            raise Against("follows, though it had not used up any budget", promises.BUDGET)
        self.must_die = ""
        self.status = "dead_letter"

    def _reprioritized(self, entry: Entry) -> None:
        self._from("queued", "scheduled", "dead_letter")
        if entry.data["old_priority"] != self.priority:
            raise Against(f"moves it from another lane than {self.priority}")
        self.priority, self.since = entry.data["priority"], entry.at

    def _cancel_requested(self, entry: Entry) -> None:
        self._held_by(entry)
        self.is_cancelling = True

    def _cancelled(self, entry: Entry) -> None:
        if entry.data["was"] != self.status or self.status in ("completed", "cancelled", ""):
            raise Against(f"cannot follow: it was {self.status}")
        # an agent that confirms ends its own generation; everything else fences it off
        confirmed = self.is_cancelling and entry.data["agent"] == "idle"
        if entry.agent_id is not None and entry.agent_id != self.holder:
            raise Against(f"is by {entry.agent_id}, but {self.holder} held it")
        if not (confirmed and entry.data["generation"] == self.generation):
            self.generation += 1
        self.status, self.is_cancelling = "cancelled", False

    def _late(self, entry: Entry) -> None:
        if self.status == "assigned" and self.holder == entry.agent_id:
            raise Against(f"is by {entry.agent_id}, which holds it")

    # --- What they share

    def _from(self, *statuses: str) -> None:
        if self.status not in statuses:
            was = self.status or "nothing"
            raise Against(f"cannot follow: it was {was}, {self.retries} attempts failed")

    def _held_by(self, entry: Entry) -> None:
        self._from("assigned")
        if entry.agent_id != self.holder:
            raise Against(f"is by {entry.agent_id}, but {self.holder} held it")

    def _let_go(self, entry: Entry) -> None:
        self._held_by(entry)
        if self.is_cancelling:
            raise Against("follows, though it was to be cancelled", promises.ENDED)

    def _queue_again(self, entry: Entry) -> None:
        self.generation += 1
        self.holder, self.doing = None, ""
        self._wait(entry)

    def _wait(self, entry: Entry) -> None:
        self.refusers = {a: until for a, until in self.refusers.items() if until > entry.at_ms}
        self.status, self.since = entry.data.get("status", "queued"), entry.at
        self.starts_ms = entry.data["until"] if self.status == "scheduled" else 0
        # what was due once stays so, even if the clock is set back after that
        starts = self.not_before if entry.kind in BEGINNINGS else None
        if starts is not None and max(self.starts_ms, entry.at_ms) < _ms(starts):
            raise Against(f"lets it start before {self.not_before}", promises.EARLY)


STEPS = {
    "task_submitted": Life._submitted,
    "task_due": Life._due,
    "task_assigned": Life._assigned,
    **dict.fromkeys(
        ("task_accepted", "task_progress", "task_blocked", "task_unblocked"), Life._at_work
    ),
    "task_complete": Life._complete,
    "task_failed": Life._failed,
    "task_retried": Life._retried,
    "task_rejected": Life._rejected,
    "task_reoffered": Life._reoffered,
    "task_reclaimed": Life._reclaimed,
    "task_dead_letter": Life._dead_letter,
    "task_reprioritized": Life._reprioritized,
    "task_cancel_requested": Life._cancel_requested,
    "task_cancelled": Life._cancelled,
    "task_late": Life._late,
}


@dataclass
class Hand:
    """What an agent has, from the assignment until it is free."""

    task_id: str | None = None
    state: str = "idle"
    is_connected: bool = False
    unanswered: int = 0  # tasks in a row that it did not accept in time

    def follow(self, entry: Entry) -> None:
        """Raises `Against`."""
        kind, data = entry.kind, entry.data
        if kind == "task_assigned":
            self._take(entry)
        elif kind in ("agent_joined", "agent_left"):
            self.is_connected = kind == "agent_joined"
            if self.state in ("stopping", "unresponsive"):
                self._free()
            if self.is_connected:
                self.unanswered = 0
        elif kind == "agent_responded":
            if self.state not in ("stopping", "unresponsive"):
                raise Against(f"is by {entry.agent_id}, which is {self.state}")
            self._free()
            self.unanswered = 0
        elif kind in ("task_reclaimed", "task_cancelled"):
            self._lose(entry)
        elif kind in BY_AGENT:
            self._speak(entry)
        if entry.actor == f"agent:{entry.agent_id}" and kind.startswith("task_"):
            self.unanswered = 0
        if kind == "task_reclaimed" and data["why"] == "not_accepted":
            self.unanswered += 1
            if self.unanswered >= UNANSWERED_MAX and self.is_connected:
                self.state = "unresponsive"

    def _take(self, entry: Entry) -> None:
        if self.task_id is not None or self.state != "idle":
            text = f"gives it to {entry.agent_id}, which is {self.state} and has {self.task_id}"
            raise Against(text, promises.TWO)
        self.task_id, self.state = entry.task_id, "assigned"

    def _speak(self, entry: Entry) -> None:
        if self.task_id != entry.task_id:
            raise Against(f"is by {entry.agent_id}, which has {self.task_id}", promises.TWO)
        if entry.kind == "task_late" and self.state != "stopping":
            raise Against(f"is by {entry.agent_id}, which is {self.state}")
        if entry.kind in FREEING:
            self._free()

    def _lose(self, entry: Entry) -> None:
        if entry.data["agent"] == "stopping" and self.is_connected:
            self.state = "stopping"
        elif entry.data["agent"]:
            self._free()

    def _free(self) -> None:
        self.task_id, self.state = None, "idle"


@dataclass
class Holds:
    """Those in force, by id."""

    placed: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def follow(self, entry: Entry) -> None:
        hold = entry.data["hold"]
        if entry.kind == "hold_placed":
            self.placed[hold["id"]] = hold
        elif self.placed.pop(hold["id"], None) is None:
            raise Against(f"lifts {hold['id']}, which is not placed")

    def check(self, life: Life, entry: Entry) -> None:
        """Of an assignment. Raises `Against`."""
        for hold in self.placed.values():
            is_over = hold["until"] is not None and hold["until"] <= entry.at_ms
            if not is_over and _is_on(hold, life, entry.agent_id):
                text = f"crosses the hold {hold['id']} on the {hold['scope']} {hold['subject']}"
                raise Against(text, promises.HELD)


def _is_on(hold: Mapping[str, Any], life: Life, agent_id: str | None) -> bool:
    subject = hold["subject"]
    match hold["scope"]:
        case "hub":
            return True
        case "lane":
            return bool(LANES[life.priority] == subject)
        case "capability":
            return subject in life.capabilities
    return bool(subject == agent_id)


def mark_of(agent_id: str) -> str:
    return hashlib.blake2b(agent_id.encode(), digest_size=4).hexdigest()


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
