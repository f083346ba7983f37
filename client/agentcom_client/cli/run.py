"""`run`: any command is an agent."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from pathlib import Path
from typing import Any

from agentcom_client.agent import Agent
from agentcom_client.cli import exits
from agentcom_client.cli.output import DIM, GREEN, RED, YELLOW, complain, line, paint
from agentcom_client.command import GRACE_S, RETRY_AFTER_S, Command, UnsafeCommand
from agentcom_client.errors import NoRetry, Reject, RetryAfter
from agentcom_client.slot import Task

EPILOG = """\
The command gets each task as JSON on standard input and in variables: AGENTCOM_TASK_DESCRIPTION,
AGENTCOM_TASK_ID, AGENTCOM_TASK_METADATA (JSON), AGENTCOM_TASK_METADATA_key, … In an argument,
{description}, {task_id} and {metadata.key} are replaced; one argument stays one argument, and no
shell reads it.

What it prints is shown as progress. The last JSON object that it prints is the result, or else all
of its text. An exit code other than 0 fails the attempt, with the last lines of standard error.

examples:
  agentcom-client run -- claude -p {description} --output-format json
  agentcom-client run --capability review --concurrency 4 -- ./review.sh
  agentcom-client run --shell -- 'make -C "$AGENTCOM_TASK_METADATA_folder" test'
"""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="make an agent of any command",
        description="Connects as an agent, and runs the command for each task.",
        usage="agentcom-client run [options] -- COMMAND [ARGUMENT …]",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--capability",
        action="append",
        default=[],
        metavar="WORD",
        help="what it can do; may be repeated",
    )
    parser.add_argument("--name", help="for display")
    parser.add_argument(
        "--concurrency", type=int, default=1, metavar="N", help="so many tasks at once"
    )
    parser.add_argument(
        "--tasks", type=int, metavar="N", help="end after so many tasks (with --concurrency 1)"
    )
    parser.add_argument(
        "--timeout", type=float, metavar="S", help="stop a command that takes longer"
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=GRACE_S,
        metavar="S",
        help="between SIGTERM and SIGKILL, when a task is cancelled (%(default)g)",
    )
    parser.add_argument(
        "--heartbeat",
        type=float,
        metavar="S",
        help="send a sign of life so often: for commands that print nothing for longer than the"
        " hub allows. One that hangs is then noticed by --timeout only",
    )
    parser.add_argument(
        "--workdir-per-task",
        type=Path,
        metavar="FOLDER",
        dest="folders",
        help="run each task in FOLDER/TASK_ID",
    )
    parser.add_argument(
        "--retry-code",
        type=int,
        action="append",
        metavar="N",
        dest="retry_later",
        help="exit code for: try again later (75)",
    )
    parser.add_argument(
        "--retry-after",
        type=float,
        default=RETRY_AFTER_S,
        metavar="S",
        help="how much later that is (%(default)g)",
    )
    parser.add_argument(
        "--reject-code",
        type=int,
        action="append",
        default=[],
        metavar="N",
        dest="reject",
        help="exit code for: another agent should do it",
    )
    parser.add_argument(
        "--fatal-code",
        type=int,
        action="append",
        default=[],
        metavar="N",
        dest="no_retry",
        help="exit code for: no attempt can succeed",
    )
    parser.add_argument(
        "--allow-options",
        action="store_true",
        help="let an argument made of a task's text begin with a dash",
    )
    parser.add_argument("--shell", action="store_true", help="COMMAND is a single text for /bin/sh")
    parser.add_argument("argv", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not argv:
        complain("Say which command to run: agentcom-client run -- COMMAND …")
        return exits.USAGE
    if options.tasks is not None and options.concurrency != 1:
        complain("--tasks needs --concurrency 1: else it would give tasks back that have begun.")
        return exits.USAGE
    if os.name != "posix":
        complain("run needs process groups, which this system does not have.")
        return exits.USAGE
    try:
        command = Command(
            argv,
            is_shell=options.shell,
            timeout_s=options.timeout,
            grace_s=options.grace,
            retry_later=options.retry_later or (75,),
            retry_after_s=options.retry_after,
            reject=options.reject,
            no_retry=options.no_retry,
            folders=options.folders,
            allow_options=options.allow_options,
        )
        told = Told(options.tasks)
        agent = Agent(
            None,
            None,
            functools.partial(told.work, command),
            name=options.name,
            capabilities=options.capability,
            concurrency=options.concurrency,
            heartbeat_s=options.heartbeat,
            observe=told.observe,
        )
    except (UnsafeCommand, ValueError) as error:
        complain(str(error))
        return exits.USAGE
    told.agent = agent
    agent.serve()
    return exits.OK


class Told:
    """Says on standard error what becomes of each task, and ends after so many."""

    SETTLED = frozenset({"complete", "retried", "dead_letter", "cancelled", "requeued"})

    def __init__(self, most: int | None) -> None:
        self._left = most
        self.agent: Agent | None = None

    async def work(self, command: Command, task: Task) -> dict[str, Any]:
        self._say(f"{task.id} begins: {line(task.description)[:100]}")
        began = time.monotonic()
        try:
            result = await command(task)
        except Exception as error:
            took = f"after {time.monotonic() - began:.1f} s"
            kind = {Reject: "is rejected", RetryAfter: "is tried later", NoRetry: "fails for good"}
            said = kind.get(type(error), "fails")
            self._say(f"{task.id} {said} {took}: {line(str(error))[:200]}", RED)
            raise
        ended = "is done" if task.cancel is None else "was cancelled"
        colour = GREEN if task.cancel is None else YELLOW
        self._say(f"{task.id} {ended} after {time.monotonic() - began:.1f} s", colour)
        return result

    def observe(self, message: dict[str, Any]) -> None:
        match message:
            case {"type": "identified", "agent_id": agent_id}:
                self._say(f"{agent_id} is connected and waits for tasks. Ctrl-C ends it.", DIM)
            case {"type": "task_ack", "status": status} if status in self.SETTLED:
                if self._left is not None and self.agent is not None:
                    self._left -= 1
                    if self._left <= 0:
                        self.agent.stop_soon()

    def _say(self, sentence: str, colour: str | None = None) -> None:
        print(paint(sentence, colour, sys.stderr), file=sys.stderr, flush=True)
