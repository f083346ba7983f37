"""Which tasks are to be reclaimed from their agents, and why."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Case, CharField, Exists, F, OuterRef, Q, Value, When

from fleet.models import Agent
from tasks.models import Status, Task
from tasks.queue import Reclaim
from worker.watch import LONG_AGO, Watch

AT_ONCE = 1000


def due(now: datetime, watch: Watch) -> list[Reclaim]:
    """At most `AT_ONCE` reclaims, found in one scan of the assigned tasks.

    Time in which no worker watched does not count. After it every agent has at least the grace
    period: when the hub restarts, agents reconnect one by one and continue with their tasks.
    """
    held = Task.objects.filter(status=Status.ASSIGNED)
    overdue = held.annotate(reason=_reason(now, watch)).exclude(reason=None)
    fields = overdue.values_list("task_id", "assigned_to", "generation", "reason")
    return [
        Reclaim(task_id, holder or "", generation, reason)
        for task_id, holder, generation, reason in fields[:AT_ONCE]
    ]


def _reason(now: datetime, watch: Watch) -> Case:
    grace_s = settings.AGENTCOM_RECLAIM_GRACE_S
    accept_s = settings.AGENTCOM_ACCEPT_TIMEOUT_S
    silence_s = settings.AGENTCOM_RECLAIM_AFTER_S

    def before(seconds: float) -> datetime:
        if watch.since > now - timedelta(seconds=min(seconds, grace_s)):
            return LONG_AGO
        return watch.ago(now, seconds)

    # a deadline is a fixed time, which pauses do not move; but a clock that has just jumped is not
    # trusted to say that it passed
    may_pass = watch.since <= now - timedelta(seconds=grace_s) and not watch.recent_jump(now)
    deadline = now if may_pass else LONG_AGO
    holder = Agent.objects.filter(agent_id=OuterRef("assigned_to"))
    gone = holder.offline().filter(disconnected_at__lte=before(grace_s))
    rules: list[tuple[Q, str]] = [
        (~Q(Exists(holder)), "the agent is unknown"),
        (Q(Exists(gone)), f"the agent was disconnected for {grace_s:g} s"),
        (
            Q(Exists(holder.filter(recovering_since__lte=before(accept_s)))),
            f"the agent reconnected but did not resume it within {accept_s:g} s",
        ),
        (
            Q(accepted_at=None, assigned_at__lte=before(accept_s)),
            f"not accepted within {accept_s:g} s",
        ),
        # an assignment that began after the deadline is exempt, or it would be reclaimed for ever
        (
            Q(complete_by__lte=deadline, assigned_at__lt=F("complete_by")),
            "not completed by its deadline",
        ),
        (
            Q(blocked_at=None, last_alive_at__lte=before(silence_s)),
            f"no sign of life or progress for {silence_s:g} s",
        ),
    ]
    return Case(
        *(When(rule, then=Value(reason)) for rule, reason in rules),
        default=None,
        output_field=CharField(null=True),
    )
