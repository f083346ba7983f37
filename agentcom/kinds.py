"""The kinds of journal entries: what each carries, and its words for people.

Each room has a table of its own kinds; `AGENTCOM_KINDS` in settings.py lists the tables. The read
models, the words on the page and in the admin are derived from them.
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

    # on its own, as in a list of steps: "Taken back"
    step: str
    # what an agent does: "is working on" a task, or "connected"
    did: str = ""
    # what happens to a task, where no agent is the subject: "was taken back"
    was: str = ""
    tone: str = ""  # "ok", "warning" or "critical"; empty: neutral
    # The fields besides task, agent, actor and time; an entry has exactly these. `shows`: also in
    # the dashboards' events; `keeps`: in the journal only; `hides`: there too, for readers in
    # memory, and in no sentence for people.
    shows: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    carries: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "carries", frozenset((*self.shows, *self.keeps, *self.hides)))


@cache
def kinds() -> Mapping[str, Kind]:
    """All kinds, by name."""
    found: dict[str, Kind] = {}
    for path in settings.AGENTCOM_KINDS:
        table: Mapping[str, Kind] = import_string(path)
        twice = found.keys() & table.keys()
        assert not twice, f"{sorted(twice)} of {path} are defined twice"
        found.update(table)
    return found


def check_event(kind: str, data: Mapping[str, Any]) -> None:
    """Raises ValueError when the kind is unknown or its fields are not exactly as declared."""
    known = kinds().get(kind)
    if known is None or known.carries != data.keys():
        raise ValueError(f"event {kind!r} does not carry {sorted(data)}")
