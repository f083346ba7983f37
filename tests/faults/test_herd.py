"""A fleet that comes back all at once. HERD=5000 runs it at full size."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.harness.clients import Agent
from lab.harness.hub import Hub
from tests.faults.conftest import Crew, Submitter, check, finish, running, until_more

HERD = int(os.environ.get("HERD", "1000"))
WORKED_S = 30
STEADY = ["steady"]  # a skill that the herd has not


@pytest.fixture(autouse=True)
def many_sockets() -> Iterator[None]:
    """For this process and, inherited, for the hub."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = HERD + 500
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_all_are_let_in_again_and_dispatch_goes_on(tmp_path: Path) -> None:
    with Hub(tmp_path) as hub:
        names = [f"agent-{number}" for number in range(HERD)]
        tokens = hub.tokens([*names, "a-1", "a-2", "submitter"])
        submitter = Submitter(
            hub.url, tokens["submitter"], needed_capabilities=STEADY, priority="urgent"
        )
        crew = Crew(hub.ws_url, {n: tokens[n] for n in ("a-1", "a-2")}, capabilities=STEADY)
        async with running(crew, submitter):
            await until_more(crew.completed, 5)
            for coming in ("first", "again"):
                herd = [Agent(name, tokens[name]) for name in names]
                began = time.monotonic()
                joining = asyncio.gather(*(agent.join(hub.port) for agent in herd))
                await until_more(crew.completed, 5)
                worked = time.monotonic() - began
                await joining  # raises where one was not let in
                joined = time.monotonic() - began
                print(f"{coming}: {HERD} in {joined:.1f} s, 5 tasks done in {worked:.1f} s")
                assert worked < WORKED_S
                for agent in herd:
                    agent.close()
            await finish(crew, submitter)
        check(hub, crew, [submitter])
        assert not submitter.refused
        assert set(crew.identified.values()) == {1}
