"""A fleet that comes back all at once. HERD=5000 runs it at full size."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.harness.hub import Hub
from lab.kit.agent import RawAgent
from lab.kit.fleet import Fleet, running
from lab.kit.submitter import Submitter
from tests.faults.conftest import check, finish, until_more

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
        fleet = Fleet(hub.ws_url, {n: tokens[n] for n in ("a-1", "a-2")}, capabilities=STEADY)
        async with running(fleet, submitter):
            await until_more(fleet.completed, 5)
            for coming in ("first", "again"):
                herd = [RawAgent(name, tokens[name]) for name in names]
                began = time.monotonic()
                joining = asyncio.gather(*(agent.join(hub.port) for agent in herd))
                await until_more(fleet.completed, 5)
                worked = time.monotonic() - began
                await joining  # raises where one was not let in
                joined = time.monotonic() - began
                print(f"{coming}: {HERD} in {joined:.1f} s, 5 tasks done in {worked:.1f} s")
                assert worked < WORKED_S
                for agent in herd:
                    agent.close()
            await finish(fleet, submitter)
        check(hub, fleet, submitter)
        assert not submitter.refused
        assert set(fleet.identified.values()) == {1}
