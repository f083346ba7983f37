"""Holds: what is handed out no more until a person lifts the hold, or until its time is over.

A held agent finishes what it has and gets nothing new. Claims read the holds inside their own
transaction, so none is crossed by any process from its commit on.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Q

from agentcom import actors
from agentcom.api import BadInput, read_body
from agentcom.audit.entries import Act, What
from agentcom.database import millis
from agentcom.errors import Refused
from agentcom.fields import Check, as_whole, takes, text, visible
from agentcom.shapes import one_of
from agentcom.work import Wanted, Work
from fleet.models import Hold, Scope
from fleet.names import MAX_ID
from tasks.models import Priority
from tasks.needs import needs_of
from tasks.serializers import check_deadline, check_priority

MAX_HOLDS = 1_000


def new_hold_id() -> str:
    return f"hold-{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class PlaceHold:
    """Gives the hold as JSON. Raises `Refused` "too_many_holds"."""

    actor: str
    scope: str
    subject: str  # a lane's name, a capability, an agent's id; empty for the hub
    reason: str
    until: datetime | None = None
    hold_id: str = field(default_factory=new_hold_id)

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> dict[str, Any]:
        work.flush()
        if Hold.objects.count() >= MAX_HOLDS:
            raise Refused("too_many_holds", f"there are {MAX_HOLDS:,} holds already")
        hold = Hold(
            hold_id=self.hold_id,
            scope=self.scope,
            subject=self.subject,
            reason=self.reason,
            placed_by=self.actor,
            placed_at=work.now,
            until=self.until,
        )
        work.add(hold)
        told = hold_json(hold)
        work.emit("hold_placed", agent_id=_agent_of(hold), hold=told)
        return told

    def act(self, result: Any = None) -> Act:
        on = f"on {self.scope} {self.subject}".strip()
        return Act(What.HOLD_PLACE, self.hold_id, self.reason, on)


@dataclass(frozen=True, slots=True)
class LiftHold:
    """Raises `Refused` "hold_not_found"."""

    hold_id: str
    actor: str

    def rows(self) -> Wanted:
        return [(Hold, [self.hold_id])]

    def apply(self, work: Work) -> None:
        hold = work.get(Hold, self.hold_id)
        if hold is None:
            raise Refused("hold_not_found")
        work.remove(hold)
        work.emit("hold_lifted", agent_id=_agent_of(hold), hold=hold_json(hold))

    def act(self, result: Any = None) -> Act:
        return Act(What.HOLD_LIFT, self.hold_id)


def ended(now: datetime) -> list[LiftHold]:
    """Those whose time is over. Claims ignore them already; this records it."""
    ids = Hold.objects.filter(until__lte=now).values_list("hold_id", flat=True)
    return [LiftHold(hold_id, actors.WORKER) for hold_id in ids]


@dataclass(frozen=True, slots=True)
class Holds:
    """The holds at one moment, each by its subject; of several the oldest."""

    hub: Hold | None = None
    lanes: Mapping[int, Hold] = field(default_factory=dict)
    capabilities: Mapping[str, Hold] = field(default_factory=dict)
    agents: Mapping[str, Hold] = field(default_factory=dict)

    @classmethod
    def at(cls, now: datetime) -> Holds:
        """Read from the database. Every claim does; mostly there is none, and the ORM would take a
        sixth of the claim's time to say so."""
        with connection.cursor() as cursor:
            cursor.execute(ANY_HOLD)
            if cursor.fetchone() is None:
                return NO_HOLDS
        return cls.of(Hold.objects.filter(Q(until=None) | Q(until__gt=now)).order_by("-placed_at"))

    @classmethod
    def of(cls, holds: Iterable[Hold]) -> Holds:
        by_scope: dict[str, dict[str, Hold]] = {scope: {} for scope in Scope.values}
        for hold in holds:
            by_scope[hold.scope][hold.subject] = hold
        return cls(
            hub=by_scope[Scope.HUB].get(""),
            lanes={LANES[lane]: hold for lane, hold in by_scope[Scope.LANE].items()},
            capabilities=by_scope[Scope.CAPABILITY],
            agents=by_scope[Scope.AGENT],
        )

    def on(self, lane: int, needs: str) -> Hold | None:
        """What holds the tasks of a lane with these needs, whichever agent could do them."""
        return self.hub or self.lanes.get(lane) or self._on_capability(needs)

    def _on_capability(self, needs: str) -> Hold | None:
        if not self.capabilities:
            return None
        held = self.capabilities.keys() & needs_of(needs).capabilities
        return self.capabilities[min(held)] if held else None

    def without_held(
        self, waiting: Iterable[tuple[int, Mapping[str, int]]]
    ) -> list[tuple[int, Mapping[str, int]]]:
        """What `waiting_needs` gives, without what is held."""
        if not (self.hub or self.lanes or self.capabilities):
            return list(waiting)
        return [
            (lane, {key: count for key, count in needs.items() if self.on(lane, key) is None})
            for lane, needs in waiting
        ]


# --- Reading requests


def read_hold(data: Any) -> dict[str, Any]:
    """The fields for `PlaceHold`. Raises `BadInput`."""
    given = read_body(data, HOLD_FIELDS, HOLD_NEEDED)
    return {**given, "subject": _checked_subject(given["scope"], given.get("subject"))}


def _checked_subject(scope: str, subject: str | None) -> str:
    if scope == Scope.HUB:
        if subject is not None:
            raise BadInput("subject", "must be left out for the hub")
        return ""
    if subject is None:
        raise BadInput("subject", "is required")
    try:
        return str(SUBJECTS[Scope(scope)](subject))
    except ValueError as error:
        raise BadInput("subject", str(error)) from None


@takes(one_of(Scope.values))
def _check_scope(value: Any) -> str:
    if value not in Scope.values:
        raise ValueError(f"must be one of {', '.join(Scope.values)}")
    return str(value)


@takes(check_priority.shape)
def _check_lane(value: Any) -> str:
    return Priority(check_priority(value)).name.lower()


MAX_REASON = 500  # characters
SUBJECTS: dict[Scope, Check] = {
    Scope.LANE: _check_lane,
    Scope.CAPABILITY: visible(text(64, min_length=1)),
    Scope.AGENT: visible(text(MAX_ID, min_length=1)),
}


@takes({"type": ["string", "integer"]})
def _check_subject(value: Any) -> Any:
    subject = as_whole(value)
    if isinstance(subject, bool) or not isinstance(subject, str | int):
        raise ValueError("must be a string")
    return subject


HOLD_FIELDS: dict[str, Check] = {
    "scope": _check_scope,
    "subject": _check_subject,
    "reason": visible(text(MAX_REASON, min_length=1)),
    "until": check_deadline,
}
HOLD_NEEDED = ("scope", "reason")

# --- As clients see them

NO_HOLDS = Holds()
ANY_HOLD = f"SELECT 1 FROM {Hold._meta.db_table} LIMIT 1"
LANES = {priority.name.lower(): int(priority) for priority in Priority}


def hold_json(hold: Hold) -> dict[str, Any]:
    """A hold as clients see it; times in ms."""
    return {
        "id": hold.hold_id,
        "scope": hold.scope,
        "subject": hold.subject or None,
        "reason": hold.reason,
        "placed_by": hold.placed_by,
        "placed_at": millis(hold.placed_at),
        "until": millis(hold.until),
    }


def all_holds(now: datetime) -> list[dict[str, Any]]:
    """The holds in force, the newest first."""
    held = Hold.objects.filter(Q(until=None) | Q(until__gt=now)).order_by("-placed_at", "hold_id")
    return [hold_json(hold) for hold in held]


def _agent_of(hold: Hold) -> str | None:
    return hold.subject if hold.scope == Scope.AGENT else None
