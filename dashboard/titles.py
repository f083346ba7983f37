"""What a task is called where there is little room."""

from __future__ import annotations

from collections.abc import Iterable

from dashboard.texts import short
from tasks.facts import Facts, read_facts

TITLE_MAX = 80  # characters


def title_of(task: Facts) -> str:
    """The beginning of its description, which never changes."""
    return short(task.description, TITLE_MAX)


def titles_of(task_ids: Iterable[str]) -> dict[str, str]:
    return {task_id: title_of(facts) for task_id, facts in read_facts(task_ids).items()}
