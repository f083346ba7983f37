"""The agents' HTTP API: who is connected, in which state, and whether the hub is well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from agentcom import __version__, actors
from agentcom.addresses import client_address
from agentcom.api import RETRY_AFTER_S, ApiView, MaySeeDashboardOrHasToken, json_answer
from agentcom.audit import acting
from agentcom.calls import RETRY_AFTER, Problem, call, problem
from agentcom.clock import clock
from agentcom.database import (
    ANSWER,
    Reader,
    checks,
    execute_all,
    millis,
    now,
    queries,
    viewers,
)
from agentcom.errors import Refused, Unavailable
from agentcom.redaction import masked_text
from agentcom.rights import ANYONE, KNOWN, Caller, Right
from agentcom.shapes import TEXT, shown
from agentcom.writer import writer
from fleet import shapes, waiting
from fleet.holds import MAX_HOLDS, LiftHold, PlaceHold, all_holds, read_hold
from fleet.models import Agent
from fleet.presence import connected_agents
from fleet.protocol import agent_json
from tasks.api import (
    MOVES_A_TASK,
    TASK_ID,
    TASK_NOT_FOUND,
    SteerView,
    change_priority,
    task_not_found,
)
from tasks.shapes import AGENT_ID

AGENT_NOT_FOUND = problem(
    404, "AgentNotFound", "No such agent.", "agent_not_found", {"agent_id": AGENT_ID}
)
HOLD_NOT_FOUND = problem(
    404,
    "HoldNotFound",
    "No such hold, or it has ended by itself.",
    "hold_not_found",
    {"hold_id": shapes.HOLD_ID_SAID},
)
TOO_MANY_HOLDS = problem(
    409,
    "TooManyHolds",
    f"There are {MAX_HOLDS:,} holds.",
    "too_many_holds",
    {"detail": shown(TEXT, f"there are {MAX_HOLDS:,} holds already")},
)
UNHEALTHY = Problem(
    503,
    "Unhealthy",
    "The database does not answer, changes cannot be committed, or the process is stopping.",
    shapes.UNHEALTHY,
    RETRY_AFTER,
)
READS_A_TASK = call(
    "read_task", Right.READ, {200: ("The task.", shapes.FULL_TASK)}, problems=[TASK_NOT_FOUND]
)


class WhoAmI(ApiView):
    @call("whoami", KNOWN, {200: ("Whose token it is.", shapes.WHOAMI)})
    async def get(self, request: Request) -> dict[str, Any]:
        """Ask whose token it is, and for the hub's version and clock."""
        assert self.caller is not None
        return {
            "name": self.caller.name,
            "kind": self.caller.grant.kind.value,
            "version": __version__,
            "timestamp": millis(clock.now()),
        }


class Agents(ApiView):
    permission_classes = [MaySeeDashboardOrHasToken]

    @call("list_agents", KNOWN, {200: ("The connected agents.", shapes.AGENTS)})
    async def get(self, request: Request) -> dict[str, Any]:
        """List the connected agents."""
        if self.caller:
            return {"agents": await queries.run(connected_agents)}
        agents = await viewers.run(connected_agents)
        return {"agents": [{**a, "status": masked_text(a["status"])} for a in agents]}


class OwnAgents(ApiView):
    def _may_see(self, agent_id: str) -> bool:
        return self.known.has_all_tasks or self.known.is_for(agent_id)


class AgentStates(OwnAgents):
    @call("list_agent_states", Right.READ, {200: ("All known agents.", shapes.AGENT_STATES)})
    async def get(self, request: Request) -> dict[str, Any]:
        """List all known agents, or the token's own, connected or not, with their full state."""
        states = await queries.run(agent_states)
        return {"agents": [state for state in states if self._may_see(state["agent_id"])]}


class AgentStateView(OwnAgents):
    parts = {"agent_id": shown(AGENT_ID, minLength=1)}

    @call(
        "read_agent_state",
        Right.READ,
        {200: ("The agent's full state.", shapes.AGENT_STATE)},
        problems=[AGENT_NOT_FOUND],
    )
    async def get(self, request: Request, agent_id: str) -> Any:
        """Read one agent's full state."""
        visible = agent_id.isprintable() and self._may_see(agent_id)
        state = await queries.run(agent_state, agent_id) if visible else None
        return state or json_answer({"error": "agent_not_found", "agent_id": agent_id}, 404)


class OneTask(SteerView):
    @READS_A_TASK
    async def get(self, request: Request, task_id: str) -> Any:
        """Read one task, with what happened to it and why it is not running."""
        return await one_task(task_id, queries, caller=self.known)

    @MOVES_A_TASK
    async def patch(self, request: Request, task_id: str) -> Any:
        """Move a task that does not run to another lane."""
        return await change_priority(self, request, task_id)


async def one_task(
    task_id: str,
    reader: Reader,
    read: Callable[[str], dict[str, Any] | None] = waiting.with_history,
    caller: Caller | None = None,
) -> Any:
    """For a person, or for a caller that may not see everything."""
    found = await reader.run(read, task_id) if TASK_ID.fullmatch(task_id) else None
    if found and caller and not caller.owns(found["submitted_by"], found["assigned_to"]):
        found = None
    return found or task_not_found(task_id)


class HoldList(ApiView):
    @call("list_holds", Right.READ_ALL, {200: ("The holds in force.", shapes.HOLDS)})
    async def get(self, request: Request) -> dict[str, Any]:
        """List the holds in force, the newest first."""
        return {"holds": await queries.run(lambda: all_holds(now()))}

    @call(
        "place_hold",
        Right.OPERATE,
        {201: ("The hold.", shapes.HOLD)},
        problems=[TOO_MANY_HOLDS],
        body=shapes.NEW_HOLD,
    )
    async def post(self, request: Request) -> HttpResponse:
        """Place a hold."""
        assert self.caller is not None
        given = read_hold(request.data)
        command = PlaceHold(actors.token(self.known.name), **given)
        hold = await acting.do(command, client_address(request.scope))
        return json_answer(hold, 201)


class OneHold(ApiView):
    parts = {"hold_id": shapes.HOLD_ID}

    @call(
        "lift_hold",
        Right.OPERATE,
        {200: ("It is lifted.", shapes.LIFTED)},
        problems=[HOLD_NOT_FOUND],
    )
    async def delete(self, request: Request, hold_id: str) -> Any:
        """Lift a hold."""
        assert self.caller is not None
        try:
            command = LiftHold(hold_id, actors.token(self.known.name))
            await acting.do(command, client_address(request.scope))
        except Unavailable:
            raise
        except Refused as refused:
            return json_answer({"error": refused.code, "hold_id": hold_id}, 404)
        return {"status": "lifted", "hold_id": hold_id}


class Health(ApiView):
    permission_classes = []
    authentication_classes = []

    @call("health", ANYONE, {200: ("The hub is well.", shapes.HEALTHY)}, problems=[UNHEALTHY])
    async def get(self, request: Request) -> HttpResponse:
        """Whether the hub is well."""
        try:
            count = await checks.run(Agent.objects.connected().count)
            if writer.trouble:
                raise Unavailable(writer.trouble)
        except Unavailable as unavailable:
            return unhealthy(unavailable.detail)
        return json_answer({"status": "ok", "service": "agentcom", "agents_connected": count})


class Live(ApiView):
    """Whether this process is alive, also while it shuts down. Uses neither database nor disk, so
    that nothing restarts a process because of a fault that a restart does not fix."""

    permission_classes = []
    authentication_classes = []

    @call("live", ANYONE, {200: ("The process answers.", shapes.ALIVE)})
    async def get(self, request: Request) -> dict[str, Any]:
        """Whether the process answers at all."""
        return {"status": "ok", "service": "agentcom"}


class Ready(ApiView):
    """Whether to send this process traffic. Asks the database once, and counts nothing."""

    permission_classes = []
    authentication_classes = []

    @call("ready", ANYONE, {200: ("It may.", shapes.ALIVE)}, problems=[UNHEALTHY])
    async def get(self, request: Request) -> HttpResponse:
        """Whether the process may get traffic."""
        try:
            await checks.run(execute_all, [ANSWER])
            if writer.trouble:
                raise Unavailable(writer.trouble)
        except Unavailable as unavailable:
            return unhealthy(unavailable.detail)
        return json_answer({"status": "ok", "service": "agentcom"})


def unhealthy(detail: str) -> HttpResponse:
    answer = {"status": "unavailable", "service": "agentcom", "detail": detail}
    response = json_answer(answer, 503)
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def agent_states() -> list[dict[str, Any]]:
    return [state_json(agent) for agent in Agent.objects.all()]


def agent_state(agent_id: str) -> dict[str, Any] | None:
    agent = Agent.objects.filter(agent_id=agent_id).first()
    return None if agent is None else state_json(agent)


def state_json(agent: Agent) -> dict[str, Any]:
    """Everything about an agent's state; times in ms."""
    return {
        **agent_json(agent),
        "current_task_id": agent.current_task_id,
        "flags": agent.flags,
        "accepts": agent.accepts,
        "last_state_change": millis(agent.last_state_change),
        "last_seen": millis(agent.last_seen),
        "disconnected_at": millis(agent.disconnected_at),
        "signed_off": agent.signed_off,
    }
