"""The health light as readers get it: judged again for its age, each condition with advice."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from worker.health import Condition, Report, moment, with_worker_silence
from worker.models import HealthReport
from worker.reports import from_row, wire_details

# What to do about each, for whoever sees it; docs/operations.md says more.
ADVICE = {
    "high_failure_rate": "Look at the dead letters: what many tasks died of shows where to begin.",
    "agent_offline": "See on its machine whether the agent runs and why it stopped; "
    "forget it here if it will not come back.",
    "queue_growing": "Start more agents, or see in the queue which capability is missing.",
    "stuck_tasks": "See what the agent is doing; a task that stays silent, or of which the same is "
    "said again and again, is taken back by itself.",
    "agent_contested": "Give each process an agent name and a token of its own, or stop all but "
    "one; its log shows close code 4409 each time the other one wins.",
    "agent_flapping": "See in its log why the connection ends: a weak network, a process that "
    "crashes and is started again, or a proxy that cuts idle sockets.",
    "nobody_connected": "Start an agent, or see in the agents' logs why none of them gets in.",
    "nobody_capable": "Start an agent with what is missing, or correct the tasks' needs; the queue "
    "shows which tasks wait for it.",
    "tasks_waiting": "See in the queue what waits and why; more urgent lanes always go first. "
    "Start more agents that can do it, or submit less as urgent.",
    "clock_jumped": "See that one time service keeps the clock of the hub's machine, or of the "
    "database's. Nothing old is dropped until it has been steady for 10 minutes.",
    "files_scarce": "Raise the limit of open files (LimitNOFILE in systemd, ulimit -n in a shell) "
    "and start the process again; at the limit, new connections are reset.",
    "database_silent": "See whether the database runs and can be reached. Nothing that was acked "
    "is lost, and everything goes on by itself when it is back.",
    "worker_silent": "Start the worker again, or see in its log what holds it up; until then "
    "nothing is taken back.",
}


def current_health(now: datetime) -> dict[str, Any]:
    """The light as it stands, in wire form."""
    row = HealthReport.objects.first()
    if row is None:
        return to_wire(with_worker_silence(Report(), None, now))
    return to_wire(with_worker_silence(from_row(row), row.reported_at, now))


def subjects_of(code: str, health: dict[str, Any]) -> list[str]:
    """Whom a condition names; nobody where the light does not have it."""
    return [name for one in health["details"] if one["code"] == code for name in one["subjects"]]


def with_database_silence(health: dict[str, Any], taken_at: int) -> dict[str, Any]:
    """The light of a snapshot of `taken_at` (ms) that cannot be renewed, in wire form as it is."""
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
