"""`login`: keep the hub's address and a token for the other commands."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import secrets
import sys
from typing import Any

from agentcom_client import addresses, config
from agentcom_client.cli.exits import OK
from agentcom_client.config import ConfigError, Login
from agentcom_client.errors import Conflict, NotFound
from agentcom_client.hub import AsyncHub

PREFIX = "act_"  # of tokens


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "login",
        help="keep the hub's address and a token for the other commands",
        description="Checks the token at the hub and keeps both in a file that only you can read."
        " `agentcom token create NAME` makes a token, where the hub runs, and"
        " `agentcom token enrol NAME` a code.",
    )
    url = os.environ.get(config.URL) or addresses.DEFAULT
    parser.add_argument("url", nargs="?", default=url, help="%(default)s by default")
    parser.add_argument(
        "--token",
        help="otherwise it is asked for, or read from standard input; other users of this machine"
        " can see what stands on a command line",
    )
    parser.add_argument(
        "--code",
        help="a code that is worth a token, once: this machine makes up the token, and nobody has"
        " to copy it",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.code and options.token:
        raise ConfigError("Give a token or a code, not both.")
    try:
        url = addresses.base(options.url)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if options.code:
        token = PREFIX + secrets.token_urlsafe(32)
        asyncio.run(_enrol(url, token, options.code))
    else:
        token = options.token or _ask()
    if not token:
        raise ConfigError("No token was given.")
    who = asyncio.run(_who(url, token))
    file = config.save(Login(url, token))
    print(f"You are {who['name']} at {url} (version {who['version']}). Kept in {file}.")
    return OK


async def _who(url: str, token: str) -> dict[str, Any]:
    async with AsyncHub(url, token, patience_s=5) as hub:
        return await hub.whoami()


async def _enrol(url: str, token: str, code: str) -> None:
    async with AsyncHub(url, token) as hub:
        try:
            await hub.enrol(code)
        except NotFound:
            raise ConfigError("The code is wrong, or its time is over. Ask for another.") from None
        except Conflict:
            raise ConfigError(
                "The code was used before. If not by you, tell whoever runs the hub."
            ) from None


def _ask() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Token: ").strip()
    return sys.stdin.readline().strip()
