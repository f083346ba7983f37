"""A hub for each module, and agents, submitters and viewers to come in through its sockets.

The tests of a module share the hub. They keep out of each other's way by skills: an agent of
`join` has a skill of its own, and `submit` with that skill queues a task for it alone.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from agentcom_client import AsyncHub, HubError
from lab.harness.hub import Hub
from lab.kit.member import Member
from lab.kit.viewer import Viewer
from tests.described import assert_described, assert_frames_described
from tests.identities import FILL, known_identities

# A task that comes back is handed out again without delay, so that no test has to wait for it.
AT_ONCE = {"AGENTCOM_RETRY_BACKOFF_S": "0", "AGENTCOM_REJECT_PAUSE_S": "0"}


Join = Callable[..., Awaitable[Member]]
Submit = Callable[..., Awaitable[str]]
View = Callable[[], Awaitable[Viewer]]


@pytest.fixture(scope="module")
def hub(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub with the module's `SETTINGS`, if it has any."""
    settings = {**AT_ONCE, **getattr(request.module, "SETTINGS", {})}
    with Hub(tmp_path_factory.mktemp("hub"), FILL, **settings) as hub:
        yield hub


@pytest.fixture(scope="module")
def identities() -> Iterator[tuple[str, str]]:
    """Agents that no test of the module has been yet, as (agent id, token)."""
    return known_identities()


@pytest.fixture(scope="module")
def skills() -> Iterator[str]:
    return (f"skill-{number}" for number in itertools.count())


@pytest.fixture
async def api(hub: Hub, identities: Iterator[tuple[str, str]]) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a token. Every answer that it gets is held against the schema."""
    _, token = next(identities)
    async with httpx.AsyncClient(
        base_url=hub.url,
        headers={"Authorization": f"Bearer {token}"},
        timeout=20,
        event_hooks=AS_DESCRIBED,
    ) as client:
        yield client


async def _hold_against_schema(answer: httpx.Response) -> None:
    await answer.aread()
    assert_described(answer)


# for clients whose answers are held against the schema
AS_DESCRIBED: Mapping[str, list[Callable[..., Any]]] = {"response": [_hold_against_schema]}


@pytest.fixture
async def client(hub: Hub, identities: Iterator[tuple[str, str]]) -> AsyncIterator[AsyncHub]:
    _, token = next(identities)
    async with AsyncHub(hub.url, token) as client:
        yield client


@pytest.fixture
def skill(skills: Iterator[str]) -> str:
    return next(skills)


@pytest.fixture
def submit(api: httpx.AsyncClient) -> Submit:
    """Queue a task that only agents with the skill can do, and give its id."""

    async def submit(skill: str, description: str = "Something to do", **fields: Any) -> str:
        task = {"description": description, "needed_capabilities": [skill], **fields}
        answer = await api.post("/api/tasks", json=task)
        assert answer.status_code == 201, answer.text
        task_id: str = answer.json()["task_id"]
        return task_id

    return submit


@pytest.fixture
async def join(
    hub: Hub, identities: Iterator[tuple[str, str]], skills: Iterator[str]
) -> AsyncIterator[Join]:
    """Connect an agent: a new one, or one that was there before. All sign off after the test, and
    what the hub sent them is held against the schema."""
    members: list[Member] = []
    async with AsyncExitStack() as leaving:

        async def join(again: Member | None = None, **about: Any) -> Member:
            agent_id, token = (again.agent_id, again.token) if again else next(identities)
            skill = again.skill if again else next(skills)
            joining = Member.join(hub.ws_url, agent_id, token, skill, **about)
            members.append(await leaving.enter_async_context(await joining))
            return members[-1]

        yield join
    for member in members:
        assert_frames_described("agents", member.seen)


@pytest.fixture
async def agent(join: Join) -> Member:
    return await join()


@pytest.fixture
async def view(hub: Hub) -> AsyncIterator[View]:
    """Open a dashboard socket. What comes over it is held against the schema."""
    viewers: list[Viewer] = []
    async with AsyncExitStack() as leaving:

        async def view() -> Viewer:
            viewers.append(await leaving.enter_async_context(await Viewer.open(hub.port)))
            return viewers[-1]

        yield view
    for viewer in viewers:
        assert_frames_described("dashboard", (frame for _, frame in viewer.arrived))


async def refusal(agent: Member, type: str, **fields: Any) -> str:
    with pytest.raises(HubError) as refused:
        await agent.connection.request(type, **fields)
    assert (await agent.connection.request("ping"))["type"] == "pong"  # the socket is still open
    return refused.value.code


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds; the test has the bound."""
    while not await holds():  # noqa: ASYNC110 – what is asked is another process
        await asyncio.sleep(0.02)
