"""The light from one tick to the next: what is wrong shows at once, what is right after a while.

So an agent that comes and goes is one incident, and not one for each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from django.conf import settings

from worker.connections import Connections
from worker.facts import gather
from worker.health import CHECKS, Condition, Facts, Report, judge
from worker.reports import Filed
from worker.watch import Watch

V = TypeVar("V")

# Of these each subject is held for itself: while one agent is gone for long, another may flap.
BY_SUBJECT = ("agent_offline", "agent_flapping", "agent_contested", "stuck_tasks")


class Held(Generic[V]):
    """What was found, until it has not been found for `AGENTCOM_HEALTH_CLEAR_S`."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[datetime, V]] = {}

    def add(self, found: Mapping[str, V], at: datetime) -> None:
        self._found |= {key: (at, value) for key, value in found.items()}

    def with_these(self, found: Mapping[str, V], now: datetime) -> dict[str, V]:
        self.add(found, now)
        # what was found later than now is of a clock that was wrong
        self._found = {
            key: (at, value)
            for key, (at, value) in self._found.items()
            if at == now or timedelta(0) < now - at < clears_after()
        }
        return {key: value for key, (_, value) in self._found.items()}


class Light:
    """Judges at each tick. A new worker goes on from the last report."""

    def __init__(self) -> None:
        self._connections = Connections()
        self._judged_at: datetime | None = None
        self._conditions: Held[Condition] = Held()
        self._offline: Held[None] = Held()
        self._flapping: Held[None] = Held()
        self._contested: Held[None] = Held()
        self._stuck: Held[str] = Held()

    def report(self, last: Filed, now: datetime, watch: Watch) -> Report:
        self._connections.read_on(now)
        return self.judge(gather(now, watch, self._connections), last, now)

    def judge(self, facts: Facts, last: Filed, now: datetime) -> Report:
        if self._judged_at is None or now - self._judged_at > clears_after():
            self._conditions.add(_by_code(last.report), last.reported_at)
        self._judged_at = now
        found = _by_code(judge(self._with_held(facts, now), last.report, now))
        lasting = {code: found[code] for code in found if code not in BY_SUBJECT}
        shown = {**self._conditions.with_these(lasting, now), **found}
        return Report(tuple(shown[code] for code, _, _ in CHECKS if code in shown))

    def _with_held(self, facts: Facts, now: datetime) -> Facts:
        def agents(held: Held[None], found: Sequence[str]) -> list[str]:
            return list(held.with_these(dict.fromkeys(found), now))

        return replace(
            facts,
            offline_agents=agents(self._offline, facts.offline_agents),
            flapping_agents=agents(self._flapping, facts.flapping_agents),
            contested_agents=agents(self._contested, facts.contested_agents),
            stuck_tasks=self._stuck.with_these(facts.stuck_tasks, now),
        )


def clears_after() -> timedelta:
    return timedelta(seconds=settings.AGENTCOM_HEALTH_CLEAR_S)


def _by_code(report: Report) -> dict[str, Condition]:
    return {condition.code: condition for condition in report.details}
