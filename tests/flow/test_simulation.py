"""The simulated fleet at a real hub, while somebody cancels its tasks."""

from __future__ import annotations

import asyncio

import httpx

from fleet.simulator import Plan, Simulation
from lab.harness.hub import Hub
from tests.flow.test_cancel import cancel

SETTINGS = {"AGENTCOM_CANCEL_TIMEOUT_S": "0.5", "AGENTCOM_WORKER_TICK_S": "0.1"}


async def test_it_listens_to_cancels_and_counts_them(hub: Hub, api: httpx.AsyncClient):
    """Half of the fleet is deaf; each of its tasks is fenced off before it has been thought over,
    and the next one waits until then."""
    plan = Plan(
        url=hub.url,
        agents=2,
        rate=0,
        failure_rate=0,
        drop_rate=0,
        deaf_rate=0.5,
        think_ms=(1_000, 1_000),
        tasks=8,
        seed=1,
    )
    simulation = Simulation(plan, hub.tokens(plan.agent_ids))
    running = asyncio.create_task(simulation.run())
    by_agent = await tasks_of_all(api, plan)
    for task_id in by_agent.values():
        assert (await cancel(api, task_id))[0] == 202
    waiting = await with_status(api, "queued")
    assert (await cancel(api, waiting[0]))[0] == 200
    tally = await running
    assert (tally.submitted, tally.completed, tally.cancelled) == (8, 5, 3)
    assert sorted(await with_status(api, "cancelled")) == sorted([*by_agent.values(), waiting[0]])
    results = {
        agent_id: (await api.get(f"/api/tasks/{task_id}")).json()["result"]
        for agent_id, task_id in by_agent.items()
    }
    listens, deaf = plan.agent_ids
    assert results[listens]["summary"].startswith("Stopped")
    assert results[deaf] is None


async def tasks_of_all(api: httpx.AsyncClient, plan: Plan) -> dict[str, str]:
    """The task of each agent, once all have one that they have accepted."""
    while True:
        states = [
            (await api.get(f"/api/agents/{agent_id}/state")).json() for agent_id in plan.agent_ids
        ]
        if all(state.get("fsm_state") == "working" for state in states):
            return {state["agent_id"]: state["current_task_id"] for state in states}
        await asyncio.sleep(0.02)


async def with_status(api: httpx.AsyncClient, status: str) -> list[str]:
    tasks = (await api.get("/api/tasks", params={"status": status})).json()["tasks"]
    return [task["id"] for task in tasks]
