"""`mcp`: a language model submits tasks and steers them."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from typing import Any

from agentcom_client.cli import exits
from agentcom_client.cli.output import complain
from agentcom_client.errors import NotFound, Unauthorized

NOT_INSTALLED = (
    'The MCP server needs a package that is not installed: pip install "agentcom-client[mcp]"'
)


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "mcp",
        help="let a language model submit tasks and steer them",
        description="Serves MCP (https://modelcontextprotocol.io) on standard input and output, for"
        " a host such as Claude Code. Needs the extra: pip install 'agentcom-client[mcp]'",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        from agentcom_client import mcp_server
    except ModuleNotFoundError as missing:  # also with a version of it that is too old
        if (missing.name or "").startswith("agentcom_client"):
            raise
        complain(NOT_INSTALLED)
        return exits.USAGE
    if sys.stdin.isatty():
        complain("This is for MCP hosts, which start it and write to it. Ctrl-C ends it.")
    # A thread reads standard input, and Ctrl-C would wait for it. There is nothing to clean up.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        asyncio.run(mcp_server.serve())
    except Unauthorized:
        complain(
            "The hub does not accept this token. `agentcom token create NAME` makes one, where the"
            " hub runs."
        )
        return exits.NOT_ACCEPTED
    except NotFound:
        complain("There is no hub at this address, or one from before version 0.2.")
        return exits.UNREACHABLE
    return exits.OK
