"""The snapshot: the whole state of the fleet in one dict, built once for all viewers.

Read in one transaction together with its `seq`, so that viewers know which events it contains.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from operator import itemgetter
from typing import Any

import orjson
from django.conf import settings
from django.db.models import QuerySet
from django.db.models.functions import Left

from agentcom.database import Reader, consistent_read, millis, now
from agentcom.journal import journal, last_seq
from agentcom.rows import Raw, as_model, fetch, places
from counters.durations import last_hour as durations_of_last_hour
from counters.durations import percentile
from counters.hours import this_hour
from counters.lanes import lanes
from counters.throughput import last_hour
from dashboard import dead_letters
from dashboard.health import current_health, subjects_of, with_database_silence
from dashboard.texts import READ_MAX, short
from fleet.holds import all_holds
from fleet.models import Agent
from tasks.listing import counts
from tasks.models import Completion, Task

LIST_MAX = 100  # completions and dead letters
TITLE_MAX = 80  # characters of the description of an agent's task
TITLES_AT_ONCE = 1000  # read with one query
FRESH_S = 1.0  # a snapshot also changes without events: the last hour moves, a worker falls silent
GAP_S = 0.1
COST_SHARE, TIME_SHARE = 10, 2

# by code point, as viewers sort when they apply patches; a database's collation may differ
BY_ID = itemgetter("agent_id")
AGENT_ID, TASK_ID = map(places(Agent).index, ("agent_id", "current_task_id"))

Row = dict[str, Any]
Done = Mapping[str, tuple[int, int]]  # tasks completed and failed this hour, by agent id
NOTHING = (0, 0)

STARTED = time.monotonic()


@dataclass(frozen=True, eq=False)
class Snapshot:
    data: dict[str, Any]
    built_at: float  # monotonic, s
    cost: float = 0.0  # of processor time, s

    @property
    def seq(self) -> int:
        return int(self.data["seq"])

    @cached_property
    def encoded(self) -> bytes:
        return orjson.dumps(self.data)

    @cached_property
    def etag(self) -> str:
        lasting = {
            key: self.data[key] for key in self.data if key not in ("uptime_ms", "timestamp")
        }
        return f'W/"{hashlib.sha256(orjson.dumps(lasting)).hexdigest()[:32]}"'


class Snapshots:
    """Builds snapshots on request, one at a time."""

    def __init__(self) -> None:
        self._reader = Reader("snapshot")
        self._last: Snapshot | None = None
        self._next_build = 0.0
        self._building: asyncio.Task[Snapshot] | None = None

    async def current(self) -> Snapshot:
        """Includes everything that this process knows to be committed; at most a second old.

        Raises `Unavailable` when the database does not answer.
        """
        while not self._is_fresh(self._last, journal.newest):
            wanted = journal.newest
            if self._building is None or self._building.done():
                self._building = asyncio.create_task(self._build())
                self._building.add_done_callback(_ended)
            built = await asyncio.shield(self._building)
            if built.seq >= wanted:
                return built
        assert self._last is not None
        return self._last

    def out_of_date(self) -> Snapshot | None:
        """The newest that could be built; its health says since when there is no newer one."""
        last = self._last
        if last is None:
            return None
        health = with_database_silence(last.data["health"], last.data["timestamp"])
        return replace(last, data={**last.data, "health": health})

    def _is_fresh(self, snapshot: Snapshot | None, seq: int) -> bool:
        return (
            snapshot is not None
            and snapshot.seq >= seq
            and time.monotonic() - snapshot.built_at < FRESH_S
        )

    async def _build(self) -> Snapshot:
        await asyncio.sleep(self._next_build - time.monotonic())
        began = time.monotonic()
        self._last = await self._reader.run(build)
        took = time.monotonic() - began
        self._next_build = began + gap(self._last.cost, took)
        return self._last


def _ended(task: asyncio.Task[Snapshot]) -> None:
    if not task.cancelled():
        task.exception()  # callers that wait get it; asyncio must not log it if none does


snapshots = Snapshots()


def gap(cost: float, took: float) -> float:
    """Seconds from the start of one build to the next. `cost`: processor time, `took`: elapsed.

    At most ten builds a second. They use at most a tenth of a processor, so that they slow nothing
    down; elapsed time is no measure for that, as it also grows when the hub is busy with other
    work. And they run at most half of the time, to leave a slow database time for other queries.
    """
    return max(GAP_S, COST_SHARE * cost, TIME_SHARE * took)


def build() -> Snapshot:
    """Read everything at one moment. Runs in a reader's thread."""
    built_at, busy = time.monotonic(), time.thread_time()
    with consistent_read():
        data = read(now())
    return Snapshot(data, built_at, cost=time.thread_time() - busy)


def read(moment: datetime) -> dict[str, Any]:
    done = this_hour(moment)
    health = current_health(moment)
    return {
        "uptime_ms": int((time.monotonic() - STARTED) * 1000),
        "timestamp": millis(moment),
        "seq": last_seq(),
        "health": health,
        "agents": _agents(done),
        "offline_agents": _offline_agents(moment, done, subjects_of("agent_offline", health)),
        "queue": _queue(moment),
        "holds": all_holds(moment),
        "dead_letter_tasks": dead_letters.newest(LIST_MAX),
        "recent_completions": _recent_completions(),
        "throughput": _throughput(moment),
    }


class AgentRows:
    """Agents in wire form. An agent that has not changed is the same dict as in the last build.

    Otherwise converting all agents would take most of a build, and comparing them most of a patch.
    """

    def __init__(self, to_row: Callable[[Agent], Row]) -> None:
        self._to_row = to_row
        self._known: dict[tuple[Raw, tuple[int, int]], Row] = {}

    def of(self, agents: QuerySet[Agent], done: Done) -> list[Row]:
        """Sorted by `agent_id`, each with how many tasks it completed and failed this hour."""
        keys = [(raw, done.get(raw[AGENT_ID], NOTHING)) for raw in fetch(agents.order_by())]
        found = {key: self._known.get(key) for key in keys}
        new = [key for key, row in found.items() if row is None]
        titles = titles_of({raw[TASK_ID] for raw, _ in new} - {None})
        self._known = {
            key: row if row is not None else self._row(*key, titles) for key, row in found.items()
        }
        return sorted(self._known.values(), key=BY_ID)

    def _row(self, raw: Raw, done: tuple[int, int], titles: Mapping[str, str]) -> Row:
        agent = as_model(Agent, raw)
        row = self._to_row(agent)
        row["current_task_title"] = titles.get(agent.current_task_id or "")
        row["completed_this_hour"], row["failed_this_hour"] = done
        return row


def titles_of(task_ids: Iterable[str]) -> dict[str, str]:
    """The beginning of each task's description, which never changes."""
    ids = list(task_ids)
    titles: dict[str, str] = {}
    for first in range(0, len(ids), TITLES_AT_ONCE):
        tasks = Task.objects.filter(task_id__in=ids[first : first + TITLES_AT_ONCE]).order_by()
        titles.update(tasks.values_list("task_id", Left("description", READ_MAX + 1)))
    return {task_id: short(description, TITLE_MAX) for task_id, description in titles.items()}


def _connected(agent: Agent) -> Row:
    return {
        "agent_id": agent.agent_id,
        "name": agent.name,
        "status": agent.status,
        "fsm_state": agent.fsm_state,
        "current_task_id": agent.current_task_id,
        "capabilities": agent.capabilities,
        "accepts": agent.accepts,
        "connected_at": millis(agent.connected_at),
        "last_state_change": millis(agent.last_state_change),
        "last_seen": millis(agent.last_seen),
    }


def _lost(agent: Agent) -> Row:
    return {
        "agent_id": agent.agent_id,
        "name": agent.name,
        "capabilities": agent.capabilities,
        "current_task_id": agent.current_task_id,
        "last_seen": millis(agent.disconnected_at),
    }


_connected_rows, _lost_rows = AgentRows(_connected), AgentRows(_lost)


def _agents(done: Done) -> list[Row]:
    return _connected_rows.of(Agent.objects.connected(), done)


def _offline_agents(moment: datetime, done: Done, named: Sequence[str]) -> list[Row]:
    """Agents that went offline recently, and those that the light names: the worker's window
    leaves out jumps of the clock, which are not known here."""
    since = moment - timedelta(seconds=settings.AGENTCOM_OFFLINE_WINDOW_S)
    lost = Agent.objects.lately_lost(since)
    if named:
        lost |= Agent.objects.lost().filter(agent_id__in=named)
    return _lost_rows.of(lost, done)


def _queue(moment: datetime) -> dict[str, Any]:
    queue = counts()
    return {**queue, "lanes": lanes(moment, queue["by_priority"])}


def _recent_completions() -> list[dict[str, Any]]:
    """Newest first; those of the same millisecond by id, so that the rows define the order."""
    rows = Completion.objects.order_by("-seq")[:LIST_MAX].values_list(
        "task_id",
        "agent_id",
        "duration_ms",
        "tokens_used",
        "completed_at",
        Left("description", READ_MAX + 1),
    )
    done = [
        {
            "task_id": task_id,
            "agent_id": agent_id,
            "description": short(description),
            "duration_ms": duration_ms,
            "tokens_used": tokens_used,
            "completed_at": millis(completed_at),
        }
        for task_id, agent_id, duration_ms, tokens_used, completed_at, description in rows
    ]
    return sorted(done, key=lambda row: (-row["completed_at"], row["task_id"]))


def _throughput(moment: datetime) -> dict[str, Any]:
    hour, durations = last_hour(moment), durations_of_last_hour(moment)
    return {
        "completed_last_hour": hour.completed,
        "failed_last_hour": hour.failed,
        "avg_completion_ms": round(hour.duration_ms / hour.completed) if hour.completed else 0,
        "p50_ms": percentile(durations, 0.5),
        "p95_ms": percentile(durations, 0.95),
        "total_tokens_hour": hour.tokens,
    }


# --- The difference of two snapshots

LISTS = {
    "agents": "agent_id",
    "offline_agents": "agent_id",
    "dead_letter_tasks": "id",
    "recent_completions": "task_id",
}
SECTIONS = ("seq", "health", "queue", "holds", "throughput")


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The content of a `patch` frame: changed sections whole, lists as upserts and removals."""
    patch = {name: new[name] for name in SECTIONS if old[name] != new[name]}
    for name, key in LISTS.items():
        before = {row[key]: row for row in old[name]}
        after = {row[key]: row for row in new[name]}
        upsert = [row for id_, row in after.items() if before.get(id_) != row]
        remove = [id_ for id_ in before if id_ not in after]
        if upsert or remove:
            patch[name] = {"upsert": upsert, "remove": remove}
    return patch
