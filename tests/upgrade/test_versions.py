"""Hub and client may differ by one version: the client of 0.1.0, unchanged, works for this hub; and
this client works for a hub that does not have what is new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentcom_client import Agent, AsyncHub, Refused
from lab.harness.hub import Hub
from lab.kit.fleet import running
from tests.flow.conftest import eventually
from tests.upgrade import client_0_1

pytestmark = pytest.mark.sqlite_only  # whatever the database: the sockets are the same

OLD, NEW = "old-agent", "new-agent"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub"), AGENTCOM_RETRY_BACKOFF_S="0") as hub:
        yield hub


@pytest.fixture(scope="module")
def tokens(hub: Hub) -> dict[str, str]:
    return hub.tokens([OLD, NEW])


@pytest.fixture
async def client(hub: Hub, tokens: dict[str, str]) -> AsyncIterator[AsyncHub]:
    async with AsyncHub(hub.url, tokens[NEW]) as client:
        yield client


async def test_the_old_client_does_fails_and_survives(
    hub: Hub, tokens: dict[str, str], client: AsyncHub
):
    may_end = asyncio.Event()

    async def work(task: client_0_1.Task) -> dict[str, Any]:
        await task.progress(50, "half way")
        match task.description:
            case "fail":
                raise RuntimeError("as wanted")
            case "reject":
                raise client_0_1.Reject("not mine")
            case "wait":
                await task.blocked("may I?")
                await may_end.wait()
                await task.unblocked()
        return {"heard": task.description, "tokens_used": 3}

    agent = client_0_1.Agent(hub.ws_url, OLD, tokens[OLD], work, capabilities=["old"])
    wanted: dict[str, Any] = {"needed_capabilities": ["old"], "max_retries": 1}
    async with running(agent):
        done = await client.wait(await client.submit("hello", **wanted), 20)
        assert (done.outcome(), done.tokens_used) == ({"heard": "hello", "tokens_used": 3}, 3)
        failed = await client.wait(await client.submit("fail", **wanted), 20)
        assert (failed.status, failed.last_error) == ("dead_letter", "as wanted")
        rejected = await client.submit("reject", **wanted, max_rejections=1)
        assert (await client.wait(rejected, 20)).status == "dead_letter"
        held = await client.submit("wait", **wanted)

        async def is_blocked() -> bool:
            states = {state["agent_id"]: state["fsm_state"] for state in await client.agents()}
            return bool(states[OLD] == "blocked")

        await eventually(is_blocked)
        agent.cut()
        hub.kill()
        hub.start()
        may_end.set()
        assert (await client.wait(held, 30)).outcome()["heard"] == "wait"
        assert (await client.show(held)).generation == 1
        # It cannot be asked to stop, so a cancelled task ends without it.
        may_end.clear()
        stubborn = await client.submit("wait", **wanted)
        await eventually(is_blocked)
        await client.cancel(stubborn, timeout_s=0.1)
        assert (await client.wait(stubborn, 20)).status == "cancelled"
        may_end.set()
        after = await client.wait(await client.submit("after", **wanted), 20)
        assert after.status == "completed"


async def test_a_hub_without_the_submitters_socket_is_asked_again_and_again(
    hub: Hub, tokens: dict[str, str], client: AsyncHub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agentcom_client.outcomes.POLL_S", 0.1)
    # A hub of before answers at the new address as this one does at one that is not known.
    monkeypatch.setattr(client._outcomes, "_url", f"{hub.ws_url}/nothing")
    task_ids = await client.submit_many(
        [{"description": "x", "needed_capabilities": ["nobody has this"]}] * 2
    )
    waiting = asyncio.ensure_future(client.wait_all(task_ids))
    await asyncio.sleep(0.3)
    for task_id in task_ids:
        await client.cancel(task_id)
    assert [task.status for task in await asyncio.wait_for(waiting, 20)] == ["cancelled"] * 2


async def test_a_hub_that_wants_a_name_gets_it(hub: Hub, tokens: dict[str, str], client: AsyncHub):
    """What older hubs need: `agent_id`, and no slots."""

    async def work(task: Any) -> dict[str, Any]:
        return {}

    agent = Agent(hub.url, tokens[NEW], work, agent_id=NEW, capabilities=["new"])
    async with running(agent):
        await client.run("x", needed_capabilities=["new"], timeout_s=20)
    with pytest.raises(Refused, match="token_agent_mismatch"):
        await Agent(hub.url, tokens[NEW], work, agent_id=OLD).run()


def test_the_old_client_is_the_one_of_0_1_0():
    """Its file is kept as it was published; what it lacks tells."""
    text = Path(client_0_1.__file__).read_text()
    assert "accepts" not in text
    assert "slot" not in text
