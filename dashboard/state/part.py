"""What all parts of the state have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import ClassVar, Self

from agentcom.models import Event
from tasks.facts import Facts


class Unfit(Exception):
    """The entry does not say enough: the part has to be read again."""


class Part(ABC):
    """`read` runs in a reader's thread; everything else on the event loop.

    Old part + event = fresh part: a part that has applied an event is equal to one that is read
    from the database after the event's commit.
    """

    kinds: ClassVar[frozenset[str]]  # of the events that it applies

    def __init__(self) -> None:
        self.seq = 0  # it includes all events up to this one
        # it has to be read again: before it is shown the next time, or when there is time
        self.is_unknown = self.runs_low = False

    @classmethod
    @abstractmethod
    def read(cls, now: datetime) -> Self:
        """From the database, inside a transaction that reads all at one moment."""

    @abstractmethod
    def apply(self, event: Event) -> None:
        """Raises `Unfit`, or KeyError if the entry of an older version lacks a field."""

    def follow(self, event: Event) -> None:
        if event.kind not in self.kinds or event.seq <= self.seq or self.is_unknown:
            return
        try:
            self.apply(event)
        except (Unfit, KeyError):
            self.is_unknown = True


def facts_of(event: Event) -> Facts:
    if event.facts is None:
        raise Unfit(f"the task of entry {event.seq} was deleted meanwhile")
    return Facts(*event.facts)
