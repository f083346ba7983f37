"""A hub for each module, and the command line as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.harness.hub import Hub
from tests.client import django6
from tests.flow.conftest import client, hub, identities, skill, skills

__all__ = ["client", "hub", "identities", "skill", "skills"]

# The header of the run says so (tests/conftest.py).
collect_ignore = [] if django6.base() else ["test_django_backend.py"]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


class Cli:
    """`agentcom-client`, as a user with this token runs it."""

    def __init__(self, url: str, token: str, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if "AGENTCOM" not in name},
            "AGENTCOM_URL": url,
            "AGENTCOM_TOKEN": token,
            "AGENTCOM_CONFIG": str(folder / "client.json"),
        }

    async def start(self, *arguments: str, **environment: str) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agentcom_client", *arguments,
            stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=self.folder,
            env={**self.environment, **environment},
        )  # fmt: skip

    async def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> Ended:
        process = await self.start(*arguments, **environment)
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 30)
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    @asynccontextmanager
    async def agent(self, *arguments: str, slots: int = 1) -> AsyncIterator[Process]:
        """`agentcom-client run`, connected; in the end it is interrupted, if it still runs."""
        process = await self.start("run", *arguments)
        assert process.stderr is not None
        try:
            for _ in range(slots):
                said = await asyncio.wait_for(process.stderr.readline(), 20)
                assert b"is connected" in said, said + await process.stderr.read()
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.communicate(), 30)


@pytest.fixture
def cli(hub: Hub, identities: Iterator[tuple[str, str]], tmp_path: Path) -> Cli:
    _, token = next(identities)
    return Cli(hub.url, token, tmp_path)
