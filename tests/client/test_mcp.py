"""`agentcom-client mcp`, as a host uses it: the SDK's own client, a pipe, and a real hub."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp.types import TextContent

from agentcom_client import Agent, AsyncHub, Task
from lab.harness.hub import Hub
from lab.kit.fleet import running
from tests.client.conftest import Cli
from tests.flow.conftest import eventually

NO_TASK = "task-0000000000000000"
LONG = 100_000


class Refused(Exception):
    """The tool answered with an error; the message is what the model reads."""


class Model:
    """Calls tools and reads their structured answers, as a model would."""

    def __init__(self, session: ClientSession) -> None:
        self.session = session
        self.progress: list[float] = []
        self.said: str | None = None

    async def __call__(self, tool: str, **arguments: Any) -> Any:
        answer = await self.session.call_tool(tool, arguments, progress_callback=self._note)
        [content] = answer.content
        assert isinstance(content, TextContent)
        if answer.is_error:
            raise Refused(content.text)
        # Hosts without structured answers have the same as text.
        assert json.loads(content.text) == answer.structured_content
        return answer.structured_content

    async def _note(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append(progress)
        self.said = message


@asynccontextmanager
async def host(cli: Cli, **environment: str) -> AsyncIterator[Model]:
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "agentcom_client", "mcp"],
        env={**cli.environment, **environment},
        cwd=cli.folder,
    )
    with (cli.folder / "mcp.log").open("w") as log:
        async with (
            stdio_client(parameters, errlog=log) as (read, write),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            yield Model(session)


async def work(task: Task) -> dict[str, Any]:
    if task.metadata.get("fails"):
        raise RuntimeError("as wanted")
    if length := task.metadata.get("length"):
        return {"text": "x" * length}
    return {"text": task.description.upper()}


@asynccontextmanager
async def at_work(hub: Hub, identities: Iterator[tuple[str, str]], skill: str):
    _, token = next(identities)
    agent = Agent(hub.url, token, work, capabilities=[skill])
    async with running(agent):
        yield agent


async def test_tools_have_schemas_and_say_what_they_may_destroy(cli: Cli):
    async with host(cli) as model:
        tools = {tool.name: tool for tool in (await model.session.list_tools()).tools}
    assert set(tools) == {
        "submit_task", "wait_for_tasks", "show_task", "list_tasks", "cancel_task", "retry_task",
        "fleet",
    }  # fmt: skip
    for tool in tools.values():
        assert tool.description
        assert tool.output_schema
        assert tool.annotations
    hints = {name: tool.annotations for name, tool in tools.items() if tool.annotations}
    reads = {name for name, hint in hints.items() if hint.read_only_hint}
    assert reads == {"wait_for_tasks", "show_task", "list_tasks", "fleet"}
    assert {name for name, hint in hints.items() if hint.destructive_hint} == {"cancel_task"}
    fields = tools["submit_task"].input_schema["properties"]
    assert set(fields) == {
        "description", "priority", "needed_capabilities", "metadata", "max_retries", "not_before",
        "complete_by", "assign_to", "idempotency_key",
    }  # fmt: skip
    assert fields["priority"]["enum"] == ["urgent", "high", "normal", "low"]
    assert fields["description"]["maxLength"] == 16_384
    assert tools["submit_task"].input_schema["required"] == ["description"]
    assert "context" not in tools["wait_for_tasks"].input_schema["properties"]


async def test_a_model_submits_waits_and_reads(
    cli: Cli, hub: Hub, identities: Iterator[tuple[str, str]], skill: str
):
    async with host(cli) as model, at_work(hub, identities, skill) as agent:
        wanted: dict[str, Any] = {"needed_capabilities": [skill]}
        told = await model("submit_task", description="say hello", priority="high", **wanted)
        task_id = told["task_id"]
        keyed = {**wanted, "description": "x", "idempotency_key": "k"}
        other_id = (await model("submit_task", **keyed))["task_id"]
        assert (await model("submit_task", **keyed))["task_id"] == other_id
        waited = await model("wait_for_tasks", task_ids=[task_id, other_id, NO_TASK], timeout_s=20)
        ended = {task["task_id"]: task for task in waited["ended"]}
        assert ended[task_id]["status"] == "completed"
        assert ended[task_id]["result"] == {"text": "SAY HELLO"}
        assert (len(ended), waited["running"], waited["unknown"]) == (2, [], [NO_TASK])
        assert model.said == "3 of 3 tasks have ended"
        assert model.progress == sorted(set(model.progress))

        shown = await model("show_task", task_id=task_id)
        assert (shown["priority"], shown["assigned_to"]) == ("high", agent.agent_id)
        events = [entry["event"] for entry in shown["history"]]
        assert (events[0], events[-1]) == ("task_submitted", "task_complete")
        assert datetime.fromisoformat(shown["created_at"]) < datetime.now(UTC)

        listed = await model("list_tasks", status="completed", assigned_to=agent.agent_id)
        assert [task["id"] for task in listed["tasks"]] == [other_id, task_id]
        assert (await model("list_tasks", limit=1))["may_have_more"]

        fleet = await model("fleet")
        [me] = [each for each in fleet["agents"] if each["agent_id"] == agent.agent_id]
        assert (me["state"], me["capabilities"]) == ("idle", [skill])
        assert fleet["tasks_by_status"]["completed"] >= 2


async def test_what_waits_says_why_and_can_be_cancelled_and_retried(cli: Cli, skill: str):
    async with host(cli) as model:
        told = await model("submit_task", description="x", needed_capabilities=[skill])
        assert "agent" in told["waiting"]  # nobody is connected, or nobody can do it
        task_id = told["task_id"]
        waited = await model("wait_for_tasks", task_ids=[task_id], timeout_s=0.2)
        assert waited["ended"] == []
        assert waited["running"][0]["task_id"] == task_id
        assert waited["running"][0]["waiting"] == told["waiting"]
        with pytest.raises(Refused, match=f"{task_id} is queued. Only a dead_letter"):
            await model("retry_task", task_id=task_id)
        cancelled = await model("cancel_task", task_id=task_id, reason="no more")
        assert cancelled["status"] == "cancelled"
        [ended] = (await model("wait_for_tasks", task_ids=[task_id]))["ended"]
        assert (ended["status"], ended["error"]) == ("cancelled", "no more")
        assert (await model("retry_task", task_id=task_id))["status"] == "queued"
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        later = await model("submit_task", description="x", not_before=tomorrow.isoformat())
        assert later["status"] == "scheduled"
        await model("cancel_task", task_id=later["task_id"])
        await model("cancel_task", task_id=task_id)


async def test_failures_have_their_error(
    cli: Cli, hub: Hub, identities: Iterator[tuple[str, str]], skill: str
):
    async with host(cli) as model, at_work(hub, identities, skill):
        told = await model(
            "submit_task",
            description="x",
            needed_capabilities=[skill],
            metadata={"fails": True},
            max_retries=1,
        )
        [ended] = (await model("wait_for_tasks", task_ids=[told["task_id"]]))["ended"]
        assert (ended["status"], ended["error"]) == ("dead_letter", "as wanted")
        shown = await model("show_task", task_id=told["task_id"])
        assert (shown["failed_attempts"], shown["error"]) == (1, "as wanted")


async def test_long_texts_are_cut_and_can_be_read_on(
    cli: Cli, hub: Hub, identities: Iterator[tuple[str, str]], skill: str
):
    async with host(cli) as model, at_work(hub, identities, skill):
        told = await model(
            "submit_task",
            description="d" * 16_000,
            needed_capabilities=[skill],
            metadata={"length": LONG, "more": "m" * 50_000},
        )
        [ended] = (await model("wait_for_tasks", task_ids=[told["task_id"]]))["ended"]
        assert ended["result"] is None
        assert len(ended["result_part"]) < 25_000
        assert "show_task with result_offset=24000 gives the next" in ended["result_part"]
        read, offset, note = "", 0, "gives the next"
        while "gives the next" in note:
            shown = await model("show_task", task_id=told["task_id"], result_offset=offset)
            assert len(json.dumps(shown, ensure_ascii=False)) < 40_000
            part, _, note = shown["result_part"].rpartition(" […cut: ")
            read += part
            offset += len(part)
        assert json.loads(read) == {"text": "x" * LONG}
        assert "[…cut: the first 4000 of 16000 characters" in shown["description"]
        assert shown["metadata"] is None
        [listed] = (await model("list_tasks", limit=1))["tasks"]
        assert len(listed["description"]) < 400


async def test_errors_say_what_to_do(cli: Cli):
    async with host(cli) as model:
        for tool in ("show_task", "cancel_task", "retry_task"):
            with pytest.raises(Refused, match=f"There is no task {NO_TASK}"):
                await model(tool, task_id=NO_TASK)
        with pytest.raises(Refused, match="complete_by: must be in the future"):
            await model("submit_task", description="x", complete_by="2001-01-31T12:00:00Z")
        with pytest.raises(Refused, match=r"(?s)priority.*'urgent', 'high', 'normal' or 'low'"):
            await model("submit_task", description="x", priority="soon")
        with pytest.raises(Refused, match=r"(?s)prioritiy.*not permitted"):
            await model("submit_task", description="x", prioritiy="high")
        with pytest.raises(Refused, match="There is no task"):
            await model("show_task", task_id="../agents")
        with pytest.raises(Refused, match="task_ids"):
            await model("wait_for_tasks", task_ids=[])


async def test_a_hub_that_is_restarted_is_waited_for(
    cli: Cli, hub: Hub, identities: Iterator[tuple[str, str]], skill: str
):
    async with host(cli) as model:
        told = await model("submit_task", description="x", needed_capabilities=[skill])
        waiting = asyncio.ensure_future(
            model("wait_for_tasks", task_ids=[told["task_id"]], timeout_s=60)
        )
        await asyncio.to_thread(hub.terminate)
        showing = asyncio.ensure_future(model("show_task", task_id=told["task_id"]))
        await asyncio.to_thread(hub.start)
        assert (await showing)["status"] == "queued"
        async with at_work(hub, identities, skill):
            [ended] = (await waiting)["ended"]
        assert ended["result"] == {"text": "X"}


async def test_a_token_that_is_revoked_is_said_so(cli: Cli, hub: Hub):
    token = hub.token("short-lived")
    async with host(cli, AGENTCOM_TOKEN=token) as model:
        await model("fleet")
        hub.manage("token", "revoke", "short-lived")

        async def is_refused() -> bool:
            try:
                await model("fleet")
            except Refused as refused:
                return "no longer accepts the token" in str(refused)
            return False

        await eventually(is_refused)


async def test_nothing_but_the_protocol_is_on_standard_output(cli: Cli):
    request = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "by hand", "version": "1"},
        },
    }  # fmt: skip
    ended = await cli("--verbose", "mcp", stdin=json.dumps(request) + "\n")
    [line] = ended.out.splitlines()
    assert json.loads(line)["result"]["serverInfo"]["name"] == "agentcom"
    assert ended.code == 0


async def test_it_does_not_start_without_a_hub_and_a_token(cli: Cli, client: AsyncHub):
    for said, code, environment in (
        ("does not accept this token", 4, {"AGENTCOM_TOKEN": "wrong"}),
        ("There is no token", 4, {"AGENTCOM_TOKEN": ""}),
        ("does not answer", 3, {"AGENTCOM_URL": "http://127.0.0.1:9"}),
        ("There is no hub at this address", 3, {"AGENTCOM_URL": f"{client.url}/elsewhere"}),
    ):
        ended = await cli("mcp", **environment)
        assert (ended.code, ended.out) == (code, "")
        assert said in ended.err


async def test_without_the_extra_it_says_what_to_install(cli: Cli):
    (cli.folder / "mcp.py").write_text("")  # is found before the installed one
    ended = await cli("mcp")
    assert (ended.code, ended.out) == (2, "")
    assert 'pip install "agentcom-client[mcp]"' in ended.err
