"""Agents whose process died: their sockets are gone, and no process recorded it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agentcom import actors
from agentcom.models import Node
from agentcom.work import Wanted, Work
from fleet.models import Agent, AgentState
from fleet.presence import go_offline


def orphans(silent_since: datetime, most: int) -> list[tuple[str, str]]:
    """Agent and process id of agents connected to a process that is dead or unknown."""
    beating = Node.objects.filter(heartbeat_at__gt=silent_since).values("id")
    connected = Agent.objects.connected()
    return list(connected.exclude(node__in=beating).values_list("agent_id", "node")[:most])


def dead_nodes(silent_since: datetime) -> list[str]:
    dead = Node.objects.filter(heartbeat_at__lte=silent_since)
    return list(dead.values_list("id", flat=True))


@dataclass(frozen=True, slots=True)
class MarkOffline:
    """Mark an agent of a dead process offline. Gives whether that was done.

    It is not done if the agent has reconnected to another process meanwhile, or if the process has
    turned out to be alive.
    """

    agent_id: str
    node: str
    silent_since: datetime
    actor = actors.WORKER

    def rows(self) -> Wanted:
        return [(Agent, [self.agent_id]), (Node, [self.node])]

    def apply(self, work: Work) -> bool:
        agent = work.get(Agent, self.agent_id)
        if agent is None or agent.node != self.node or agent.fsm_state == AgentState.OFFLINE:
            return False
        if _beats(work.get(Node, self.node), self.silent_since):
            return False
        go_offline(agent, work, signed_off=False, by_hub=True)
        return True


@dataclass(frozen=True, slots=True)
class ForgetNode:
    """Drop a dead process that no agent is connected to any more."""

    node: str
    silent_since: datetime
    actor = actors.WORKER

    def rows(self) -> Wanted:
        return [(Node, [self.node])]

    def apply(self, work: Work) -> None:
        node = work.get(Node, self.node)
        if node is not None and not _beats(node, self.silent_since):
            work.remove(node)


def _beats(node: Node | None, silent_since: datetime) -> bool:
    return node is not None and node.heartbeat_at > silent_since
