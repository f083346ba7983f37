"""How a viewer keeps its snapshot current."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Frame = dict[str, Any]

# Where the rows of a list are told apart, and their order.
KEYS = {
    "agents": "agent_id",
    "offline_agents": "agent_id",
    "dead_letter_tasks": "id",
    "recent_completions": "task_id",
}
ORDERS: dict[str, Callable[[Frame], Any]] = {
    "agents": lambda row: row["agent_id"],
    "offline_agents": lambda row: row["agent_id"],
    "dead_letter_tasks": lambda row: (-row["failed_at"], row["id"]),
    "recent_completions": lambda row: (-row["completed_at"], row["task_id"]),
}


def fold(snapshot: Frame, patch: Frame) -> Frame:
    """The snapshot after a `patch` frame."""
    folded = {**snapshot, **patch["data"]}
    for section in KEYS.keys() & patch["data"].keys():
        key, change = KEYS[section], patch["data"][section]
        rows = {row[key]: row for row in snapshot[section]}
        for gone in change["remove"]:
            del rows[gone]
        rows |= {row[key]: row for row in change["upsert"]}
        folded[section] = sorted(rows.values(), key=ORDERS[section])
    if window := patch["data"].get("agents_window"):
        folded["agents_window"] = _window_after(snapshot.get("agents_window"), window)
    return folded


def _window_after(old: Frame | None, new: Frame) -> Frame:
    """Of the rows in a window only those come that are not known yet."""
    rows = {row["agent_id"]: row for row in (*(old["rows"] if old else ()), *new["rows"])}
    return {**new, "rows": [rows[agent_id] for agent_id in new["ids"]]}
