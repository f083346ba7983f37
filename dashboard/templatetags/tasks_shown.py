"""Filters of the panels that show tasks, and of their figures."""

from typing import Any

from django import template

register = template.Library()


@register.filter
def rate(per_minute: float | None) -> str:
    """Events per minute, with a decimal where they are few: `0`, `1.5`, `240`.

    format.js does the same.
    """
    if not isinstance(per_minute, int | float):
        return "–"
    if per_minute >= 10:
        return f"{int(per_minute + 0.5):,}"
    return f"{int(per_minute * 10 + 0.5) / 10:.1f}".removesuffix(".0")


@register.filter
def recent(snapshot: dict[str, Any]) -> list[dict[str, Any]]:
    """Completions and dead letters together, newest first. render/recent.js does the same."""
    done = [
        {**task, "outcome": "completed", "at": task["completed_at"]}
        for task in snapshot["recent_completions"]
    ]
    dead = [
        {**task, "task_id": task["id"], "outcome": "dead letter", "at": task["failed_at"]}
        for task in snapshot["dead_letter_tasks"]
    ]
    return sorted(done + dead, key=lambda task: (-task["at"], task["task_id"]))
