"""`agentcom-client` for people and for scripts: what it prints, and its exit codes."""

from __future__ import annotations

import asyncio
import json
import stat
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agentcom_client import AsyncHub
from agentcom_client.cli.output import age
from agentcom_client.text import plain
from lab.harness.hub import Hub
from lab.harness.proxy import Proxy
from tests.client.conftest import Cli
from tests.flow.conftest import eventually

UPPER = ["--", "sh", "-c", 'printf %s "$AGENTCOM_TASK_DESCRIPTION" | tr a-z A-Z']
NO_TASK = "task-0000000000000000"


async def test_submit_waits_and_exits_by_the_outcome(cli: Cli, client: AsyncHub, skill: str):
    wanted = ["--capability", skill, "--wait"]
    async with cli.agent("--capability", skill, *UPPER):
        done = await cli("submit", "say hello", *wanted)
        assert (done.code, done.out, done.err) == (0, "SAY HELLO\n", "")
        read = await cli("submit", "-", *wanted, stdin="from\nstandard input")
        assert read.out == "FROM\nSTANDARD INPUT\n"
        described = await cli("submit", "x", *wanted, "--json", "--metadata", "n=1")
        task = json.loads(described.out)
        assert (task["status"], task["metadata"], task["result"]) == (
            "completed",
            {"n": 1},
            {"text": "X"},
        )
    async with cli.agent("--capability", skill, "--", "sh", "-c", "echo why >&2; exit 2"):
        failed = await cli("submit", "x", *wanted, "--max-retries", "1")
        assert (failed.code, failed.out) == (1, "")
        assert "is dead letter: exit code 2\nwhy" in failed.err
    waiting = await cli.start("submit", "x", *wanted)
    async for task_info in _until_one(client, skill):
        await client.cancel(task_info, "no more")
    out, err = await asyncio.wait_for(waiting.communicate(), 20)
    assert (waiting.returncode, out) == (6, b"")
    assert b"is cancelled: no more" in err
    late = await cli("submit", "x", *wanted, "--timeout", "0.3")
    assert late.code == 7
    assert "No longer waiting for task-" in late.err


async def _until_one(client: AsyncHub, skill: str) -> AsyncIterator[str]:
    while True:
        async for task in client.tasks(status="queued"):
            if task.needed_capabilities == [skill]:
                yield task.id
                return
        await asyncio.sleep(0.05)


async def test_a_file_of_tasks_is_submitted_and_waited_for(cli: Cli, skill: str):
    file = cli.folder / "tasks.jsonl"
    file.write_text('"first"\n\n{"description": "second", "priority": "high"}\n"third"\n')
    async with cli.agent("--capability", skill, *UPPER):
        batch = ["submit", "--batch-file", str(file), "--capability", skill, "--key", f"of {skill}"]
        ids = (await cli(*batch)).out.split()
        assert len(ids) == 3
        ended = await cli(*batch, "--wait", "--json")  # the same key: nothing is queued again
        assert ended.code == 0
        found = {task["id"]: task for task in map(json.loads, ended.out.splitlines())}
        assert [found[task_id]["result"]["text"] for task_id in ids] == ["FIRST", "SECOND", "THIRD"]
        shown = await cli(
            "submit", "--batch-file", "-", "--capability", skill, "--wait", stdin='"x"'
        )
        assert shown.out.split("\t")[1:] == ["completed", "X\n"]
    file.write_text('"good"\n{"description": "x", "priority": "soon"}\n')
    refused = await cli(*batch[:-2])
    assert refused.code == 2
    assert "Task 2 of the file is refused" in refused.err
    assert "priority: must be" in refused.err
    file.write_text("not json\n")
    assert "line 1: is not JSON" in (await cli(*batch)).err


async def test_tasks_are_shown_listed_cancelled_and_retried(cli: Cli, skill: str):
    about = ["--capability", skill, "--priority", "low", "--metadata", "pr=12"]
    task_id = (await cli("submit", "\x1b[31mRed\x1b[0m\nalert", *about)).out.strip()
    shown = (await cli("show", task_id)).out
    assert shown.startswith(f"{task_id} queued\nRed\nalert\n")
    assert "priority     low\n" in shown
    assert 'metadata     {"pr": 12}' in shown
    assert json.loads((await cli("show", task_id, "--json")).out)["id"] == task_id
    head, first = (await cli("tasks", "--limit", "1")).out.splitlines()
    assert head.split() == ["TASK", "STATUS", "PRIORITY", "AGE", "AGENT", "DESCRIPTION"]
    assert first.startswith(f"{task_id}  queued  low")
    assert first.endswith("Red alert")
    cancelled = await cli("cancel", task_id, NO_TASK, "--reason", "enough")
    assert (cancelled.code, cancelled.out) == (5, f"{task_id} cancelled\n")
    assert NO_TASK in cancelled.err
    listed = await cli("tasks", "--status", "cancelled", "--json", "--limit", "1")
    assert json.loads(listed.out)["cancel_reason"] == "enough"
    assert (await cli("retry", task_id)).out == f"{task_id} queued\n"
    assert (await cli("retry", task_id)).code == 5
    assert (await cli("cancel", task_id)).code == 0
    assert (await cli("tasks", "--agent", "nobody")).out == "There are no such tasks.\n"


async def test_login_keeps_a_token_that_only_its_owner_can_read(hub: Hub, cli: Cli):
    token = cli.environment.pop("AGENTCOM_TOKEN")
    url = cli.environment.pop("AGENTCOM_URL")
    nobody = await cli("tasks")
    assert (nobody.code, "agentcom-client login" in nobody.err) == (4, True)
    wrong = await cli("login", url, stdin="wrong\n")
    assert (wrong.code, (cli.folder / "client.json").exists()) == (4, False)
    kept = await cli("login", url.removeprefix("http://") + "/dashboard", stdin=f"{token}\n")
    assert kept.code == 0, kept.err
    assert "You are agent-" in kept.out
    assert stat.S_IMODE((cli.folder / "client.json").stat().st_mode) == 0o600
    assert (await cli("tasks")).code == 0
    # a code is worth a token, once, and what is kept stays when it is refused
    code = (await asyncio.to_thread(hub.manage, "token", "enrol", "enrolled")).strip()
    enrolled = await cli("login", url, "--code", code)
    assert (enrolled.code, "You are enrolled" in enrolled.out) == (0, True), enrolled.err
    again = await cli("login", url, "--code", code)
    assert (again.code, "used before" in again.err) == (4, True)
    assert "wrong" in (await cli("login", url, "--code", "enrol_x")).err
    assert (await cli("tasks")).code == 0
    # a token is sent to its own hub only
    assert (await cli("tasks", AGENTCOM_URL="http://127.0.0.1:1")).code == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit"],
        ["submit", "x", "--batch-file", "y"],
        ["submit", "x", "--metadata", "novalue"],
        ["submit", "x", "--priority", "soon"],
        ["submit", ""],
        ["submit", "--batch-file", "no such file"],
        ["no-such-command"],
        ["tasks", "--status", "sleeping"],
    ],
)
async def test_a_wrong_command_line_is_told(cli: Cli, arguments: list[str]):
    refused = await cli(*arguments)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err


async def test_a_hub_that_is_not_there_is_told(cli: Cli):
    lost = await cli("doctor", AGENTCOM_URL="http://127.0.0.1:1")
    assert (lost.code, "Is the hub running there?" in lost.out) == (3, True)
    lost = await cli("watch", "--once", AGENTCOM_URL="http://127.0.0.1:1")
    assert (lost.code, "does not answer" in lost.err) == (3, True)


async def test_watch_shows_the_fleet_and_its_events(
    cli: Cli, client: AsyncHub, skill: str, tmp_path: Path
):
    seen = tmp_path / "seen"
    work = f"while [ ! -e {seen} ]; do sleep 0.1; done; echo ok"
    async with cli.agent("--capability", skill, "--", "sh", "-c", work):
        watching = await cli.start("watch")
        await _until_it_prints(watching, client)
        task_id = await client.submit("Watch me", needed_capabilities=[skill])

        async def is_at_work() -> bool:
            return (await client.show(task_id)).status == "assigned"

        await eventually(is_at_work)
        once = await cli("watch", "--once")
        assert once.code == 0
        assert "1 running" in once.out
        name = (await client.show(task_id)).assigned_to
        row = next(row for row in once.out.splitlines() if row.startswith(str(name)))
        assert row.split()[1] in ("assigned", "working")
        assert row.endswith("Watch me")
        seen.touch()
        await client.wait(task_id, timeout_s=20)
        await asyncio.sleep(0.5)
        watching.terminate()
        out, _ = await watching.communicate()
    rows = [row.split() for row in out.decode().splitlines() if task_id in row]
    told = [kind for _, kind, *_ in rows if kind != "progress"]  # it may have said so, or not
    assert told[-3:] == ["assigned", "accepted", "complete"]


async def _until_it_prints(watching: Process, client: AsyncHub) -> None:
    assert watching.stdout is not None
    printed = asyncio.ensure_future(watching.stdout.readline())
    while not printed.done():
        task_id = await client.submit("x", needed_capabilities=["nobody has this"])
        await client.cancel(task_id)
        await asyncio.wait([printed], timeout=0.2)


async def test_doctor_finds_nothing_wrong_with_a_hub(cli: Cli):
    fine = await cli("doctor", "--json", "--idle", "0.2")
    found = [json.loads(row) for row in fine.out.splitlines()]
    assert fine.code == 0
    assert {finding["state"] for finding in found} == {"ok"}
    checks = [finding["check"] for finding in found]
    assert checks == ["address", "token", "clock", "version", "socket", "socket", "ping"]
    wrong = await cli("doctor", AGENTCOM_TOKEN="wrong")
    assert (wrong.code, "does not know this token" in wrong.out) == (4, True)


async def test_doctor_sees_a_proxy_that_takes_upgrade_out(hub: Hub, cli: Cli):
    async with without_upgrade(hub.port) as port:
        found = await cli("doctor", AGENTCOM_URL=f"http://127.0.0.1:{port}")
    assert found.code == 3
    assert "a proxy removes Upgrade from the handshake" in found.out


async def test_doctor_sees_a_proxy_that_closes_idle_sockets(hub: Hub, cli: Cli):
    with Proxy("127.0.0.1", hub.port) as wire:
        url = f"http://127.0.0.1:{wire.port}"
        checking = await cli.start("doctor", "--idle", "3", AGENTCOM_URL=url)
        assert checking.stdout is not None
        while b"/ws/tasks opens" not in await asyncio.wait_for(checking.stdout.readline(), 20):
            pass
        await asyncio.sleep(1)
        await asyncio.to_thread(wire.cut)
        out, _ = await asyncio.wait_for(checking.communicate(), 20)
    assert checking.returncode == 3
    assert b"raise the proxy's timeout" in out


async def test_doctor_sees_that_something_else_answers(cli: Cli):
    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(hello, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await cli("doctor", AGENTCOM_URL=f"http://127.0.0.1:{port}")
    assert (found.code, "something else than a hub" in found.out) == (3, True)


async def test_a_pipe_that_is_closed_early_is_no_fault(cli: Cli, client: AsyncHub, skill: str):
    await client.submit_many([{"description": "x" * 500, "needed_capabilities": [skill]}] * 300)
    listing = await cli.start("tasks", "--limit", "0", "--json")
    assert listing.stdout is not None
    await listing.stdout.readline()
    listing._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    assert listing.stderr is not None
    assert await asyncio.wait_for(listing.stderr.read(), 20) == b""
    assert await listing.wait() == 0


@asynccontextmanager
async def without_upgrade(hub_port: int) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        kept = [row for row in head.split(b"\r\n") if not row.lower().startswith(b"upgrade:")]
        back, onward = await asyncio.open_connection("127.0.0.1", hub_port)
        sent = b"\r\n".join(kept).replace(b"keep-alive", b"close")
        onward.write(sent.replace(b"Connection: Upgrade", b"Connection: close"))
        writer.write(await back.read())
        writer.close()
        onward.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def test_text_for_a_terminal_steers_nothing():
    assert plain("\x1b[2J\x1b]0;title\x07a\tb\nc\x00\x9b") == "a\tb\nc"


def test_an_age_is_short():
    assert [age(1, 1 + s * 1000) for s in (0, 59, 60, 7_200, 200_000)] == [
        "0 s",
        "59 s",
        "1 min",
        "2 h",
        "2 d",
    ]
