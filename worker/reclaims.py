"""Which tasks are to be reclaimed from their agents, and why; and which have expired."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Case, CharField, Exists, F, OuterRef, Q, Value, When

from fleet.models import Agent
from tasks.models import Status, Task
from tasks.queue import Reclaim, Why
from tasks.steering import Expire, expirable
from worker.watch import LONG_AGO, Watch

AT_ONCE = 1000

# An agent that took a task with it counts against the task, see `Task.lose_agent`.
LOST = {Why.UNKNOWN, Why.DISCONNECTED, Why.NOT_RESUMED, Why.NOT_ACCEPTED, Why.SILENT, Why.TOO_LONG}
# but not if the hub itself broke the connection
BY_HUB = {Why.DISCONNECTED, Why.NOT_RESUMED}


def due(now: datetime, watch: Watch) -> list[Reclaim]:
    """At most `AT_ONCE` reclaims, found in one scan of the assigned tasks.

    Time in which no worker watched does not count. After it every agent has at least the grace
    period: when the hub restarts, agents reconnect one by one and continue with their tasks.
    """
    return [*_by_settings(now, watch), *_by_own_limits(now, watch)][:AT_ONCE]


def expired(now: datetime, watch: Watch) -> list[Expire]:
    """Waiting tasks whose deadline has passed."""
    return [Expire(task_id) for task_id in expirable(_passed_deadline(now, watch), AT_ONCE)]


def _by_settings(now: datetime, watch: Watch) -> Iterator[Reclaim]:
    held = Task.objects.filter(status=Status.ASSIGNED)
    by_hub = Agent.objects.filter(agent_id=OuterRef("assigned_to"), dropped_by_hub=True)
    overdue = held.annotate(why=_why(now, watch), by_hub=Exists(by_hub)).exclude(why=None)
    fields = overdue.values_list("task_id", "assigned_to", "generation", "why", "by_hub")
    for task_id, holder, generation, why, dropped in fields[:AT_ONCE]:
        is_lost = why in LOST and not (dropped and why in BY_HUB)
        yield Reclaim(task_id, holder or "", generation, _sentences()[why], Why(why), is_lost)


def _by_own_limits(now: datetime, watch: Watch) -> Iterator[Reclaim]:
    """Tasks that have limits of their own."""
    own = Q(idle_timeout_s__isnull=False) | Q(run_timeout_s__isnull=False)
    for task in Task.objects.filter(own, status=Status.ASSIGNED).only(*OWN_FIELDS):
        idle_s, run_s = task.idle_timeout_s, task.run_timeout_s
        if _is_past(task.accepted_at, run_s, now, watch):
            why, reason = Why.TOO_LONG, f"it ran for over {run_s:g} s"
        elif task.blocked_at is None and _is_past(task.last_alive_at, idle_s, now, watch):
            why, reason = Why.SILENT, _silence(idle_s or 0)
        else:
            continue
        yield Reclaim(task.task_id, task.assigned_to or "", task.generation, reason, why, True)


OWN_FIELDS = (
    *("task_id", "assigned_to", "generation", "idle_timeout_s", "run_timeout_s"),
    *("accepted_at", "blocked_at", "last_alive_at"),
)


def _is_past(since: datetime | None, limit_s: float | None, now: datetime, watch: Watch) -> bool:
    if since is None or limit_s is None:
        return False
    return since <= _before(limit_s, now, watch)


def _before(seconds: float, now: datetime, watch: Watch) -> datetime:
    if watch.since > now - timedelta(seconds=min(seconds, settings.AGENTCOM_RECLAIM_GRACE_S)):
        return LONG_AGO
    return watch.ago(now, seconds)


def _passed_deadline(now: datetime, watch: Watch) -> datetime:
    """Deadlines up to this moment have passed: they are fixed times, which pauses do not move, but
    a clock that has just jumped is not trusted to say so."""
    grace = timedelta(seconds=settings.AGENTCOM_RECLAIM_GRACE_S)
    may_pass = watch.since <= now - grace and not watch.recent_jump(now)
    return now if may_pass else LONG_AGO


def _why(now: datetime, watch: Watch) -> Case:
    grace_s = settings.AGENTCOM_RECLAIM_GRACE_S
    accept_s = settings.AGENTCOM_ACCEPT_TIMEOUT_S
    silence_s = settings.AGENTCOM_RECLAIM_AFTER_S

    def before(seconds: float) -> datetime:
        return _before(seconds, now, watch)

    holder = Agent.objects.filter(agent_id=OuterRef("assigned_to"))
    gone = holder.offline().filter(disconnected_at__lte=before(grace_s))
    rules: list[tuple[Q, Why]] = [
        (~Q(Exists(holder)), Why.UNKNOWN),
        (Q(Exists(gone)), Why.DISCONNECTED),
        (Q(Exists(holder.filter(recovering_since__lte=before(accept_s)))), Why.NOT_RESUMED),
        (Q(accepted_at=None, assigned_at__lte=before(accept_s)), Why.NOT_ACCEPTED),
        # an assignment that began after the deadline is exempt, or it would be reclaimed for ever
        (
            Q(complete_by__lte=_passed_deadline(now, watch), assigned_at__lt=F("complete_by")),
            Why.OVERDUE,
        ),
        (
            Q(idle_timeout_s=None, blocked_at=None, last_alive_at__lte=before(silence_s)),
            Why.SILENT,
        ),
    ]
    return Case(
        *(When(rule, then=Value(why.value)) for rule, why in rules),
        default=None,
        output_field=CharField(null=True),
    )


def _sentences() -> dict[str, str]:
    grace_s = settings.AGENTCOM_RECLAIM_GRACE_S
    accept_s = settings.AGENTCOM_ACCEPT_TIMEOUT_S
    return {
        Why.UNKNOWN: "the agent is unknown",
        Why.DISCONNECTED: f"the agent was disconnected for {grace_s:g} s",
        Why.NOT_RESUMED: f"the agent reconnected but did not resume it within {accept_s:g} s",
        Why.NOT_ACCEPTED: f"not accepted within {accept_s:g} s",
        Why.OVERDUE: "not completed by its deadline",
        Why.SILENT: _silence(settings.AGENTCOM_RECLAIM_AFTER_S),
    }


def _silence(seconds: float) -> str:
    return f"no sign of life or progress for {seconds:g} s"
