"""What tests need that take a part away: who works meanwhile, and a look at what it came to.

Each test has a hub of its own, and a bound: what is waited for may never come.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

import httpx
import psycopg

from fleet.client import Agent, Message, Task
from lab.harness.hub import Hub
from lab.harness.proxy import CHUNK, Proxy
from tests.viewer import Viewer

PAUSE_S = 0.05


class Submitter:
    """Submits one task after the other; on a 503 or a lost connection the same one again."""

    def __init__(self, url: str, token: str, **fields: Any) -> None:
        self.url = url
        self.fields = fields
        self.headers = {"Authorization": f"Bearer {token}"}
        self.acked: list[str] = []  # task ids
        self.refused: list[httpx.Response] = []
        self.enough = asyncio.Event()
        self.finished = asyncio.Event()

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=30) as http:
            while not self.enough.is_set():
                await self._submit(http, key=secrets.token_hex(8))
        self.finished.set()

    async def _submit(self, http: httpx.AsyncClient, key: str) -> None:
        while True:
            with suppress(httpx.TransportError):
                answer = await http.post(
                    "/api/tasks",
                    json={"description": key, **self.fields},
                    headers={"Idempotency-Key": key},
                )
                if answer.status_code == 201:
                    self.acked.append(answer.json()["task_id"])
                    await asyncio.sleep(PAUSE_S)
                    return
                assert answer.status_code == 503, answer.text
                self.refused.append(answer)
            await asyncio.sleep(PAUSE_S)


class Crew:
    """Agents that do what they get at once; keeps what the hub told them."""

    def __init__(self, url: str, tokens: dict[str, str], **about: Any) -> None:
        self.completed: list[str] = []  # as acked
        self.identified: Counter[str] = Counter()
        self.agents = [
            Agent(
                url,
                agent_id,
                token,
                self._work,
                first_delay_s=0.2,
                longest_delay_s=1,
                observe=self._observer(agent_id),
                **about,
            )
            for agent_id, token in tokens.items()
        ]

    async def run(self) -> None:
        await asyncio.gather(*(agent.run() for agent in self.agents))

    async def stop(self) -> None:
        await asyncio.gather(*(agent.stop() for agent in self.agents))

    async def _work(self, task: Task) -> dict[str, Any]:
        await task.progress(50)
        return {"tokens_used": 1}

    def _observer(self, agent_id: str) -> Callable[[Message], None]:
        def observe(message: Message) -> None:
            match message:
                case {"type": "identified"}:
                    self.identified[agent_id] += 1
                case {"type": "task_ack", "status": "complete", "task_id": task_id}:
                    self.completed.append(task_id)

        return observe


class Forgetful(Proxy):
    """Connections that were stalled stay dead: as when the other host is gone without a word."""

    _stalls = 0

    async def _stall(self) -> None:
        self._stalls += 1
        await super()._stall()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stalls = self._stalls
        while data := await reader.read(CHUNK):
            if self._stalls > stalls:
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


@asynccontextmanager
async def running(*parts: Any) -> AsyncIterator[None]:
    """Each part's `run`; one that fails ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part.run()) for part in parts]
        yield
        for task in tasks:
            task.cancel()


async def until(condition: Callable[[], Any]) -> None:
    """Wait, at most for the test's bound."""
    while not condition():  # noqa: ASYNC110 – of processes there is no event to wait for
        await asyncio.sleep(PAUSE_S)


async def until_more(seen: list[Any], more: int) -> None:
    goal = len(seen) + more
    await until(lambda: len(seen) >= goal)


async def until_answer(url: str, ask: Callable[[httpx.Response], Any]) -> httpx.Response:
    """Ask for `url` until the answer is as wanted."""
    async with httpx.AsyncClient(timeout=30) as http:
        while not ask(answer := await http.get(url)):  # noqa: ASYNC110
            await asyncio.sleep(PAUSE_S)
        return answer


def rows(hub: Hub, query: str, url: str = "") -> list[tuple[Any, ...]]:
    """From the hub's database itself, by `url` or where the hub has it."""
    url = url or hub.environment.get("DATABASE_URL", "")
    if url:
        with psycopg.connect(url) as connection:
            return connection.execute(query).fetchall()
    file = hub.data_dir / "agentcom.sqlite3"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


async def finish(crew: Crew, *submitters: Submitter) -> None:
    """Submit no more, and wait until every task that was acked is done."""
    for submitter in submitters:
        submitter.enough.set()
        await submitter.finished.wait()
    acked = {task_id for submitter in submitters for task_id in submitter.acked}
    await until(lambda: acked <= set(crew.completed))
    await crew.stop()


def check(hub: Hub, crew: Crew, submitters: list[Submitter], url: str = "") -> None:
    """Nothing that was acked is lost, nothing is there twice."""
    described = Counter(rows(hub, "SELECT description FROM tasks_task", url))
    assert set(described.values()) == {1}  # each key once, however often it was sent
    status = dict(rows(hub, "SELECT task_id, status FROM tasks_task", url))
    for submitter in submitters:
        assert set(submitter.acked) <= status.keys()
    for task_id in crew.completed:
        assert status[task_id] == "completed"
    done = Counter(rows(hub, "SELECT task_id FROM tasks_completion", url))
    assert done.keys() == {(task_id,) for task_id in status if status[task_id] == "completed"}
    assert set(done.values()) == {1}
    told = Counter(rows(hub, "SELECT kind, task_id FROM agentcom_event", url))
    for task_id in status:
        assert told["task_submitted", task_id] == 1
        assert told["task_complete", task_id] <= 1


def codes(viewer: Viewer) -> set[str]:
    """What is wrong, as the light of a dashboard that takes patches shows it."""
    lights = [
        frame["data"]["health"]
        for frame in viewer.frames
        if frame["type"] in ("snapshot", "patch") and "health" in frame["data"]
    ]
    return {detail["code"] for detail in lights[-1]["details"]} if lights else set()
