"""The worker's health reports: a new row when something changed, otherwise a refreshed one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from agentcom import actors
from agentcom.models import Event
from agentcom.work import Wanted, Work
from worker.health import Condition, Report, with_worker_silence
from worker.models import HealthReport

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LastReport:
    """The last report, and when a worker last confirmed it."""

    report: Report
    reported_at: datetime


def newest_report() -> LastReport:
    row = HealthReport.objects.first()
    if row is None:
        return LastReport(Report(), LONG_AGO)
    return LastReport(from_row(row), row.reported_at)


def last_times() -> tuple[datetime | None, datetime | None]:
    """When a worker last reported, and the latest time in the journal or a report."""
    reported = HealthReport.objects.values_list("reported_at", flat=True).first()
    written = Event.objects.values_list("at", flat=True).first()
    return reported, max((at for at in (reported, written) if at is not None), default=None)


@dataclass(frozen=True, slots=True)
class FileReport:
    """Gives whether readers see a change: a different report, or a worker that reports again."""

    report: Report
    now: datetime
    actor = actors.WORKER

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> bool:
        row = HealthReport.objects.first()
        if row is not None:
            row = work.track(row)
            if self.now < row.reported_at <= work.now:  # a later one: the clock was set back
                return False  # this worker's tick was delayed, and another worker has reported
            if with_worker_silence(from_row(row), row.reported_at, self.now) == self.report:
                row.reported_at = self.now
                return False
        work.append(
            HealthReport(
                status=self.report.status,
                details=wire_details(self.report),
                created_at=self.now,
                reported_at=self.now,
            )
        )
        work.emit("health_changed", status=self.report.status, conditions=self.report.conditions)
        return True


# --- How a report is stored


def from_row(row: HealthReport) -> Report:
    return Report(
        tuple(
            Condition(**{**detail, "subjects": tuple(detail["subjects"])}) for detail in row.details
        )
    )


def wire_details(report: Report) -> list[dict[str, Any]]:
    return [
        {**asdict(condition), "subjects": list(condition.subjects)} for condition in report.details
    ]
