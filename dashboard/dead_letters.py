"""Dead letters as operators see them: grouped by cause, and the tasks of one group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Count, Max, Min
from django.db.models.functions import Left

from agentcom.database import consistent_read, millis
from agentcom.redaction import masked_text
from dashboard.texts import READ_MAX as SHOWN_OF
from dashboard.texts import short
from tasks import listing
from tasks.causes import READ_MAX, cause_of
from tasks.models import Task

MAX_GROUPS = 100
MAX_AGENTS = 5  # named in a group


def groups() -> dict[str, Any]:
    """``{"groups": [{"group", "error", "count", "first_at", "last_at", "agents", "agent_count"}],
    "total"}``, the most recent first; times in ms."""
    with consistent_read():
        found = _counted()
        keys = [group["cause"] for group in found]
        errors, agents = _errors(keys), _agents(keys)
        total = listing.counts()["dead_letter"]
    rows = [
        {
            "group": group["cause"],
            "error": cause_of(masked_text(errors.get(group["cause"], ""))),
            "count": group["count"],
            "first_at": millis(group["first"]),
            "last_at": millis(group["last"]),
            "agents": agents[group["cause"]],
            "agent_count": group["holders"],
        }
        for group in found
    ]
    return {"groups": rows, "total": total}


def tasks_of(group: str, limit: int, cursor: tuple[int, ...] | None) -> dict[str, Any]:
    """``{"tasks", "count", "next_cursor"}``, the most recently failed first; times in ms."""
    return listing.dead_letters(
        limit, cursor, {"cause": group}, _letter_of, without=("metadata", "result")
    ).json()


def newest(count: int) -> list[tuple[datetime, int, dict[str, Any]]]:
    """When each task died, its number, and the letter; the newest first."""
    columns = [
        Left(name, SHOWN_OF + 1) if name in ("description", "last_error") else name
        for name in COLUMNS
    ]
    rows = listing.newest_dead()[:count].values_list("died_at", "number", *columns)
    return [(died_at, number, letter(*row)) for died_at, number, *row in rows]


COLUMNS = (
    *("task_id", "description", "last_error", "retry_count"),
    *("created_at", "died_at", "assigned_to"),
)


def letter(
    task_id: str,
    description: str,
    last_error: str | None,
    retry_count: int,
    created_at: datetime,
    died_at: datetime,
    agent_id: str | None,
) -> dict[str, Any]:
    """A task in the dead letter, in wire form; the parameters are its `COLUMNS`."""
    return {
        "id": task_id,
        "description": short(description),
        "last_error": short(last_error),
        "retry_count": retry_count,
        "created_at": millis(created_at),
        "failed_at": millis(died_at),
        "agent_id": agent_id,
    }


def _letter_of(task: Task) -> dict[str, Any]:
    return letter(*(getattr(task, name) for name in COLUMNS))


def _counted() -> list[Any]:
    """One scan of an index that covers the query."""
    dead = Task.objects.filter(died_at__isnull=False, cause__isnull=False).order_by()
    counted = dead.values("cause").annotate(
        count=Count("number"),
        first=Min("died_at"),
        last=Max("died_at"),
        holders=Count("assigned_to", distinct=True),
    )
    return list(counted.order_by("-last", "cause")[:MAX_GROUPS])


def _errors(keys: Sequence[str]) -> dict[str, str]:
    """The newest error of each group, as the agent reported it."""
    rows = _of_each(
        keys,
        f"SELECT cause, SUBSTR(last_error, 1, {READ_MAX}) FROM {_table()} "
        "WHERE cause = %s AND died_at IS NOT NULL ORDER BY died_at DESC, number LIMIT 1",
    )
    return {cause: error or "" for cause, error in rows}


def _agents(keys: Sequence[str]) -> dict[str, list[str]]:
    """The first agents of each group, by name."""
    agents: dict[str, list[str]] = defaultdict(list)
    rows = _of_each(
        keys,
        f"SELECT DISTINCT cause, assigned_to FROM {_table()} "
        "WHERE cause = %s AND died_at IS NOT NULL AND assigned_to IS NOT NULL "
        f"ORDER BY assigned_to LIMIT {MAX_AGENTS}",
    )
    for cause, agent_id in rows:
        agents[cause].append(agent_id)
    return agents


def _of_each(keys: Sequence[str], part: str) -> list[tuple[str, str]]:
    """The rows of one query per key, fetched in a single statement."""
    if not keys:
        return []
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join([f"SELECT * FROM ({part}) AS g"] * len(keys)), keys)
        return list(cursor.fetchall())


def _table() -> str:
    return connection.ops.quote_name(Task._meta.db_table)
