"""Two web processes and two workers for each module; what a test stops is there again for the next.

On SQLite, and on PostgreSQL and Redis where `DATABASE_URL` and `REDIS_URL` are set.
"""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from lab.harness.hub import Cluster, Server
from lab.kit.member import Member
from lab.kit.sockets import HOST
from tests.identities import FILL, known_identities

NO_TASK = "task-0000000000000000"
TICKS = "The worker ticks"  # in a worker's log, once it has begun
TIMES = {
    "AGENTCOM_NODE_TIMEOUT_S": "3",
    "AGENTCOM_RECLAIM_GRACE_S": "1",
    "AGENTCOM_WORKER_TICK_S": "0.5",
}


@pytest.fixture(scope="module")
def module_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    settings = getattr(request.module, "SETTINGS", TIMES)
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder, 2, 2, FILL, **settings) as cluster:
        yield cluster


@pytest.fixture
def cluster(module_cluster: Cluster) -> Iterator[Cluster]:
    yield module_cluster
    for server in module_cluster.servers:
        if server.is_running:
            server.send(signal.SIGCONT)
        else:
            start(server)


def start(server: Server) -> None:
    """Return once it answers, or, if it is a worker, ticks."""
    begun = server.log.count(TICKS)
    server.start()
    while server.port == 0 and server.log.count(TICKS) == begun:
        time.sleep(0.05)


@pytest.fixture(scope="module")
def identities() -> Iterator[tuple[str, str]]:
    """Agents that no test of the module has been yet, as (agent id, token)."""
    return known_identities()


Join = Callable[..., Awaitable[Member]]
Submit = Callable[..., Awaitable[str]]


def address(web: Server) -> str:
    return f"http://{HOST}:{web.port}"


def socket_address(web: Server) -> str:
    return f"ws://{HOST}:{web.port}/ws"


@pytest.fixture
async def join(identities: Iterator[tuple[str, str]]) -> AsyncIterator[Join]:
    """Connect an agent to a process: a new one with a skill of its own, or one that was before."""
    async with AsyncExitStack() as leaving:

        async def join(web: Server, again: Member | None = None, skill: str = "") -> Member:
            agent_id, token = (again.agent_id, again.token) if again else next(identities)
            skill = skill or (again.skill if again else f"skill of {agent_id}")
            joining = Member.join(socket_address(web), agent_id, token, skill)
            return await leaving.enter_async_context(await joining)

        yield join


@pytest.fixture
async def api(identities: Iterator[tuple[str, str]]) -> AsyncIterator[httpx.AsyncClient]:
    _, token = next(identities)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def submit(api: httpx.AsyncClient) -> Submit:
    """Queue a task that only agents with the skill can do, and give its id."""

    async def submit(web: Server, skill: str, **fields: Any) -> str:
        task = {"description": "Something to do", "needed_capabilities": [skill], **fields}
        answer = await api.post(f"{address(web)}/api/tasks", json=task)
        assert answer.status_code == 201, answer.text
        task_id: str = answer.json()["task_id"]
        return task_id

    return submit


async def close_code(member: Member) -> int:
    """Wait until the hub closes the member's socket."""
    await member.connection.socket.wait_closed()
    code = member.connection.socket.close_code
    assert code is not None
    return code


@asynccontextmanager
async def frozen(server: Server, other: Server, api: httpx.AsyncClient) -> AsyncIterator[None]:
    """The server is stopped inside, at a moment when it keeps nobody from writing.

    On SQLite a process that is stopped in a transaction holds up all, and nobody can help it.
    """
    while True:
        server.send(signal.SIGSTOP)
        try:
            # refused by the Writer, so only once it has had the lock
            answer = await api.post(f"{address(other)}/api/tasks/{NO_TASK}/retry", timeout=2)
            assert answer.status_code == 404, answer.text
            break
        except httpx.TimeoutException:
            server.send(signal.SIGCONT)
    try:
        yield
    finally:
        server.send(signal.SIGCONT)
