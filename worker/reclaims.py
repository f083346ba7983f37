"""Which tasks are to be taken back from their agents, and why."""

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
    """At most `AT_ONCE` reclaims, found with one walk over the assigned tasks.

    Time in which nobody watched does not count, and after it everybody has the grace at least:
    after a restart of the hub the agents come back one by one, and go on with what they hold.
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

    # a deadline is a time of day, which pauses do not move; but not on the word of a clock that
    # was set just now
    may_pass = watch.since <= now - timedelta(seconds=grace_s) and not watch.jumped_lately(now)
    deadline = now if may_pass else LONG_AGO
    holder = Agent.objects.filter(agent_id=OuterRef("assigned_to"))
    gone = holder.offline().filter(disconnected_at__lte=before(grace_s))
    rules: list[tuple[Q, str]] = [
        (~Q(Exists(holder)), "the agent is unknown"),
        (Q(Exists(gone)), f"the agent was gone for {grace_s:g} s"),
        (
            Q(Exists(holder.filter(recovering_since__lte=before(accept_s)))),
            f"the agent came back and did not go on with it within {accept_s:g} s",
        ),
        (
            Q(accepted_at=None, assigned_at__lte=before(accept_s)),
            f"not accepted within {accept_s:g} s",
        ),
        # an assignment that began after the deadline may take its time: no endless loop
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
