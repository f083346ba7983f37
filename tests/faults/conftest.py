"""What tests need that take a part away: waiting for what follows, and a look at what it came to.

Each test has a hub of its own, and a bound: what is waited for may never come.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sized
from typing import Any

import httpx

from lab.harness.hub import Hub
from lab.harness.proxy import CHUNK, Proxy
from lab.kit.fleet import Fleet
from lab.kit.submitter import Submitter
from lab.kit.viewer import Viewer

PAUSE_S = 0.05


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


async def until(condition: Callable[[], Any]) -> None:
    """Wait, at most for the test's bound."""
    while not condition():  # noqa: ASYNC110 – of processes there is no event to wait for
        await asyncio.sleep(PAUSE_S)


async def until_more(seen: Sized, more: int) -> None:
    goal = len(seen) + more
    await until(lambda: len(seen) >= goal)


async def until_answer(url: str, ask: Callable[[httpx.Response], Any]) -> httpx.Response:
    """Ask for `url` until the answer is as wanted."""
    async with httpx.AsyncClient(timeout=30) as http:
        while not ask(answer := await http.get(url)):  # noqa: ASYNC110
            await asyncio.sleep(PAUSE_S)
        return answer


async def finish(fleet: Fleet, submitter: Submitter) -> None:
    """Submit no more, and wait until every task that was acked is done."""
    await submitter.stop()
    await until(lambda: set(submitter.acked) <= fleet.completed.keys())


def check(hub: Hub, fleet: Fleet, submitter: Submitter) -> None:
    """Nothing that was acked is lost, nothing is there twice."""
    described = Counter(hub.rows("SELECT description FROM tasks_task"))
    assert set(described.values()) == {1}  # each key once, however often it was sent
    status = dict(hub.rows("SELECT task_id, status FROM tasks_task"))
    assert set(submitter.acked) <= status.keys()
    for task_id in fleet.completed:
        assert status[task_id] == "completed"
    done = Counter(hub.rows("SELECT task_id FROM tasks_completion"))
    assert done.keys() == {(task_id,) for task_id in status if status[task_id] == "completed"}
    assert set(done.values()) == {1}
    told = Counter(hub.rows("SELECT kind, task_id FROM agentcom_event"))
    for task_id in status:
        assert told["task_submitted", task_id] == 1
        assert told["task_complete", task_id] <= 1


def codes(viewer: Viewer) -> set[str]:
    """What is wrong, as the light of a dashboard that takes patches shows it."""
    lights = [
        frame["data"]["health"]
        for _, frame in viewer.arrived
        if frame["type"] in ("snapshot", "patch") and "health" in frame["data"]
    ]
    return {detail["code"] for detail in lights[-1]["details"]} if lights else set()
