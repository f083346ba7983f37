"""The kinds of journal entries: what each carries, and how people call it.

Each room has a table of its own kinds; `AGENTCOM_KINDS` in settings.py names the tables. What an
entry means elsewhere (read models, words on the page, the admin) is derived from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What every kind of entry has."""

    # by itself, as in a list of steps: "Taken back"
    step: str
    # what an agent does: "is working on" a task, or "connected"
    did: str = ""
    # what becomes of a task, where no agent is the subject: "was taken back"
    was: str = ""
    tone: str = ""  # "ok", "warning" or "critical", where it is not a neutral matter
    # The fields beside task, agent, actor and time, each named once: those that the dashboards'
    # events have too, and those of the journal alone. An entry has exactly these.
    shows: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    carries: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "carries", frozenset((*self.shows, *self.keeps)))


@cache
def kinds() -> Mapping[str, Kind]:
    """All of them, by name."""
    found: dict[str, Kind] = {}
    for path in settings.AGENTCOM_KINDS:
        table: Mapping[str, Kind] = import_string(path)
        twice = found.keys() & table.keys()
        assert not twice, f"{sorted(twice)} of {path} are there already"
        found.update(table)
    return found


def check_event(kind: str, data: Mapping[str, Any]) -> None:
    """Raises ValueError when the kind is unknown or its fields are not exactly as declared."""
    known = kinds().get(kind)
    if known is None or known.carries != data.keys():
        raise ValueError(f"event {kind!r} does not carry {sorted(data)}")
