"""`agentcom-client run`: any command is an agent. With real processes, signals and a real hub."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentcom_client import AsyncHub, TaskInfo
from agentcom_client.command import UnsafeCommand, check, last_object
from lab.harness.hub import Hub
from tests.client.conftest import Cli
from tests.flow.conftest import eventually

SETTINGS = {"AGENTCOM_RECLAIM_GRACE_S": "20", "AGENTCOM_WORKER_TICK_S": "0.2"}
NASTY = (
    "He said \"hi\"; 'it' $(touch pwned) `touch pwned` && touch pwned | cat > pwned\n"
    "new\tline \\ é 🙂 {task_id}"
)
ECHO = "import json, sys; print(json.dumps({'argv': sys.argv[1:], 'stdin': json.load(sys.stdin)}))"
PYTHON = "python3"


async def run(client: AsyncHub, skill: str, description: str = "x", **fields: Any) -> TaskInfo:
    task_id = await client.submit(description, needed_capabilities=[skill], **fields)
    return await client.wait(task_id, timeout_s=30)


async def until_said(client: AsyncHub, task_id: str, message: str) -> None:
    async def is_said() -> bool:
        history = (await client.show(task_id)).history
        return any(message == (entry["details"].get("message") or "") for entry in history)

    await eventually(is_said)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def resident_bytes(pid: int) -> int:
    return 4096 * int(Path(f"/proc/{pid}/statm").read_text().split()[1])


async def test_arguments_input_and_variables_have_the_task_as_it_is(
    cli: Cli, client: AsyncHub, skill: str
):
    script = cli.folder / "echo.py"
    script.write_text(ECHO)
    metadata = {"pr": 12, "deep": {"er": "a b"}, "text": "; touch pwned"}
    arguments = [
        "{description}",
        "about {metadata.pr}: {metadata.deep.er}",
        "{metadata.text}",
        "{x}",
    ]
    async with cli.agent("--capability", skill, "--", PYTHON, str(script), *arguments):
        task = await run(client, skill, NASTY, metadata=metadata)
    result = task.outcome()
    assert result["argv"] == [NASTY, "about 12: a b", "; touch pwned", "{x}"]
    given = result["stdin"]
    assert (given["task_id"], given["description"], given["metadata"]) == (task.id, NASTY, metadata)
    assert (given["generation"], given["agent_id"]) == (task.generation, task.assigned_to)
    assert not (cli.folder / "pwned").exists()


@pytest.mark.parametrize("in_shell", [False, True])
async def test_a_shell_reads_the_task_from_variables_and_runs_nothing_of_it(
    cli: Cli, client: AsyncHub, skill: str, in_shell: bool
):
    script = 'printf "%s|%s" "$AGENTCOM_TASK_DESCRIPTION" "$AGENTCOM_TASK_METADATA_key"'
    command = ["--shell", "--", script] if in_shell else ["--", "sh", "-c", script]
    async with cli.agent("--capability", skill, *command):
        task = await run(client, skill, NASTY, metadata={"key": "$(touch pwned)", "not-a name": 1})
    assert task.outcome() == {"text": f"{NASTY}|$(touch pwned)"}
    assert not (cli.folder / "pwned").exists()


@pytest.mark.parametrize(
    "argv",
    [
        ["sh", "-c", "echo {description}"],
        ["/bin/bash", "-lc", "echo {metadata.x}"],
        ["env", "A=b", "sh", "-ec", "echo {description}"],
        ["timeout", "5", "python3.12", "-c", "print('{description}')"],
        ["node", "--eval", "{description}"],
        ["ssh", "host", "claude", "-p", "{description}"],
        ["python3", "-cprint('{description}')"],
        ["node", "--eval={description}"],
        ["env", "-S", "claude {description}"],
        ["su", "me", "-c", "{description}"],
        ["{description}"],
    ],
)
async def test_a_command_that_would_run_a_tasks_text_is_refused(cli: Cli, argv: list[str]):
    with pytest.raises(UnsafeCommand):
        check(argv, is_shell=False)
    refused = await cli("run", "--", *argv)
    assert refused.code == 2
    assert "task" in refused.err


def test_harmless_commands_are_not_refused():
    check(["claude", "-p", "{description}", "--output-format", "json"], is_shell=False)
    check(["sh", "-c", 'exec "$@"', "sh", "{description}"], is_shell=False)
    check(["python3", "work.py", "{description}"], is_shell=False)
    check(["python3", "work.py", "--text={description}"], is_shell=False)
    check(["env", "A=b", "claude", "-p", "{description}"], is_shell=False)
    check(["codex", "exec", "{description}"], is_shell=False)
    with pytest.raises(UnsafeCommand):
        check(["echo {description}"], is_shell=True)
    with pytest.raises(UnsafeCommand):
        check(["echo", "hi"], is_shell=True)


async def test_a_text_that_looks_like_an_option_is_not_passed_as_one(
    cli: Cli, client: AsyncHub, skill: str
):
    echo = ["--", "printf", "%s", "{description}"]
    async with cli.agent("--capability", skill, *echo):
        task = await run(client, skill, "--help")
        assert task.status == "dead_letter"
        assert "could be read as an option" in str(task.last_error)
    async with cli.agent("--capability", skill, "--allow-options", *echo):
        assert (await run(client, skill, "- a list")).outcome() == {"text": "- a list"}


@pytest.mark.parametrize(
    ("printed", "result"),
    [
        ("just text\n", {"text": "just text"}),
        ("", {"text": ""}),
        ('working …\n{"a": 1}\n{"b": 2, "tokens_used": 7}\n', {"b": 2, "tokens_used": 7}),
        ('{\n  "a": {\n    "b": 1\n  }\n}\n', {"a": {"b": 1}}),
        ('{"a": 1}\nsome words {"b": 2}\n', {"a": 1}),
        ("[1, 2]\n{broken\n", {"text": "[1, 2]\n{broken"}),
        (
            '{"type": "result", "usage": {"input_tokens": 5, "output_tokens": 6}}',
            {"type": "result", "usage": {"input_tokens": 5, "output_tokens": 6}, "tokens_used": 11},
        ),
        ("\x1b[31mred\x1b[0m", {"text": "red"}),
    ],
)
async def test_what_it_prints_is_the_result(
    cli: Cli, client: AsyncHub, skill: str, printed: str, result: dict[str, Any]
):
    async with cli.agent("--capability", skill, "--", "printf", "%s", "{metadata.printed}"):
        task = await run(client, skill, metadata={"printed": printed})
    assert task.outcome() == result
    assert task.tokens_used == result.get("tokens_used")


def test_the_last_object_is_found_quickly_in_much_that_is_none():
    began = time.monotonic()
    assert last_object("{\n" * 100_000) is None
    assert last_object('{"a":' * 50_000) is None
    assert last_object("") is None
    assert time.monotonic() - began < 20  # not for ever; the bound is of the candidates


@pytest.mark.parametrize(
    ("script", "options", "status", "error"),
    [
        ("echo out; echo why >&2; exit 3", [], "dead_letter", "exit code 3\nwhy"),
        ("echo only out; exit 1", [], "dead_letter", "exit code 1\nonly out"),
        ("kill -9 $$", [], "dead_letter", "killed by SIGKILL"),
        ("exit 75", [], "scheduled", "exit code 75"),
        ("exit 9", ["--retry-code", "9", "--retry-after", "900"], "scheduled", "exit code 9"),
        ("exit 9", ["--fatal-code", "9"], "dead_letter", "exit code 9"),
        ("sleep 60", ["--timeout", "0.5"], "dead_letter", "it took longer than 0.5 s"),
    ],
)
async def test_a_failure_says_why(
    cli: Cli, client: AsyncHub, skill: str, script: str, options: list[str], status: str, error: str
):
    attempts = 3 if status == "scheduled" or "--fatal-code" in options else 1
    async with cli.agent("--capability", skill, *options, "--", "sh", "-c", script):
        task_id = await client.submit("x", needed_capabilities=[skill], max_retries=attempts)

        async def has_come() -> bool:
            return (await client.show(task_id)).status == status

        await eventually(has_come)
        task = await client.show(task_id)
    assert (task.last_error, task.retry_count) == (error, 1)
    if "--retry-after" in options:
        assert task.not_before is not None
        assert task.not_before / 1000 - time.time() > 600


async def test_a_rejected_task_goes_to_another_agent(
    hub: Hub, cli: Cli, client: AsyncHub, identities: Iterator[tuple[str, str]], skill: str
):
    other = Cli(hub.url, next(identities)[1], cli.folder)
    script = "exit 7"
    async with cli.agent("--capability", skill, "--reject-code", "7", "--", "sh", "-c", script):
        task_id = await client.submit("x", needed_capabilities=[skill])

        async def is_rejected() -> bool:
            history = (await client.show(task_id)).history
            return any(entry["event"] == "task_rejected" for entry in history)

        await eventually(is_rejected)
    async with other.agent("--capability", skill, "--", "echo", "done"):
        task = await client.wait(task_id, timeout_s=30)
    assert (task.outcome(), task.retry_count) == ({"text": "done"}, 0)


async def test_a_program_that_does_not_exist_fails_the_task(cli: Cli, client: AsyncHub, skill: str):
    async with cli.agent("--capability", skill, "--", "no-such-program"):
        task = await run(client, skill, max_retries=1)
    assert task.last_error == "no-such-program cannot be started: No such file or directory"


async def test_a_cancel_ends_the_group_and_keeps_what_was_printed(
    cli: Cli, client: AsyncHub, skill: str
):
    script = 'sleep 60 & echo $! > child; trap "echo so far; exit 1" TERM; echo begun; wait'
    async with cli.agent("--capability", skill, "--", "sh", "-c", script):
        task_id = await client.submit("x", needed_capabilities=[skill])
        await until_said(client, task_id, "begun")
        child = int((cli.folder / "child").read_text())
        assert is_running(child)
        began = time.monotonic()
        assert await client.cancel(task_id, "enough") == "cancelling"
        task = await client.wait(task_id, timeout_s=20)
        print(f"cancelled in {time.monotonic() - began:.2f} s")
        assert (task.status, task.result) == ("cancelled", {"text": "begun\nso far"})
        assert not is_running(child)


async def test_one_that_ignores_sigterm_is_killed_after_the_grace(
    cli: Cli, client: AsyncHub, skill: str
):
    script = 'trap "" TERM; echo $$ > pid; echo begun; while :; do sleep 0.1; done'
    async with cli.agent("--capability", skill, "--grace", "0.5", "--", "sh", "-c", script):
        task_id = await client.submit("x", needed_capabilities=[skill])
        await until_said(client, task_id, "begun")
        await client.cancel(task_id)
        task = await client.wait(task_id, timeout_s=20)
        kinds = [entry["event"] for entry in (await client.show(task_id)).history]
        assert task.status == "cancelled"
        assert kinds.count("task_cancelled") == 1
        assert not is_running(int((cli.folder / "pid").read_text()))


async def test_what_a_command_leaves_behind_ends_with_it(cli: Cli, client: AsyncHub, skill: str):
    """A background process holds its output open."""
    script = 'sleep 60 & echo $! > child; echo "{\\"done\\": true}"'
    async with cli.agent("--capability", skill, "--", "sh", "-c", script):
        task = await run(client, skill)
    assert task.outcome() == {"done": True}
    assert not is_running(int((cli.folder / "child").read_text()))


async def test_fifty_megabytes_of_output_need_no_memory(cli: Cli, client: AsyncHub, skill: str):
    script = "yes 'a line of forty characters, again and again' | head -c 50000000; echo; echo end"
    async with cli.agent("--capability", skill, "--", "sh", "-c", script) as agent:
        task_id = await client.submit("x", needed_capabilities=[skill])
        most = 0
        waiting = asyncio.ensure_future(client.wait(task_id, timeout_s=60))
        began = time.monotonic()
        while not waiting.done():
            most = max(most, resident_bytes(agent.pid))
            await asyncio.sleep(0.02)
        result = (await waiting).outcome()
        print(f"{time.monotonic() - began:.1f} s, at most {most / 1e6:.0f} MB")
    assert result["text"].endswith("again\nend") or result["text"].endswith("\nend")
    assert result["left_out_bytes"] > 49_000_000
    assert most < 150_000_000


async def test_a_command_that_does_not_read_its_task_is_welcome(
    cli: Cli, client: AsyncHub, skill: str
):
    async with cli.agent("--capability", skill, "--", "sh", "-c", "exec <&-; sleep 0.3; echo ok"):
        task = await run(client, skill, metadata={"much": "x" * 65_000})
    assert task.outcome() == {"text": "ok"}


async def test_it_goes_on_while_the_hub_is_killed_and_restarted(
    hub: Hub, cli: Cli, client: AsyncHub, skill: str
):
    script = "echo begun >> attempts; echo begun; sleep 4; echo done"
    async with cli.agent("--capability", skill, "--", "sh", "-c", script):
        task_id = await client.submit("x", needed_capabilities=[skill])
        await until_said(client, task_id, "begun")
        hub.kill()
        await asyncio.sleep(0.5)
        hub.start()
        task = await client.wait(task_id, timeout_s=60)
    assert task.outcome() == {"text": "begun\ndone"}
    assert (cli.folder / "attempts").read_text() == "begun\n"
    assert task.generation == 1


async def test_when_the_agent_is_killed_its_command_ends_too(
    cli: Cli, client: AsyncHub, skill: str
):
    """The hub gives the task to another agent: it must not be done twice."""
    script = "echo $$ > pid; sleep 60 & echo $! > child; echo begun; wait"
    async with cli.agent("--capability", skill, "--grace", "1", "--", "sh", "-c", script) as agent:
        task_id = await client.submit("x", needed_capabilities=[skill])
        await until_said(client, task_id, "begun")
        pids = [int((cli.folder / name).read_text()) for name in ("pid", "child")]
        assert all(map(is_running, pids))
        agent.kill()

        async def are_gone() -> bool:
            return not any(map(is_running, pids))

        await asyncio.wait_for(eventually(are_gone), 10)
    await client.cancel(task_id, timeout_s=0)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_one_that_is_stopped_gives_its_task_back(
    cli: Cli, client: AsyncHub, skill: str, signum: signal.Signals
):
    async with cli.agent("--capability", skill, "--", "sh", "-c", "echo begun; sleep 60") as agent:
        task_id = await client.submit("x", needed_capabilities=[skill])
        await until_said(client, task_id, "begun")
        agent.send_signal(signum)
        assert await asyncio.wait_for(agent.wait(), 20) == 0
    task = await client.show(task_id)
    assert (task.status, task.raw["reclaim_count"]) == ("queued", 0)
    await client.cancel(task_id)


async def test_each_task_may_have_a_folder_of_its_own(cli: Cli, client: AsyncHub, skill: str):
    options = ["--capability", skill, "--workdir-per-task", "work", "--concurrency", "2"]
    async with cli.agent(*options, "--", "sh", "-c", "pwd > here; cat here", slots=2):
        tasks = await asyncio.gather(run(client, skill), run(client, skill))
    for task in tasks:
        folder = cli.folder / "work" / task.id
        assert task.outcome()["text"] == str(folder)
        assert (folder / "here").exists()


async def test_it_may_end_after_so_many_tasks(cli: Cli, client: AsyncHub, skill: str):
    async with cli.agent("--capability", skill, "--tasks", "2", "--", "echo", "ok") as agent:
        tasks = [await run(client, skill), await run(client, skill)]
        assert await asyncio.wait_for(agent.wait(), 20) == 0
    assert [task.status for task in tasks] == ["completed"] * 2
    assert (await cli("run", "--tasks", "1", "--concurrency", "2", "--", "echo")).code == 2


async def test_a_heartbeat_keeps_a_silent_command_alive(cli: Cli, client: AsyncHub, skill: str):
    options = ["--capability", skill, "--heartbeat", "0.3"]
    async with cli.agent(*options, "--", "sh", "-c", "sleep 3; echo ok"):
        task = await run(client, skill, idle_timeout_s=1)
    assert (task.outcome(), task.generation) == ({"text": "ok"}, 1)


async def test_progress_is_the_last_line_and_a_repeated_one_is_a_sign_of_life(
    cli: Cli, client: AsyncHub, skill: str
):
    same = "for i in 1 2 3 4 5 6; do echo the same; sleep 0.5; done"
    script = f"{same}; printf 'x%.0s' $(seq 2000); sleep 1.5"
    async with cli.agent("--capability", skill, "--", "sh", "-c", script):
        task = await run(client, skill, idle_timeout_s=2)
    history = (await client.show(task.id)).history
    said = [e["details"]["message"] for e in history if e["event"] == "task_progress"]
    assert said[0] == "the same"
    assert said[-1] == "x" * 500
    assert task.generation == 1


async def test_nobody_without_a_token(cli: Cli):
    missing = await cli("run", "--", "echo", AGENTCOM_TOKEN="")
    assert missing.code == 4
    assert "agentcom-client login" in missing.err
    wrong = await cli("run", "--", "echo", AGENTCOM_TOKEN="wrong")
    assert (wrong.code, "invalid_token" in wrong.err) == (4, True)
    nothing = await cli("run", "--")
    assert nothing.code == 2
