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
from dataclasses import asdict, dataclass
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
from tasks.models import Completion, Tally, Task  # noqa: E402

SHOWN = 100  # rows of the snapshot's lists
OUTCOMES = {"requeued": "task_rejected", "retried": "task_failed", "dead_letter": "task_failed"}
STATE_OF = {"accepted": "working", "blocked": "blocked", "assigned": "assigned"}


@dataclass
class Life:
    """A task as its journal tells it; raises ValueError when an entry cannot follow the others."""

    priority: int = 0
    needs: str = ""
    most: int = 3  # attempts
    status: str = ""
    generation: int = 0
    retries: int = 0
    holder: str | None = None
    doing: str = ""  # of an assigned task: assigned, accepted or blocked

    def follow(self, kind: str, agent_id: str | None, data: dict[str, Any]) -> None:
        match kind:
            case "task_submitted":
                self._from("", agent_id)
                self.status = "queued"
            case "task_assigned":
                self._from("queued", agent_id)
                self.generation += 1
                self.status, self.holder, self.doing = "assigned", agent_id, "assigned"
            case "task_accepted" | "task_progress" | "task_blocked" | "task_unblocked":
                self._held_by(agent_id)
                if kind != "task_progress":
                    self.doing = "blocked" if kind == "task_blocked" else "accepted"
            case "task_complete":
                self._held_by(agent_id)
                self.status = "completed"
            case "task_failed":
                self._held_by(agent_id)
                self.retries += 1
                self.status = "failed"
            case "task_retried" if data["by_hand"]:
                self._from("dead_letter", agent_id)
                self.retries = 0
                self._queue_again()
            case "task_retried":
                self._from("failed", agent_id, self.retries < self.most)
                self._queue_again()
            case "task_dead_letter":
                self._from("failed", agent_id, self.retries >= self.most)
                self.status = kind.removeprefix("task_")
            case "task_rejected" | "task_reclaimed":
                self._held_by(agent_id)
                self._queue_again()
            case _:
                raise ValueError("is not known")
        if data.get("generation", self.generation) != self.generation:
            raise ValueError(f"has another generation than {self.generation}")

    def _from(self, status: str, agent_id: str | None, is_right: bool = True) -> None:
        if self.status != status or not is_right:
            raise ValueError(
                f"cannot follow: it was {self.status or 'nothing'}, {self.retries} attempts failed"
            )

    def _held_by(self, agent_id: str | None) -> None:
        self._from("assigned", agent_id)
        if agent_id != self.holder:
            raise ValueError(f"is by {agent_id}, but {self.holder} held it")

    def _queue_again(self) -> None:
        self.generation += 1
        self.status, self.holder, self.doing = "queued", None, ""


class Audit:
    """Everything is read at one moment; `told` is what the ledger had before that."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.is_final = bool(told.get("states"))
        names = ("seq", "kind", "task_id", "agent_id", "at", "data")
        self.events = list(Event.objects.order_by("seq").values_list(*names))
        self.tasks = {task.task_id: task for task in Task.objects.all()}
        self.completions = list(Completion.objects.order_by("-seq"))
        self.lives: dict[str, Life] = {}

    def run(self) -> Iterator[Broken]:
        yield from self._journal()
        yield from self._replay()
        yield from self._acks()
        yield from self._pushes()
        yield from self._rows()
        yield from self._agents()
        yield from self._completions()
        yield from self._counters()
        yield from self._spans()
        if self.is_final:
            yield from self._ends()
            yield from self._states()

    def history(self, task_id: str) -> list[str]:
        return [
            f"{seq} {at:%H:%M:%S.%f} {kind} {agent_id or ''} {json.dumps(data)[:150]}"
            for seq, kind, id_, agent_id, at, data in self.events
            if id_ == task_id
        ]

    def figures(self) -> dict[str, int]:
        kinds = Counter(kind for _, kind, *_ in self.events)
        stands = Counter(task.status for task in self.tasks.values())
        return {
            "tasks": len(self.tasks),
            "completed": stands["completed"],
            "in the dead letter": stands["dead_letter"],
            "reclaimed": kinds["task_reclaimed"],
            "rejected": kinds["task_rejected"],
            "failed attempts": kinds["task_failed"],
            "journal entries": len(self.events),
        }

    def _journal(self) -> Iterator[Broken]:
        for expected, (seq, *_) in enumerate(self.events, start=1):
            if seq != expected:
                yield Broken(promises.JOURNAL, f"seq {expected} is missing, {seq} comes next")
                return

    def _replay(self) -> Iterator[Broken]:
        for seq, kind, task_id, agent_id, _, data in self.events:
            if task_id is None:
                continue
            row = self.tasks.get(task_id)
            if row is None:
                yield Broken(promises.LOST, f"seq {seq} tells of a task without a row", task_id)
                continue
            fresh = Life(row.priority, _needs(row.needed_capabilities), row.max_retries)
            life = self.lives.setdefault(task_id, fresh)
            try:
                life.follow(kind, agent_id, data)
            except ValueError as error:
                promise = promises.ONCE if kind == "task_complete" else promises.TASKS
                yield Broken(promise, f"seq {seq}: {kind} {error}", task_id)

    def _acks(self) -> Iterator[Broken]:
        """What was said to be done stands in the journal."""
        written = Counter(
            (kind, task_id, data.get("generation"), agent_id)
            for _, kind, task_id, agent_id, _, data in self.events
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
        kinds = {**OUTCOMES, "accepted": "task_accepted", "complete": "task_complete"}
        for status, task_id, generation, agent_id in self.told["acks"]:
            kind = kinds.get(status)
            if kind is None:
                continue
            fence = None if kind == "task_rejected" else generation  # its entry has none
            if not written[kind, task_id, fence, agent_id]:
                text = f"{status} was acked to {agent_id}, generation {generation}: no {kind}"
                yield Broken(promises.LOST, text, task_id)

    def _pushes(self) -> Iterator[Broken]:
        """What was handed out had been written down."""
        assigned = {
            (task_id, data["generation"]): agent_id
            for _, kind, task_id, agent_id, _, data in self.events
            if kind == "task_assigned"
        }
        for task_id, generation, agent_id in self.told["pushes"]:
            holder = assigned.get((task_id, generation))
            if holder != agent_id:
                text = f"generation {generation} was pushed to {agent_id}; the journal: {holder}"
                yield Broken(promises.HANDED, text, task_id)

    def _rows(self) -> Iterator[Broken]:
        for task_id, row in self.tasks.items():
            life = self.lives.get(task_id, Life())
            told = (life.status, life.generation, life.retries, life.holder)
            is_ = (row.status, row.generation, row.retry_count, row.assigned_to)
            if told != is_:
                yield Broken(promises.TASKS, f"the journal says {told}, the row {is_}", task_id)

    def _agents(self) -> Iterator[Broken]:
        """An agent holds one task at most, and its row says which and what it does."""
        held: dict[str, list[str]] = defaultdict(list)
        for task_id, life in self.lives.items():
            if life.status == "assigned":
                held[life.holder or ""].append(task_id)
        for agent in Agent.objects.all():
            mine = held[agent.agent_id]
            if len(mine) > 1:
                yield Broken(promises.TASKS, f"{agent.agent_id} holds {mine}", mine[0])
            elif mine != [id_ for id_ in [agent.current_task_id] if id_ is not None]:
                text = f"{agent.agent_id} holds {mine}, its row says {agent.current_task_id}"
                yield Broken(promises.MODELS, text, (mine or [""])[0])
            state = STATE_OF[self.lives[mine[0]].doing] if mine else "idle"
            if agent.fsm_state not in (state, "offline"):
                text = f"{agent.agent_id} is {state}, its row says {agent.fsm_state}"
                yield Broken(promises.MODELS, text, (mine or [""])[0])

    def _completions(self) -> Iterator[Broken]:
        rows = Counter((row.seq, row.task_id, row.agent_id) for row in self.completions)
        told = Counter(
            (seq, task_id, agent_id)
            for seq, kind, task_id, agent_id, *_ in self.events
            if kind == "task_complete"
        )
        for seq, task_id, agent_id in (rows - told) + (told - rows):
            text = f"completed by {agent_id} at seq {seq}: journal and completions differ"
            yield Broken(promises.MODELS, text, task_id or "")

    def _counters(self) -> Iterator[Broken]:
        tallies: Counter[Any] = Counter()
        for life in self.lives.values():
            needs = life.needs if life.status == "queued" else ""
            tallies[life.status, life.priority, needs] += 1
        counters: list[dict[Any, Counter[str]]] = [defaultdict(Counter) for _ in range(4)]
        minutes, durations, lanes, hours = counters
        for _, kind, task_id, agent_id, at, data in self.events:
            minute, hour = _minute(at), _minute(at).replace(minute=0)
            if kind in LANE_STEPS:
                lanes[minute, self.lives[task_id].priority][LANE_STEPS[kind]] += 1
            elif kind == "task_failed":
                minutes[minute]["failed"] += 1
                hours[hour, agent_id]["failed"] += 1
            elif kind == "task_complete":
                took = data["duration_ms"]
                tokens = data["tokens_used"] or 0
                minutes[minute].update(completed=1, duration_ms=took, tokens=tokens)
                hours[hour, agent_id]["completed"] += 1
                durations[int(at.timestamp()) // 60, _bucket(took)]["count"] += 1
        wanted = {
            (status, lane, needs, _filed_under(needs)): {"count": count}
            for (status, lane, needs), count in tallies.items()
        }
        yield from _compare(Tally, ("status", "priority", "needs", "filed_under"), wanted)
        yield from _compare(Minute, ("start",), {(start,): sums for start, sums in minutes.items()})
        yield from _compare(DurationCount, ("minute", "bucket"), durations)
        yield from _compare(LaneMinute, ("start", "priority"), lanes)
        yield from _compare(AgentHour, ("start", "agent_id"), hours)

    def _spans(self) -> Iterator[Broken]:
        """A viewer that was there from one seq to another was told of each task's event between."""
        up_to, count = [0], 0
        for _, _, task_id, *_ in self.events:
            count += task_id is not None
            up_to.append(count)
        for begin, until, heard in self.told["spans"]:
            there = up_to[min(until, len(up_to) - 1)] - up_to[begin]
            if heard != there:
                text = f"from seq {begin} to {until} a viewer heard {heard} of {there} task events"
                yield Broken(promises.EVENTS, text)

    def _ends(self) -> Iterator[Broken]:
        for task_id, row in self.tasks.items():
            if row.status not in ("completed", "dead_letter"):
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
                "by_status": {name: stands[name] for name in ("queued", "assigned", "completed")},
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
        failed = [at for _, kind, _, _, at, _ in self.events if kind == "task_failed"]
        return {
            "completed_last_hour": len(took),
            "failed_last_hour": sum(map(is_of_the_hour, failed)),
            "avg_completion_ms": round(sum(took) / len(took)) if took else 0,
            "total_tokens_hour": sum(row.tokens_used for row in done),
        }


def _newest_first(rows: list[dict[str, Any]], time: str, key: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (-row[time], row[key]))


LANE_STEPS = {
    "task_assigned": "drained",
    **dict.fromkeys(("task_submitted", "task_retried", "task_rejected", "task_reclaimed"), "added"),
}


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


def _bucket(duration_ms: int) -> int:
    return 0 if duration_ms < 1 else 1 + int(math.log(duration_ms, 1.1))


def _needs(capabilities: list[str]) -> str:
    """As the tally has them: sorted, each once."""
    wanted = sorted(set(capabilities))
    return json.dumps(wanted, ensure_ascii=False, separators=(",", ":")) if wanted else ""


def _filed_under(needs: str) -> str:
    """The longest of them, of equally long ones the last."""
    names = sorted(json.loads(needs or "[]"))
    return max(reversed(names), key=len, default="")


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
        print(json.dumps({"broken": broken, "figures": audit.figures(), "histories": asked}))


if __name__ == "__main__":
    main()
