"""What the hub told its clients, and so promised. The first broken promise is kept."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

LOST = "no acked change is lost"
ONCE = "no task is completed twice"
HANDED = "no (task, generation) is handed out twice"
FORGOTTEN = "no task is forgotten"
JOURNAL = "the journal has no hole"
TASKS = "each task is what its journal says"
MODELS = "read models are what the journal says"
SNAPSHOT = "the snapshot is what the rows say"
PATCHES = "patches fold to the snapshot"
EVENTS = "a viewer gets each event once"
FENCED = "who does not hold a task cannot end it"
CANCELLED = "a cancelled task never runs again, unless retried by hand"
ENDED = "a request to cancel ends as cancelled, or as a completion that came first"
TOLD = "who waits for a task is told of its end"
HOOKED = "a webhook hears of each event, and of each task's events in order"
HELD = "no hold is crossed"
EARLY = "nothing runs before its time"
TWO = "no agent ever has two tasks"
BUDGET = "no task burns more agents, attempts or rejections than its budget"
ACTOR = "each entry says who did it"
ANSWERS = "answers are those of the contract"
STEADY = "memory and open files are steady"
LIGHT = "the light tells what is wrong"
KEPT = "who works keeps the task"
QUIET = "nothing unexpected in the logs"
ALIVE = "processes go on by themselves, and end only when told"
PROMISES = (
    *(LOST, ONCE, HANDED, FORGOTTEN, JOURNAL, TASKS, MODELS, SNAPSHOT, PATCHES, EVENTS),
    *(CANCELLED, ENDED, TOLD, HOOKED, HELD, EARLY, TWO, BUDGET, ACTOR),
    *(KEPT, FENCED, ANSWERS, STEADY, LIGHT, QUIET, ALIVE),
)
REMEMBER = 1_000  # snapshots that are compared with others of the same seq


@dataclass(frozen=True)
class Broken:
    promise: str
    evidence: str
    task_id: str = ""
    history: Sequence[str] = ()


@dataclass(frozen=True)
class Assignment:
    task_id: str
    generation: int
    agent_id: str


@dataclass
class Ledger:
    """Lives on the clients' event loop."""

    keys: dict[str, list[str]] = field(default_factory=dict)  # task ids by Idempotency-Key
    acks: list[tuple[str, str, Assignment]] = field(default_factory=list)  # message and its ack
    cancels: list[tuple[str, str]] = field(default_factory=list)  # the answer, and the task's id
    told: list[tuple[str, str]] = field(default_factory=list)  # to waiters: status and task
    to_cancel: set[str] = field(default_factory=set)  # somebody asked for it
    holders: dict[tuple[str, int], str] = field(default_factory=dict)  # as pushed
    accepted: set[Assignment] = field(default_factory=set)
    spans: list[tuple[int, int, int]] = field(default_factory=list)  # from seq, to seq, events
    done: Counter[str] = field(default_factory=Counter)  # what was done, for the summary
    open_tasks: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)  # tasks that agents work on for long
    longest_outage_s: float = 0.0
    broken: Broken | None = None
    alarm: asyncio.Event = field(default_factory=asyncio.Event)
    _essences: dict[int, Any] = field(default_factory=dict)
    _recent: deque[int] = field(default_factory=deque)
    _last_sign_at: float = 0.0

    def breaks(self, promise: str, evidence: str, task_id: str = "") -> None:
        self.report(Broken(promise, evidence, task_id))

    def report(self, broken: Broken) -> None:
        self.broken = self.broken or broken
        self.alarm.set()

    def submitted(self, key: str, task_ids: list[str]) -> None:
        self._sign()
        if self.keys.setdefault(key, task_ids) != task_ids:
            first = self.keys[key]
            self.breaks(LOST, f"key {key}: the answer was {first} and is now {task_ids}", first[0])
        self.open_tasks.update(task_ids)

    def pushed(self, given: Assignment, before: set[Assignment]) -> None:
        """`before`: what was pushed over the same connection earlier."""
        place = (given.task_id, given.generation)
        holder = self.holders.setdefault(place, given.agent_id)
        again = ""
        if holder != given.agent_id:
            again = f"and {holder}"
        elif given in self.accepted:
            again = "again, which had accepted it"
        elif given in before:
            again = "twice over one connection"
        if again:
            text = f"generation {given.generation} was pushed to {given.agent_id} {again}"
            self.breaks(HANDED, text, given.task_id)

    def acked(self, status: str, given: Assignment, said: str = "") -> None:
        """`said`: the type of the message."""
        self._sign()
        if status == "accepted":
            self.accepted.add(given)
        self.acks.append((said, status, given))
        if status in ("complete", "dead_letter", "cancelled"):
            self.open_tasks.discard(given.task_id)

    def cancel_answered(self, answer: str, task_id: str) -> None:
        """`answer`: "cancelled", "cancelling" or "too_late"."""
        self._sign()
        self.cancels.append((answer, task_id))
        if answer != "cancelling":
            self.open_tasks.discard(task_id)

    def saw(self, snapshot: dict[str, Any]) -> None:
        """A snapshot that came whole or was folded: all of one seq must agree."""
        essence = essence_of(snapshot)
        seq = snapshot["seq"]
        if seq not in self._essences:
            self._essences[seq] = essence
            self._recent.append(seq)
            if len(self._recent) > REMEMBER:
                del self._essences[self._recent.popleft()]
        elif self._essences[seq] != essence:
            text = f"at seq {seq} two differ in {differing(self._essences[seq], essence)}"
            self.breaks(PATCHES, text)

    def _sign(self) -> None:
        """The hub committed something."""
        now = time.monotonic()
        if self._last_sign_at:
            self.longest_outage_s = max(self.longest_outage_s, now - self._last_sign_at)
        self._last_sign_at = now

    def as_json(self) -> dict[str, Any]:
        """What an audit compares with the rows."""
        return {
            "keys": self.keys,
            "acks": [(said, status, *asdict(given).values()) for said, status, given in self.acks],
            "cancels": self.cancels,
            "told": self.told,
            "open": sorted(self.open_tasks),
            "pushes": [(*place, agent_id) for place, agent_id in self.holders.items()],
            "spans": self.spans,
        }


def essence_of(snapshot: dict[str, Any]) -> dict[str, Any]:
    """What events alone change, so that it is the same in all snapshots of one seq."""
    queue = snapshot["queue"]
    return {
        "agents": [
            (row["agent_id"], row["fsm_state"], row["current_task_id"])
            for row in snapshot["agents"]
        ],
        "queue": [queue[name] for name in ("by_status", "by_priority", "dead_letter")],
        "dead_letter_tasks": [
            (row["id"], row["failed_at"], row["retry_count"])
            for row in snapshot["dead_letter_tasks"]
        ],
        "recent_completions": [
            (row["task_id"], row["agent_id"], row["completed_at"])
            for row in snapshot["recent_completions"]
        ],
    }


def differing(one: dict[str, Any], other: dict[str, Any]) -> str:
    parts = [name for name in one if one[name] != other[name]]
    return "; ".join(f"{name}: {_first_difference(one[name], other[name])}" for name in parts)


def _first_difference(one: Any, other: Any) -> str:
    if isinstance(one, list) and isinstance(other, list):
        mine = [item for item in one if item not in other][:2]
        theirs = [item for item in other if item not in one][:2]
        if mine or theirs:
            return f"{mine} and {theirs}"
        return f"{len(one)} and {len(other)} in another order"
    return f"{one} and {other}"
