"""The newest completions and the newest dead letters."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from django.db.models.functions import Left

from agentcom.database import from_millis, millis
from agentcom.models import Event
from dashboard import dead_letters
from dashboard.state.part import Part, facts_of
from dashboard.texts import READ_MAX, short
from tasks.models import Completion, Status

LIST_MAX = 100  # shown of each
SPARE = 100  # more that are kept, to take the places of those that leave

Row = dict[str, Any]
Letter = tuple[datetime, int, Row]  # when the task died, its number


class Completions(Part):
    kinds = frozenset({"task_complete", "completions_pruned"})

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[Row] = []  # in the order of their events

    @classmethod
    def read(cls, now: datetime) -> Self:
        part = cls()
        newest = Completion.objects.order_by("-seq")[:LIST_MAX].values_list(
            "task_id",
            "agent_id",
            Left("description", READ_MAX + 1),
            "duration_ms",
            "tokens_used",
            "completed_at",
        )
        part._rows = [_completion(*columns) for columns in newest][::-1]
        return part

    def apply(self, event: Event) -> None:
        if event.kind == "completions_pruned":
            until = event.data["until"]
            self._rows = [row for row in self._rows if row["completed_at"] > until]
            return
        data = event.data
        done = (data["duration_ms"], data["tokens_used"] or 0, event.at)
        description = facts_of(event).description
        self._rows.append(
            _completion(event.task_id or "", event.agent_id or "", description, *done)
        )
        if len(self._rows) > LIST_MAX + SPARE:
            del self._rows[:-LIST_MAX]

    def newest(self) -> list[Row]:
        """Newest first; those of the same millisecond by id, so that the rows define the order."""
        newest = self._rows[-LIST_MAX:]
        return sorted(newest, key=lambda row: (-row["completed_at"], row["task_id"]))


def _completion(
    task_id: str,
    agent_id: str,
    description: str,
    duration_ms: int,
    tokens_used: int,
    completed_at: datetime,
) -> Row:
    return {
        "task_id": task_id,
        "agent_id": agent_id,
        "description": short(description),
        "duration_ms": duration_ms,
        "tokens_used": tokens_used,
        "completed_at": millis(completed_at),
    }


class DeadLetters(Part):
    kinds = frozenset({"task_dead_letter", "task_retried", "task_cancelled"})

    def __init__(self) -> None:
        super().__init__()
        self._letters: dict[str, Letter] = {}  # by the task's id
        self._are_all = True  # no older ones exist

    @classmethod
    def read(cls, now: datetime) -> Self:
        part = cls()
        for died_at, number, row in dead_letters.newest(LIST_MAX + SPARE):
            part._letters[row["id"]] = died_at, number, row
        part._are_all = len(part._letters) < LIST_MAX + SPARE
        return part

    def apply(self, event: Event) -> None:
        task_id = event.task_id or ""
        if event.kind == "task_dead_letter":
            self._letters[task_id] = _letter(event)
            if len(self._letters) > LIST_MAX + 2 * SPARE:
                self._drop_oldest()
        elif event.data["was"] == Status.DEAD_LETTER:
            self._letters.pop(task_id, None)
            if not self._are_all:
                self.runs_low = len(self._letters) < LIST_MAX + SPARE // 2
                self.is_unknown = len(self._letters) < LIST_MAX

    def _drop_oldest(self) -> None:
        kept = sorted(self._letters.values(), key=_newest_first)[: LIST_MAX + SPARE]
        self._letters = {row["id"]: (died_at, number, row) for died_at, number, row in kept}
        self._are_all = False

    def newest(self) -> list[Row]:
        """Newest first, with the same rule for those of the same millisecond."""
        newest = sorted(self._letters.values(), key=_newest_first)[:LIST_MAX]
        return sorted((row for *_, row in newest), key=lambda row: (-row["failed_at"], row["id"]))


def _letter(event: Event) -> Letter:
    facts, data = facts_of(event), event.data
    row = dead_letters.letter(
        event.task_id or "",
        facts.description,
        data["error"],
        data["retry_count"],
        from_millis(facts.created_at),
        event.at,
        data["assigned_to"],
    )
    return event.at, facts.number, row


def _newest_first(letter: Letter) -> tuple[float, int]:
    """As the database orders them: many may have died in one commit."""
    died_at, number, _ = letter
    return -died_at.timestamp(), number
