"""What viewers are shown: read from the database at one moment, and followed from the journal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from agentcom import database
from agentcom.journal import last_seq, read_after
from agentcom.models import Event
from agentcom_client.patches import fold
from dashboard.health import current_health
from dashboard.state.whole import Patches, Snapshot, State, read
from tasks import facts


def fresh(now: datetime | None = None) -> Snapshot:
    now = now or database.now()
    return _state(now).snapshot(last_seq(), now)


def shown(now: datetime | None = None) -> dict[str, Any]:
    return fresh(now).data


class Followed:
    """Two states that follow the journal: one by the entries as this process commits them, one as
    another process reads them; and a viewer that gets patches."""

    def __init__(self, now: datetime) -> None:
        self.own, self.other = _state(now), _state(now)
        self.seq = last_seq()
        self._patches = Patches()
        self._patches.take(self.own, self.seq, now)
        self._viewer = self._shown(self.own, now)

    def committed(self, events: Sequence[Event]) -> None:
        self.own.follow(events)

    def check(self, now: datetime) -> None:
        """Old state + events = fresh state; old view + patch = fresh view."""
        events = read_after(self.seq, facts.complete)
        self.other.follow(events)
        self.seq = last_seq()
        wanted = _timeless(shown(now))
        for state in (self.own, self.other):
            state.health = current_health(now)
            assert state.is_known, [type(part) for part in state.parts.values() if part.is_unknown]
            assert _timeless(self._shown(state, now)) == wanted, [event.kind for event in events]
        patch = orjson.loads(orjson.dumps(self._patches.take(self.own, self.seq, now)))
        self._viewer = fold(self._viewer, {"data": patch})
        assert _timeless(self._viewer) == wanted, patch

    def _shown(self, state: State, now: datetime) -> dict[str, Any]:
        return state.snapshot(self.seq, now).data


def _state(now: datetime) -> State:
    return State(read(now), current_health(now))


def _timeless(data: dict[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in data if name not in ("uptime_ms", "timestamp")}
