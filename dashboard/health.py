"""The health light as clients get it: checked for its age, and with advice for each condition."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from worker.health import Condition, Report, moment, with_worker_silence
from worker.models import HealthReport
from worker.reports import from_row, wire_details

# What to do about each condition; docs/operations.md says more.
ADVICE = {
    "high_failure_rate": "Look at the dead letters: the most frequent cause shows where to begin.",
    "agent_offline": "Check on its machine whether the agent is running and why it stopped; "
    "forget it here if it will not come back.",
    "queue_growing": "Start more agents, or check in the queue which capability is missing.",
    "stuck_tasks": "Check what the agent is doing. A task that stays silent, or whose progress "
    "only repeats itself, is reclaimed automatically.",
    "agent_contested": "Give each process its own agent name and token, or stop all but one; its "
    "log shows close code 4409 each time another one takes over.",
    "agent_flapping": "Check in its log why the connection ends: a weak network, a process that "
    "crashes and is restarted, or a proxy that cuts idle sockets.",
    "nobody_connected": "Start an agent, or check in the agents' logs why none of them can "
    "connect.",
    "nobody_capable": "Start an agent with what is missing, or correct the tasks' needs; the "
    "queue shows which tasks wait for it.",
    "tasks_waiting": "Check in the queue which tasks wait and why; more urgent lanes always go "
    "first. Start more agents that can do them, or submit fewer tasks as urgent.",
    "agent_unresponsive": "Look at these agents' processes and restart them: they are connected, "
    "but do not answer.",
    "hold_old": "Lift the holds that are not needed any more.",
    "clock_jumped": "Make sure that exactly one time service sets the clock of the hub's machine, "
    "or of the database's. No old data is deleted until the clock has been steady for 10 minutes.",
    "files_scarce": "Raise the limit of open files (LimitNOFILE in systemd, ulimit -n in a shell) "
    "and restart the process; at the limit, new connections are reset.",
    "webhook_failing": "Look in the admin at what the receiver answered. When it is well again, "
    "switch the webhook on; what it missed waits for it.",
    "database_silent": "Check whether the database is running and reachable. Nothing that was "
    "acked is lost, and the hub resumes by itself when the database is available again.",
    "worker_silent": "Restart the worker, or check in its log what delays it; until then no task "
    "is reclaimed.",
}


def current_health(now: datetime) -> dict[str, Any]:
    """The current health, in wire form."""
    health, _ = read_health(now)
    return health


def read_health(now: datetime) -> tuple[dict[str, Any], datetime | None]:
    """The current health in wire form, and when a worker last reported, if any has."""
    row = HealthReport.objects.first()
    report, reported_at = (Report(), None) if row is None else (from_row(row), row.reported_at)
    return to_wire(with_worker_silence(report, reported_at, now)), reported_at


def subjects_of(code: str, health: dict[str, Any]) -> list[str]:
    """Whom a condition names; nobody where the light does not have it."""
    return [name for one in health["details"] if one["code"] == code for name in one["subjects"]]


def with_database_silence(health: dict[str, Any], taken_at: int) -> dict[str, Any]:
    """The health of a snapshot from `taken_at` (ms) that cannot be refreshed, in wire form."""
    since = moment(datetime.fromtimestamp(taken_at / 1000, UTC))
    message = f"The database has not answered since {since}: what is shown is from then"
    silence = to_wire(Report((Condition("database_silent", "critical", message, taken_at),)))
    return {
        "status": silence["status"],
        "conditions": health["conditions"] + silence["conditions"],
        "details": health["details"] + silence["details"],
    }


def to_wire(report: Report) -> dict[str, Any]:
    return {
        "status": report.status,
        "conditions": report.conditions,
        "details": [
            {**detail, "advice": ADVICE[detail["code"]]} for detail in wire_details(report)
        ],
    }
