"""The command line, `agentcom-client`: agents and submitters without a line of code."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from agentcom_client import __version__
from agentcom_client.cli import doctor, login, mcp, run, run_django, steer, submit, watch
from agentcom_client.cli.exits import BY_ERROR, INTERRUPTED, OK, USAGE
from agentcom_client.cli.output import complain
from agentcom_client.errors import RequestRefused

EPILOG = """\
The hub's address and the token come from AGENTCOM_URL and AGENTCOM_TOKEN, or from `login`.

exit codes:
  0  done; with --wait: the task was completed
  1  the task failed for good: it is a dead letter
  2  the command line, or a value in it, is wrong
  3  the hub cannot be reached
  4  the hub does not accept the token, or there is none
  5  there is no such task, or it is too late for this
  6  the task was cancelled
  7  it took longer than --timeout; the task goes on
  130  Ctrl-C
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="agentcom-client",
        description="Connects commands and programs to an AgentCom hub.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"agentcom-client {__version__}")
    top.add_argument("--verbose", action="store_true", help="say what happens on the connections")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (login, run, run_django, submit, steer, watch, doctor, mcp):
        module.add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit code."""
    options = parser().parse_args(arguments)
    level = logging.INFO if options.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except tuple(BY_ERROR) as error:
        complain(_sentence(error))
        return next(code for kind, code in BY_ERROR.items() if isinstance(error, kind))
    except (TimeoutError, asyncio.TimeoutError):
        complain("That took longer than --timeout allows; the task goes on.")
        return 7
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _sentence(error: BaseException) -> str:
    if isinstance(error, RequestRefused) and error.code == "task_not_found":
        return f"There is no such task: {error.answer.get('task_id', '')}"
    return str(error)


__all__ = ["USAGE", "main", "parser"]
