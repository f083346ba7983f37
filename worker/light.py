"""The health light over time: a condition shows at once and clears only after a while.

So an agent that keeps reconnecting is one incident, not a new one each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from django.conf import settings

from worker.connections import Connections
from worker.facts import gather
from worker.health import CHECKS, Condition, Facts, Report, judge
from worker.reports import LastReport
from worker.watch import Watch

V = TypeVar("V")

# In these conditions each subject clears separately: one agent may be offline for long while others
# disconnect and reconnect.
BY_SUBJECT = ("agent_offline", "agent_flapping", "agent_contested", "stuck_tasks")


class RecentFindings(Generic[V]):
    """Findings, each kept until it has not been found again for `AGENTCOM_HEALTH_CLEAR_S`."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[datetime, V]] = {}

    def add(self, found: Mapping[str, V], at: datetime) -> None:
        self._found |= {key: (at, value) for key, value in found.items()}

    def drop(self, keys: Iterable[str]) -> None:
        """These need not clear: somebody has dealt with them."""
        for key in keys:
            self._found.pop(key, None)

    def update(self, found: Mapping[str, V], now: datetime) -> dict[str, V]:
        """Add these findings. Give all that have not cleared."""
        self.add(found, now)
        # a finding from the future came from a wrong clock and is dropped
        self._found = {
            key: (at, value)
            for key, (at, value) in self._found.items()
            if at == now or timedelta(0) < now - at < clears_after()
        }
        return {key: value for key, (_, value) in self._found.items()}


class Light:
    """Judges health at each tick. A new worker continues from the last report."""

    def __init__(self) -> None:
        self._connections = Connections()
        self._judged_at: datetime | None = None
        self._conditions: RecentFindings[Condition] = RecentFindings()
        self._offline: RecentFindings[None] = RecentFindings()
        self._flapping: RecentFindings[None] = RecentFindings()
        self._contested: RecentFindings[None] = RecentFindings()
        self._stuck: RecentFindings[str] = RecentFindings()

    def report(self, last: LastReport, now: datetime, watch: Watch) -> Report:
        forgotten = self._connections.read_new(now)
        for recent in (self._offline, self._flapping, self._contested):
            recent.drop(forgotten)
        return self.judge(gather(now, watch, self._connections), last, now)

    def judge(self, facts: Facts, last: LastReport, now: datetime) -> Report:
        if self._judged_at is None or now - self._judged_at > clears_after():
            self._conditions.add(_by_code(last.report), last.reported_at)
        self._judged_at = now
        found = _by_code(judge(self._with_recent(facts, now), last.report, now))
        lasting = {code: found[code] for code in found if code not in BY_SUBJECT}
        shown = {**self._conditions.update(lasting, now), **found}
        return Report(tuple(shown[code] for code, _, _ in CHECKS if code in shown))

    def _with_recent(self, facts: Facts, now: datetime) -> Facts:
        def agents(recent: RecentFindings[None], found: Sequence[str]) -> list[str]:
            return list(recent.update(dict.fromkeys(found), now))

        return replace(
            facts,
            offline_agents=agents(self._offline, facts.offline_agents),
            flapping_agents=agents(self._flapping, facts.flapping_agents),
            contested_agents=agents(self._contested, facts.contested_agents),
            stuck_tasks=self._stuck.update(facts.stuck_tasks, now),
        )


def clears_after() -> timedelta:
    return timedelta(seconds=settings.AGENTCOM_HEALTH_CLEAR_S)


def _by_code(report: Report) -> dict[str, Condition]:
    return {condition.code: condition for condition in report.details}
