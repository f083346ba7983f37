"""Reads a hub's database and says which promise is broken.

    python -m lab.torture.audit < ledger.json

Works out for itself, from the journal, what every row and counter must be; of the hub's own code
it uses the tables alone.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentcom.settings")
django.setup()

from agentcom.database import consistent_read, millis  # noqa: E402
from agentcom.models import Event  # noqa: E402
from counters.models import AgentHour, DurationCount, LaneMinute, Minute  # noqa: E402
from fleet.models import Agent  # noqa: E402
from lab.torture import ledger as promises  # noqa: E402
from lab.torture.ledger import Broken, differing, essence_of  # noqa: E402
from lab.torture.receiver import TYPES  # noqa: E402
from lab.torture.story import ACTOR, BY_AGENT, Against, Entry, Hand, Holds, Life  # noqa: E402
from tasks.models import Completion, Status, Tally, Task  # noqa: E402

SHOWN = 100  # rows of the snapshot's lists
STATE_OF = {"accepted": "working", "blocked": "blocked", "assigned": "assigned"}
# The entry that stands behind an ack: by the ack's status, or the message and the status.
ENTRY_OF = {
    "accepted": "task_accepted",
    "complete": "task_complete",
    "requeued": "task_rejected",
    "retried": "task_failed",
    "cancelled": "task_cancelled",
}
DEAD = {"task_rejected": "task_rejected"}  # "dead_letter"; after all other messages, a failure
ENDS = ("completed", "dead_letter", "cancelled")
# The entry behind an end that a waiter was told of.
END_OF = {
    "completed": "task_complete",
    "cancelled": "task_cancelled",
    "dead_letter": "task_dead_letter",
}
CANCELS = {
    "cancelled": "task_cancelled",
    "cancelling": "task_cancel_requested",
    "too_late": "task_complete",
}


class Audit:
    """Everything is read at one moment; `told` is what the ledger had before that."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.is_final = bool(told.get("states"))
        names = ("seq", "kind", "task_id", "agent_id", "at", "data", "actor")
        rows = Event.objects.order_by("seq").values_list(*names)
        self.entries = [Entry(*row) for row in rows]
        self.failed = {entry.task_id for entry in self.entries if entry.kind == "task_failed"}
        self.tasks = {task.task_id: task for task in Task.objects.all()}
        self.completions = list(Completion.objects.order_by("-seq"))
        self.lives: dict[str, Life] = {}
        self.hands: dict[str, Hand] = defaultdict(Hand)
        self.holds = Holds()
        self.lanes: dict[Any, Counter[str]] = defaultdict(Counter)

    def run(self) -> Iterator[Broken]:
        yield from self._journal()
        yield from self._replay()
        yield from self._acks()
        yield from self._cancels()
        yield from self._told()
        yield from self._pushes()
        yield from self._rows()
        yield from self._agents()
        yield from self._completions()
        yield from self._counters()
        yield from self._spans()
        if self.is_final:
            yield from self._ends()
            yield from self._hooked()
            yield from self._states()

    def history(self, task_id: str) -> list[str]:
        return [
            f"{entry.seq} {entry.at:%H:%M:%S.%f} {entry.kind} {entry.agent_id or ''} "
            f"{json.dumps(entry.data)[:150]}"
            for entry in self.entries
            if entry.task_id == task_id
        ]

    def ended(self) -> list[str]:
        """Of the tasks that the ledger has as open."""
        return [id_ for id_ in self.told["open"] if id_ in self.tasks and self._is_ended(id_)]

    def _is_ended(self, task_id: str) -> bool:
        return self.tasks[task_id].status in ENDS

    def figures(self) -> dict[str, int]:
        kinds = Counter(entry.kind for entry in self.entries)
        stands = Counter(task.status for task in self.tasks.values())
        return {
            "tasks": len(self.tasks),
            "completed": stands["completed"],
            "in the dead letter": stands["dead_letter"],
            "cancelled": stands["cancelled"],
            "reclaimed": kinds["task_reclaimed"],
            "rejected": kinds["task_rejected"],
            "failed attempts": kinds["task_failed"],
            "said too late": kinds["task_late"],
            "holds": kinds["hold_placed"],
            "journal entries": len(self.entries),
        }

    def _journal(self) -> Iterator[Broken]:
        for expected, entry in enumerate(self.entries, start=1):
            if entry.seq != expected:
                text = f"seq {expected} is missing, {entry.seq} comes next"
                yield Broken(promises.JOURNAL, text)
                return
        for entry in self.entries:
            by_itself = entry.kind not in BY_AGENT or entry.actor == f"agent:{entry.agent_id}"
            if not ACTOR.fullmatch(entry.actor or "") or not by_itself:
                text = f"seq {entry.seq}: {entry.kind} of {entry.agent_id} is by {entry.actor!r}"
                yield Broken(promises.ACTOR, text, entry.task_id or "")

    def _replay(self) -> Iterator[Broken]:
        for entry in self.entries:
            if entry.task_id is not None and entry.task_id not in self.tasks:
                text = f"seq {entry.seq} tells of a task without a row"
                yield Broken(promises.LOST, text, entry.task_id)
                continue
            try:
                self._follow(entry)
            except Against as error:
                text = f"seq {entry.seq}: {entry.kind} {error}"
                yield Broken(error.promise, text, entry.task_id or "")

    def _follow(self, entry: Entry) -> None:
        if entry.kind in ("hold_placed", "hold_lifted"):
            self.holds.follow(entry)
            return
        if entry.task_id is not None:
            life = self.lives.get(entry.task_id) or self._new_life(entry.task_id)
            if entry.kind == "task_assigned":
                self.holds.check(life, entry)
            before = (life.status, life.priority)
            life.follow(entry)
            self._count_lane(entry, before, (life.status, life.priority))
        if entry.agent_id is not None:
            self.hands[entry.agent_id].follow(entry)

    def _new_life(self, task_id: str) -> Life:
        row = self.tasks[task_id]
        has_failed = task_id in self.failed
        life = self.lives[task_id] = Life(
            capabilities=row.needed_capabilities,
            only=row.assign_to,
            most=row.max_retries,
            most_lost=max(1, row.max_reclaims),
            most_rejections=max(1, row.max_rejections),
            not_before=None if has_failed else row.not_before,
            complete_by=row.complete_by,
            fails_for_good=row.metadata.get("fate") == "fail for good",
            pause_s=float(os.environ.get("AGENTCOM_REJECT_PAUSE_S", "60")),
        )
        return life

    def _count_lane(self, entry: Entry, before: tuple[str, int], after: tuple[str, int]) -> None:
        was, is_ = before[0] == "queued", after[0] == "queued"
        if was and is_ and before == after:
            return
        if was:
            self.lanes[_minute(entry.at), before[1]]["drained"] += 1
        if is_:
            self.lanes[_minute(entry.at), after[1]]["added"] += 1

    def _acks(self) -> Iterator[Broken]:
        """What was said to be done stands in the journal."""
        written = Counter(
            (entry.kind, entry.task_id, entry.data.get("generation"), entry.agent_id)
            for entry in self.entries
        )
        for key, task_ids in self.told["keys"].items():
            for task_id in task_ids:
                if task_id not in self.tasks:
                    yield Broken(promises.LOST, f"key {key} got 201; there is no {task_id}")
        names = Counter(task.description for task in self.tasks.values())
        for name, count in names.items():
            if count > 1:
                [*ids] = (id_ for id_, task in self.tasks.items() if task.description == name)
                yield Broken(promises.ONCE, f"{name} was submitted once and is {ids}", ids[0])
        for said, status, task_id, generation, agent_id in self.told["acks"]:
            kind = ENTRY_OF.get(status)
            if status == "dead_letter":
                kind = DEAD.get(said, "task_failed")
            if kind is None:
                continue
            fence = None if kind == "task_rejected" else generation  # its entry has none
            if not written[kind, task_id, fence, agent_id]:
                text = f"{status} was acked to {agent_id}, generation {generation}: no {kind}"
                yield Broken(promises.LOST, text, task_id)

    def _cancels(self) -> Iterator[Broken]:
        """What was said about requests to cancel. That nothing else follows, `Life` knows."""
        kinds: dict[str, set[str]] = defaultdict(set)
        for entry in self.entries:
            kinds[entry.task_id or ""].add(entry.kind)
        for answer, task_id in self.told["cancels"]:
            wanted = CANCELS[answer]
            if wanted not in kinds[task_id]:
                text = f"a request to cancel was answered with {answer}: no {wanted}"
                yield Broken(promises.ENDED, text, task_id)
        if self.is_final:
            for task_id, life in self.lives.items():
                if life.is_cancelling:
                    yield Broken(promises.ENDED, "is still to be cancelled", task_id)

    def _told(self) -> Iterator[Broken]:
        """What waiters were told. That they were told of everything, the ordeal waits for."""
        ends = {(entry.kind, entry.task_id) for entry in self.entries}
        for status, task_id in self.told["told"]:
            if (END_OF[status], task_id) not in ends:
                text = f"a waiter was told of {status}: no {END_OF[status]}"
                yield Broken(promises.TOLD, text, task_id)

    def _hooked(self) -> Iterator[Broken]:
        """What the receiver of the webhook has accepted. The order, it checks itself."""
        begins = [entry.seq for entry in self.entries if entry.kind == "webhook_created"]
        accepted = set(self.told["hooked"])
        for entry in self.entries:
            is_wanted = entry.kind in TYPES and begins and entry.seq > begins[0]
            if is_wanted and entry.seq not in accepted:
                text = f"seq {entry.seq}: the webhook was not told of {entry.kind}"
                yield Broken(promises.HOOKED, text, entry.task_id or "")

    def _pushes(self) -> Iterator[Broken]:
        """What was handed out had been written down."""
        assigned = {
            (entry.task_id, entry.data["generation"]): entry.agent_id
            for entry in self.entries
            if entry.kind == "task_assigned"
        }
        for task_id, generation, agent_id in self.told["pushes"]:
            holder = assigned.get((task_id, generation))
            if holder != agent_id:
                text = f"generation {generation} was pushed to {agent_id}; the journal: {holder}"
                yield Broken(promises.HANDED, text, task_id)

    def _rows(self) -> Iterator[Broken]:
        for task_id, row in self.tasks.items():
            life = self.lives.get(task_id, Life())
            told = (life.status, life.priority, life.generation, life.retries, life.holder)
            is_ = (row.status, row.priority, row.generation, row.retry_count, row.assigned_to)
            told_more = (life.rejections, life.refusers or None, life.is_cancelling)
            more = (row.rejection_count, row.refusers, row.cancel_deadline is not None)
            if (told, told_more) != (is_, more):
                text = f"the journal says {told + told_more}, the row {is_ + more}"
                yield Broken(promises.TASKS, text, task_id)
            lost = len(row.lost_agents or ())
            if not life.surely_lost <= lost <= life.surely_lost + life.perhaps_lost:
                text = f"{life.surely_lost} agents were lost with it, the row says {lost}"
                yield Broken(promises.TASKS, text, task_id)

    def _agents(self) -> Iterator[Broken]:
        """An agent has one task at most, and its row says which and what it does."""
        held: dict[str, list[str]] = defaultdict(list)
        for task_id, life in self.lives.items():
            if life.status == "assigned":
                held[life.holder or ""].append(task_id)
        for agent in Agent.objects.all():
            mine, hand = held[agent.agent_id], self.hands[agent.agent_id]
            if len(mine) > 1:
                yield Broken(promises.TWO, f"{agent.agent_id} holds {mine}", mine[0])
            state = STATE_OF[self.lives[mine[0]].doing] if mine else hand.state
            if not hand.is_connected:
                state = "offline"
            told, is_ = (state, hand.task_id), (agent.fsm_state, agent.current_task_id)
            if told != is_:
                text = f"{agent.agent_id} is {told} by the journal, its row says {is_}"
                yield Broken(promises.MODELS, text, (mine or [""])[0])

    def _completions(self) -> Iterator[Broken]:
        rows: Counter[tuple[int, str | None, str | None]] = Counter(
            (row.seq, row.task_id, row.agent_id) for row in self.completions
        )
        told = Counter(
            (entry.seq, entry.task_id, entry.agent_id)
            for entry in self.entries
            if entry.kind == "task_complete"
        )
        for seq, task_id, agent_id in (rows - told) + (told - rows):
            text = f"completed by {agent_id} at seq {seq}: journal and completions differ"
            yield Broken(promises.MODELS, text, task_id or "")

    def _counters(self) -> Iterator[Broken]:
        tallies: Counter[Any] = Counter()
        for life in self.lives.values():
            needs = life.needs if life.status == "queued" else ""
            tallies[life.status, life.priority, needs] += 1
        counters: list[dict[Any, Counter[str]]] = [defaultdict(Counter) for _ in range(3)]
        minutes, durations, hours = counters
        for entry in self.entries:
            minute = _minute(entry.at)
            hour = minute.replace(minute=0)
            if entry.kind == "task_failed":
                minutes[minute]["failed"] += 1
                hours[hour, entry.agent_id]["failed"] += 1
            elif entry.kind == "task_complete":
                took = entry.data["duration_ms"]
                tokens = entry.data["tokens_used"] or 0
                minutes[minute].update(completed=1, duration_ms=took, tokens=tokens)
                hours[hour, entry.agent_id]["completed"] += 1
                durations[int(entry.at.timestamp()) // 60, _bucket(took)]["count"] += 1
        wanted = {
            (status, lane, needs, _filed_under(needs)): {"count": count}
            for (status, lane, needs), count in tallies.items()
        }
        yield from _compare(Tally, ("status", "priority", "needs", "filed_under"), wanted)
        yield from _compare(Minute, ("start",), {(start,): sums for start, sums in minutes.items()})
        yield from _compare(DurationCount, ("minute", "bucket"), durations)
        yield from _compare(LaneMinute, ("start", "priority"), self.lanes)
        yield from _compare(AgentHour, ("start", "agent_id"), hours)

    def _spans(self) -> Iterator[Broken]:
        """A viewer that was there from one seq to another was told of each task's event between."""
        up_to, count = [0], 0
        for entry in self.entries:
            count += entry.task_id is not None
            up_to.append(count)
        for begin, until, heard in self.told["spans"]:
            there = up_to[min(until, len(up_to) - 1)] - up_to[begin]
            if heard != there:
                text = f"from seq {begin} to {until} a viewer heard {heard} of {there} task events"
                yield Broken(promises.EVENTS, text)

    def _ends(self) -> Iterator[Broken]:
        for task_id, row in self.tasks.items():
            if row.status not in ENDS:
                text = f"is still {row.status}, though idle agents that can do it are there"
                yield Broken(promises.FORGOTTEN, text, task_id)

    def _states(self) -> Iterator[Broken]:
        """What each web process shows, against the rows. Nothing has happened since."""
        for name, state in self.told["states"].items():
            there, shown = essence_of(self._state()), essence_of(state)
            if there != shown:
                text = f"{name} shows what rows do not say: {differing(shown, there)}"
                yield Broken(promises.SNAPSHOT, text)
            hour, sums = state["throughput"], self._throughput(state["timestamp"])
            if any(hour[name] != value for name, value in sums.items()):
                yield Broken(promises.SNAPSHOT, f"{name} shows {hour}, the rows say {sums}")

    def _state(self) -> dict[str, Any]:
        stands = Counter(task.status for task in self.tasks.values())
        lanes = Counter(t.priority for t in self.tasks.values() if t.status == "queued")
        dead = [task for task in self.tasks.values() if task.status == "dead_letter"]
        newest = sorted(dead, key=lambda task: (task.died_at, -task.number), reverse=True)[:SHOWN]
        letters = [
            {"id": t.task_id, "failed_at": millis(t.died_at), "retry_count": t.retry_count}
            for t in newest
        ]
        done = [
            {"task_id": c.task_id, "agent_id": c.agent_id, "completed_at": millis(c.completed_at)}
            for c in self.completions[:SHOWN]
        ]
        connected = Agent.objects.exclude(fsm_state="offline").values()
        return {
            "agents": sorted(connected, key=lambda row: row["agent_id"]),
            "queue": {
                "by_status": {
                    name: stands[name] for name in Status.values if name != "dead_letter"
                },
                "by_priority": {str(lane): lanes[lane] for lane in range(4)},
                "dead_letter": len(dead),
            },
            "dead_letter_tasks": _newest_first(letters, "failed_at", "id"),
            "recent_completions": _newest_first(done, "completed_at", "task_id"),
        }

    def _throughput(self, now_ms: int) -> dict[str, int]:
        """Of this minute and the 59 before it; the clock may have been ahead, or behind, before."""
        until = now_ms // 60_000

        def is_of_the_hour(at: datetime) -> bool:
            return until - 60 < millis(at) // 60_000 <= until

        done = [row for row in self.completions if is_of_the_hour(row.completed_at)]
        took = [row.duration_ms for row in done]
        failed = [entry.at for entry in self.entries if entry.kind == "task_failed"]
        return {
            "completed_last_hour": len(took),
            "failed_last_hour": sum(map(is_of_the_hour, failed)),
            "avg_completion_ms": round(sum(took) / len(took)) if took else 0,
            "total_tokens_hour": sum(row.tokens_used for row in done),
        }


def _newest_first(rows: list[dict[str, Any]], time: str, key: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (-row[time], row[key]))


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


def _bucket(duration_ms: int) -> int:
    return 0 if duration_ms < 1 else 1 + int(math.log(duration_ms, 1.1))


def _filed_under(needs: str) -> str:
    """The agent that alone may have it; else the longest capability, of equally long ones the
    last."""
    key = json.loads(needs or "[]")
    if isinstance(key, dict):
        if "only" in key:
            return f"@{key['only']}"
        key = key["needs"]
    return max(sorted(key, reverse=True), key=len, default="")


def _compare(model: Any, key: tuple[str, ...], wanted: Any) -> Iterator[Broken]:
    """Counters that are nought may have no row."""
    counters = [
        field.name for field in model._meta.fields if field.name != "id" and field.name not in key
    ]
    rows = {
        tuple(row[name] for name in key): {name: row[name] for name in counters}
        for row in model.objects.order_by().values()
    }
    for place in rows.keys() | wanted.keys():
        is_ = rows.get(place, {})
        for name in counters:
            there, told = is_.get(name, 0), wanted.get(place, {}).get(name, 0)
            if there != told:
                where = ", ".join(map(str, place))
                text = f"{model.__name__} ({where}): {name} is {there}, the journal says {told}"
                yield Broken(promises.MODELS, text)


def main() -> None:
    told = json.load(sys.stdin)
    with consistent_read():
        audit = Audit(told)
        broken = [
            {**asdict(found), "history": audit.history(found.task_id) if found.task_id else []}
            for found, _ in zip(audit.run(), range(10), strict=False)
        ]
        asked = {id_: audit.history(id_) for id_ in told.get("histories", [])}
        answer = {"broken": broken, "figures": audit.figures(), "histories": asked}
        print(json.dumps({**answer, "ended": audit.ended()}))


if __name__ == "__main__":
    main()
