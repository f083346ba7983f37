"""The examples of client/, run as they are."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agentcom_client import AsyncHub
from lab.harness.hub import Hub
from lab.harness.store import ROOT
from tests.client.conftest import Cli
from tests.flow.conftest import eventually

EXAMPLES = ROOT / "client" / "examples"
# In the place of the SDK, which the tests do not install: what the example uses of it.
SDK = """
from types import SimpleNamespace as Some

class RateLimitError(Exception):
    response = Some(headers={"retry-after": "900"})

class BadRequestError(Exception):
    pass

class AsyncAnthropic:
    def __init__(self, max_retries):
        assert max_retries == 0
        self.messages = self

    async def create(self, model, max_tokens, messages):
        [message] = messages
        match message["content"]:
            case "too often":
                raise RateLimitError("slow down")
            case "too long":
                raise BadRequestError("prompt is too long")
        text = f"{model[:6]} heard: {message['content']}"
        usage = Some(input_tokens=3, output_tokens=4)
        return Some(content=[Some(type="text", text=text)], usage=usage)
"""


@asynccontextmanager
async def program(cli: Cli, name: str, **environment: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / name), env={**cli.environment, **environment}
    )
    try:
        yield
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def until(client: AsyncHub, task_id: str, status: str) -> None:
    async def is_so() -> bool:
        return (await client.show(task_id)).status == status

    await eventually(is_so)


async def test_the_agent_in_the_shell(cli: Cli, client: AsyncHub, skill: str):
    words = cli.folder / "words"
    words.write_text("one two three")
    options = ["--capability", skill, "--fatal-code", "65"]
    wanted: dict[str, Any] = {"needed_capabilities": [skill]}
    async with cli.agent(*options, "--", str(EXAMPLES / "agent.sh")):
        task_id = await client.submit("Count", metadata={"file": str(words)}, **wanted)
        assert (await client.wait(task_id, 20)).outcome() == {"words": 3}
        task_id = await client.submit("Count", metadata={"file": "missing"}, **wanted)
        task = await client.wait(task_id, 20)
    assert (task.last_error, task.retry_count) == ("exit code 65\nmissing cannot be read", 1)


async def test_the_asynchronous_agent(hub: Hub, cli: Cli, client: AsyncHub):
    async with program(cli, "async_agent.py"):
        wanted: dict[str, Any] = {"needed_capabilities": ["fetch"]}
        task_id = await client.submit(f"{hub.url}/health/live", **wanted)
        assert (await client.wait(task_id, 20)).outcome()["status"] == 200
        task = await client.wait(await client.submit("no address", **wanted), 20)
        assert (task.status, task.retry_count) == ("dead_letter", 1)


async def test_the_agent_with_threads(cli: Cli, client: AsyncHub):
    async with program(cli, "thread_agent.py"):
        wanted: dict[str, Any] = {"needed_capabilities": ["prime"]}
        assert await client.run("2500", timeout_s=20, **wanted) == {"prime": 22307}
        long = await client.submit("10000000", **wanted)
        await until(client, long, "assigned")
        await client.cancel(long)
        assert (await client.wait(long, 20)).status == "cancelled"


async def test_the_agent_with_a_language_model(cli: Cli, client: AsyncHub, tmp_path: Path):
    (tmp_path / "anthropic.py").write_text(SDK)
    async with program(cli, "llm_agent.py", PYTHONPATH=str(tmp_path)):
        wanted: dict[str, Any] = {"needed_capabilities": ["llm"]}
        task = await client.wait(await client.submit("hello", **wanted), 20)
        assert (task.outcome()["text"], task.tokens_used) == ("claude heard: hello", 7)
        task = await client.wait(await client.submit("too long", **wanted), 20)
        assert (task.status, task.last_error) == ("dead_letter", "prompt is too long")
        later = await client.submit("too often", **wanted)
        await until(client, later, "scheduled")
        assert (await client.show(later)).last_error == "slow down"
