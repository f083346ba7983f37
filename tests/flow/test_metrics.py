"""`GET /metrics` of a real hub: who gets it, and that its figures follow what happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from agentcom_client import AsyncHub
from lab.harness.hub import Hub
from tests.flow.conftest import AS_DESCRIBED, Join, Submit, View

SETTINGS = {"AGENTCOM_RECLAIM_GRACE_S": "0.3", "AGENTCOM_WORKER_TICK_S": "0.1"}

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
async def anonymous(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=hub.url, timeout=20, event_hooks=AS_DESCRIBED) as client:
        yield client


async def scrape(client: httpx.AsyncClient) -> Figures:
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of(figures: Figures, name: str, **labels: str) -> float:
    return figures[f"agentcom_{name}", frozenset(labels.items())]


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait, at most for the test's bound."""
    while not await is_so():  # noqa: ASYNC110 – what is asked is another process
        await asyncio.sleep(0.05)


class Change:
    """What differs between two scrapes."""

    def __init__(self, before: Figures, after: Figures) -> None:
        assert before.keys() == after.keys()
        self.before, self.after = before, after

    def __call__(self, name: str, **labels: str) -> float:
        return of(self.after, name, **labels) - of(self.before, name, **labels)


# --- Who gets them


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Proto": "https"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"Host": "hub.example.org"},
    ],
)
async def test_through_a_proxy_it_takes_a_token(
    anonymous: httpx.AsyncClient, api: httpx.AsyncClient, headers: dict[str, str]
):
    refused = await anonymous.get("/metrics", headers=headers)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert refused.json()["error"] == "unauthorized"
    wrong = await anonymous.get("/metrics", headers={**headers, "Authorization": "Bearer x"})
    assert wrong.status_code == 401
    assert (await api.get("/metrics", headers=headers)).status_code == 200


async def test_it_is_text_of_the_format_that_it_says(anonymous: httpx.AsyncClient):
    answer = await anonymous.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    head = await anonymous.head("/metrics")
    assert (head.status_code, head.content) == (200, b"")
    assert (await anonymous.post("/metrics")).status_code == 405
    assert (await anonymous.get("/metrics/")).status_code == 404


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("prefixed") / Path("data")
    with Hub(folder, AGENTCOM_PATH_PREFIX="/agentcom") as hub:
        yield hub


@pytest.mark.parametrize("path", ["/agentcom/metrics", "/metrics"])  # stripped by a proxy, or not
async def test_under_a_prefix(prefixed: Hub, path: str):
    async with httpx.AsyncClient(base_url=prefixed.url) as client:
        assert "agentcom_ready 1.0" in (await client.get(path)).text
        assert (await client.get("/health/ready")).status_code == 200


# --- What they say


async def test_every_series_is_there_at_the_first_scrape(prefixed: Hub, tmp_path: Path):
    with Hub(tmp_path / "new") as hub:
        async with httpx.AsyncClient(base_url=hub.url) as client:
            first, second = await scrape(client), await scrape(client)
    assert first.keys() == second.keys()
    assert of(first, "ready") == 1
    assert of(first, "health_light") == 0
    assert of(first, "worker_report_age_seconds") < 5
    assert of(first, "state_age_seconds") < 5


async def test_they_follow_the_tasks(api: httpx.AsyncClient, join: Join, submit: Submit):
    agent = await join()
    before = await scrape(api)
    await submit(agent.skill, priority="high")
    waiting = Change(before, await scrape(api))
    assert waiting("tasks", lane="high", status="assigned") == 1
    assert waiting("agents", state="assigned") == 1
    assert waiting("agents", state="idle") == -1
    task = await agent.accepted()
    await agent.say("task_complete", task, result={})
    done = Change(before, await scrape(api))
    assert done("tasks", lane="high", status="assigned") == 0
    assert done("tasks", lane="high", status="completed") == 1
    for kind in ("task_submitted", "task_assigned", "task_accepted", "task_complete"):
        assert done("events_total", kind=kind) == 1, kind
    assert done("task_duration_seconds_count") == 1
    assert done("task_duration_seconds_bucket", le="+Inf") == 1
    assert 0 <= done("task_duration_seconds_sum") < 30
    assert done("commands_total", outcome="committed") >= 3
    assert done("commit_seconds_count") >= 3
    assert done("commit_commands_sum") >= 3
    assert done("journal_known_seq") == done("journal_delivered_seq") == 4
    assert of(done.after, "journal_lag_seconds") == 0


async def test_the_oldest_task_of_a_lane_grows_old(api: httpx.AsyncClient, submit: Submit):
    began = time.monotonic()
    task_id = await submit("nobody has this", priority="urgent")
    await asyncio.sleep(0.2)
    figures = await scrape(api)
    assert of(figures, "tasks", lane="urgent", status="queued") == 1
    age_s = of(figures, "oldest_queued_task_age_seconds", lane="urgent")
    assert 0.2 <= age_s <= time.monotonic() - began + 0.1
    await api.post(f"/api/tasks/{task_id}/cancel")
    after = await scrape(api)
    assert of(after, "oldest_queued_task_age_seconds", lane="urgent") == 0


async def test_dead_letters_by_cause(api: httpx.AsyncClient, join: Join, submit: Submit):
    agent = await join()
    before = await scrape(api)
    await submit(agent.skill, max_retries=1)
    await agent.say("task_failed", await agent.accepted(), error="no")
    await submit(agent.skill, max_rejections=1)
    await agent.say("task_rejected", await agent.assigned(), reason="no")
    lost = await submit(agent.skill, max_reclaims=1)
    await agent.accepted()
    agent.connection.cut()
    await until_dead(api, lost)
    late = int((time.time() + 0.5) * 1000)
    await until_dead(api, await submit("nobody has this", complete_by=late))
    change = Change(before, await scrape(api))
    for cause in ("failed", "rejected", "disconnected", "expired"):
        assert change("dead_letters_total", cause=cause) == 1, cause
    assert change("events_total", kind="task_dead_letter") == 4
    assert change("reclaims_total", why="disconnected") == 1
    assert change("tasks", lane="normal", status="dead_letter") == 4


async def until_dead(api: httpx.AsyncClient, task_id: str) -> None:
    async def is_dead() -> bool:
        task = (await api.get(f"/api/tasks/{task_id}")).json()
        return bool(task["status"] == "dead_letter")

    await until(is_dead)


async def test_refused_commands_are_counted(api: httpx.AsyncClient, join: Join, submit: Submit):
    agent = await join()
    await submit(agent.skill)
    task = await agent.accepted()
    before = await scrape(api)
    with pytest.raises(Exception, match="stale_generation"):
        await agent.say("task_complete", task, result={}, generation=77)
    change = Change(before, await scrape(api))
    assert change("commands_total", outcome="refused") == 1
    assert change("commands_total", outcome="failed") == 0


async def test_sockets_by_kind(
    hub: Hub, api: httpx.AsyncClient, join: Join, view: View, client: AsyncHub
):
    before = await scrape(api)
    await join()
    await join()
    await view()
    async with connect(f"{hub.ws_url}/tasks") as waiter:
        await waiter.send('{"type": "ping"}')
        await waiter.recv()  # an answer: it is open on the hub's side too
        change = Change(before, await scrape(api))
        assert change("sockets", kind="agents") == 2
        assert change("sockets", kind="viewers") == 1
        assert change("sockets", kind="task_waiters") == 1

    async def has_left() -> bool:
        return not Change(before, await scrape(api))("sockets", kind="task_waiters")

    await until(has_left)


async def test_the_light_and_its_conditions(api: httpx.AsyncClient, submit: Submit):
    task_id = await submit("nobody has this", priority="low")
    hold = await api.post("/api/holds", json={"scope": "lane", "subject": "low", "reason": "r"})
    assert of(await scrape(api), "holds") == 1

    async def is_noticed() -> bool:
        return bool(of(await scrape(api), "health_condition", code="nobody_capable"))

    await until(is_noticed)
    assert of(await scrape(api), "health_light") == 1
    await api.post(f"/api/tasks/{task_id}/cancel")
    await api.delete(f"/api/holds/{hold.json()['id']}")


async def test_clients_choose_no_label(api: httpx.AsyncClient, join: Join, submit: Submit):
    """However many agents, needs and errors there are, there are as many series as before."""
    before = await scrape(api)
    for number in range(20):
        agent = await join(capabilities=[f"skill {number}", f'" {number}\n'])
        await submit(f"skill {number}", max_retries=1, priority=number % 4)
        await agent.say("task_failed", await agent.accepted(), error=f"error {number}")
    after = await scrape(api)
    assert after.keys() == before.keys()
    assert len(after) < 250
