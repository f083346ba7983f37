"""Two web processes: the fleet's figures are the same in both, the others are their own."""

from __future__ import annotations

import asyncio

import httpx
from prometheus_client.parser import text_string_to_metric_families

from lab.harness.hub import Cluster, Server
from tests.cluster.conftest import Join, Submit, address

Figures = dict[str, float]


async def scrape(api: httpx.AsyncClient, web: Server) -> Figures:
    """By name and labels, as in a query."""
    answer = await api.get(f"{address(web)}/metrics")
    assert answer.status_code == 200
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sample.labels.items()): (
            sample.value
        )
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_both_count_the_whole_fleet_and_their_own_sockets(
    cluster: Cluster, join: Join, submit: Submit, api: httpx.AsyncClient
):
    here, there = cluster.webs
    before = [await scrape(api, web) for web in (here, there)]
    agent = await join(here)
    await submit(there, agent.skill)
    await agent.say("task_complete", await agent.accepted(), result={})

    async def grown(web: int, name: str) -> float:
        return (await scrape(api, cluster.webs[web]))[name] - before[web][name]

    for web in (0, 1):
        while await grown(web, "agentcom_events_total kind=task_complete") < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert await grown(web, "agentcom_tasks lane=normal status=completed") == 1
        assert await grown(web, "agentcom_task_duration_seconds_count") == 1
        assert await grown(web, "agentcom_agents state=idle") == 1
    assert await grown(0, "agentcom_sockets kind=agents") == 1
    assert await grown(1, "agentcom_sockets kind=agents") == 0
    # the worker is a third process, whose report both have read
    for server in cluster.webs:
        assert (await scrape(api, server))["agentcom_worker_report_age_seconds"] < 10
