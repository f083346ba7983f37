"""Collects the facts from which the worker judges the fleet's health."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Sum

from agentcom import actors
from agentcom.models import Node
from agentcom.work import Wanted, Work
from counters.throughput import last_hour
from fleet.models import Agent, AgentState, Hold
from tasks.models import Status, Tally, Task
from webhooks.standing import read_standing
from worker.connections import Connections
from worker.health import MANY, SAMPLES, Facts
from worker.models import QueueSample
from worker.waiting import find_waiting
from worker.watch import Watch

STOP_PATIENCE_S = 60  # for an agent to say that it has stopped, before it is a condition


def gather(now: datetime, watch: Watch, connections: Connections) -> Facts:
    hour = last_hour(now)
    waiting = find_waiting(now, watch)
    webhooks = read_standing(watch.ago(now, settings.AGENTCOM_WEBHOOK_LATE_S))
    return Facts(
        offline_agents=_offline_agents(
            watch.ago_with_pauses(now, settings.AGENTCOM_OFFLINE_WINDOW_S)
        ),
        queue_depths=_queue_depths(now),
        completed=hour.completed,
        failed=hour.failed,
        stuck_tasks=_stuck_tasks(watch.ago(now, settings.AGENTCOM_STUCK_AFTER_S)),
        flapping_agents=connections.flapping(now),
        contested_agents=connections.contested(now),
        late_lanes=waiting.late,
        nobody_connected=waiting.nobody_connected,
        unmet=waiting.unmet,
        unresponsive_agents=_unresponsive_agents(watch.ago(now, STOP_PATIENCE_S)),
        old_holds=_old_holds(now - timedelta(seconds=settings.AGENTCOM_HOLD_WARN_S)),
        clock_jump=watch.recent_jump(now),
        scarce_files=_scarce_files(now),
        failed_webhooks=webhooks.failed,
        late_webhooks=webhooks.late,
    )


def _offline_agents(since: datetime) -> list[str]:
    """Agents that went offline recently; after the window they count as retired."""
    lost = Agent.objects.lately_lost(since)
    ids = lost.order_by("-disconnected_at").values_list("agent_id", flat=True)
    return list(ids[: MANY + 1])


def _queue_depths(now: datetime) -> list[int]:
    """The last samples, oldest first; samples from before a pause of the worker show no trend."""
    since = now - timedelta(seconds=(SAMPLES + 1) * settings.AGENTCOM_QUEUE_SAMPLE_S)
    newest = QueueSample.objects.filter(at__gt=since, at__lte=now).order_by("-at")[:SAMPLES]
    return [sample.depth for sample in reversed(newest)]


def _stuck_tasks(silent_since: datetime) -> dict[str, str]:
    stuck = Task.objects.filter(
        status=Status.ASSIGNED, blocked_at=None, last_alive_at__lt=silent_since
    )
    holders = stuck.values_list("task_id", "assigned_to")[: MANY + 1]
    return {task_id: agent_id or "" for task_id, agent_id in holders}


def _unresponsive_agents(since: datetime) -> list[str]:
    stopping = Agent.objects.filter(fsm_state=AgentState.STOPPING, last_state_change__lte=since)
    silent = stopping | Agent.objects.filter(fsm_state=AgentState.UNRESPONSIVE)
    return list(silent.values_list("agent_id", flat=True)[: MANY + 1])


def _old_holds(since: datetime) -> dict[str, str]:
    return {hold.hold_id: hold.in_words() for hold in Hold.objects.filter(placed_at__lte=since)}


def _scarce_files(now: datetime) -> dict[str, int]:
    since = now - timedelta(seconds=settings.AGENTCOM_NODE_TIMEOUT_S)
    short = Node.objects.filter(scarce_files__gt=0, heartbeat_at__gt=since)
    return {str(node): node.scarce_files for node in short[: MANY + 1]}


# --- The queue's depth


def sample_is_due(now: datetime) -> bool:
    newest = QueueSample.objects.filter(at__lte=now).first()  # later ones: the clock was set back
    interval = timedelta(seconds=settings.AGENTCOM_QUEUE_SAMPLE_S)
    return newest is None or now - newest.at >= interval


@dataclass(frozen=True, slots=True)
class TakeSample:
    now: datetime
    actor = actors.WORKER

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> None:
        if not sample_is_due(self.now):
            return  # this worker's tick was delayed, and another worker took a sample meanwhile
        work.flush()  # so that the sum includes the earlier commands of this group
        depth = Tally.objects.filter(status=Status.QUEUED).aggregate(depth=Sum("count", default=0))
        work.append(QueueSample(at=self.now, depth=depth["depth"]))
