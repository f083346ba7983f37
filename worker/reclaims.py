"""Which tasks are to be taken back from their agents, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db.models import Case, CharField, Exists, F, OuterRef, Q, Value, When

from fleet.models import Agent, AgentState
from tasks.models import Status, Task
from tasks.queue import Reclaim

AT_ONCE = 1000
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def due(now: datetime, watching_since: datetime) -> list[Reclaim]:
    """At most `AT_ONCE` reclaims, found with one walk over the assigned tasks.

    What ran out while nobody watched gets the grace once more: after a restart of the hub the
    agents come back one by one, and go on with what they hold.
    """
    held = Task.objects.filter(status=Status.ASSIGNED)
    overdue = held.annotate(reason=_reason(now, watching_since)).exclude(reason=None)
    fields = overdue.values_list("task_id", "assigned_to", "generation", "reason")
    return [
        Reclaim(task_id, holder or "", generation, reason)
        for task_id, holder, generation, reason in fields[:AT_ONCE]
    ]


def _reason(now: datetime, watching_since: datetime) -> Case:
    grace_s = settings.AGENTCOM_RECLAIM_GRACE_S
    accept_s = settings.AGENTCOM_ACCEPT_TIMEOUT_S
    silence_s = settings.AGENTCOM_RECLAIM_AFTER_S

    def before(seconds: float) -> datetime:
        if watching_since > now - timedelta(seconds=min(seconds, grace_s)):
            return NEVER
        return now - timedelta(seconds=seconds)

    holder = Agent.objects.filter(agent_id=OuterRef("assigned_to"))
    gone = holder.filter(fsm_state=AgentState.OFFLINE, disconnected_at__lte=before(grace_s))
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
            Q(complete_by__lte=now, assigned_at__lt=F("complete_by")),
            "not completed by its deadline",
        ),
        (
            Q(blocked_at=None, last_alive_at__lte=before(silence_s)),
            f"no sign of life for {silence_s:g} s",
        ),
    ]
    return Case(
        *(When(rule, then=Value(reason)) for rule, reason in rules),
        default=None,
        output_field=CharField(null=True),
    )
