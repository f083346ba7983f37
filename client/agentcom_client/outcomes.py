"""Waits for the ends of many tasks over one socket, and opens it again when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from agentcom_client.errors import NotFound, RequestRefused, Unauthorized, Unavailable
from agentcom_client.info import TaskInfo

logger = logging.getLogger(__name__)

AT_ONCE = 1_000  # tasks in one message
MOST = 10_000  # tasks that the hub watches for one socket
FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 15.0
POLL_S = 2.0  # at a hub that has no such socket
LARGEST_FRAME = 4 * 1024 * 1024
# How hubs answer at an address that has no socket; those of before 0.2 with 500.
NO_SUCH_SOCKET = (403, 404, 500)
LOST = (OSError, asyncio.TimeoutError, InvalidHandshake, ConnectionClosed)


class Outcomes:
    """`wait` gives a future for each task; all share the socket. Lives on one event loop."""

    def __init__(self, url: str, token: str, look_up: Callable[[str], Awaitable[TaskInfo]]) -> None:
        self._url = url
        self._token = token
        self._look_up = look_up
        self._futures: dict[str, asyncio.Future[TaskInfo]] = {}
        self._asked: set[str] = set()  # on the present socket
        self._wanted = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def wait(self, task_id: str) -> asyncio.Future[TaskInfo]:
        """Done when the task has ended; fails with `NotFound` or `Unauthorized`. Shared by all who
        wait for this task: shield it."""
        future = self._futures.get(task_id)
        if future is None:
            future = self._futures[task_id] = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._wanted.set()
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(self._run())
        return future

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        for future in self._futures.values():
            future.cancel()
        self._futures.clear()

    async def _run(self) -> None:
        lost_in_a_row = 0
        while self._futures:  # and no await between this and the end
            try:
                async with connect(
                    self._url, compression=None, open_timeout=30, max_size=LARGEST_FRAME
                ) as socket:
                    await self._follow(socket)
            except InvalidStatus as refused:
                if refused.response.status_code in NO_SUCH_SOCKET:
                    await self._poll()
                    return
                lost: Exception = refused
            except LOST as gone:
                lost = gone
                if self._asked:  # it was connected
                    self._asked = set()
                    lost_in_a_row = 0
            except RequestRefused as refused:
                self._fail_all(refused)
                return
            except Exception as error:  # nobody may wait for ever
                logger.exception("Waiting for tasks failed")
                self._fail_all(error)
                return
            bound_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**lost_in_a_row)
            lost_in_a_row += 1
            logger.info("The hub was lost while waiting for tasks (%s)", lost)
            await asyncio.sleep(random.uniform(0, bound_s))

    async def _follow(self, socket: ClientConnection) -> None:
        """Until it is lost: the next task to wait for may come at any time."""
        self._asked = set()
        await self._send(socket, "identify", token=self._token)
        answer = json.loads(await socket.recv())
        if answer["type"] == "error":
            _raise_if_unavailable(answer)
            raise Unauthorized(401, answer)
        asking = asyncio.ensure_future(self._ask(socket))
        try:
            while True:
                self._hear(json.loads(await socket.recv()))
        finally:
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, *LOST):
                await asking

    async def _ask(self, socket: ClientConnection) -> None:
        while True:
            new = [task_id for task_id in self._futures if task_id not in self._asked]
            room = min(AT_ONCE, MOST - len(self._asked))
            if new and room > 0:
                self._asked.update(new[:room])
                await self._send(socket, "watch", task_ids=new[:room])
            else:
                self._wanted.clear()
                await self._wanted.wait()

    def _hear(self, message: dict[str, Any]) -> None:
        match message:
            case {"type": "task_ended", "task": task}:
                self._settle(TaskInfo.of(task))
            case {"type": "task_unknown", "task_id": task_id}:
                self._fail(task_id, NotFound(404, {"error": "task_not_found"}))
            case {"type": "error"}:
                _raise_if_unavailable(message)
                raise RequestRefused(400, message)

    def _settle(self, task: TaskInfo) -> None:
        future = self._forget(task.id)
        if future is not None and not future.done():
            future.set_result(task)

    def _fail(self, task_id: str, error: Exception) -> None:
        future = self._forget(task_id)
        if future is not None and not future.done():
            future.set_exception(error)

    def _fail_all(self, error: Exception) -> None:
        for task_id in list(self._futures):
            self._fail(task_id, error)

    def _forget(self, task_id: str) -> asyncio.Future[TaskInfo] | None:
        self._asked.discard(task_id)
        self._wanted.set()  # there is room for another one
        return self._futures.pop(task_id, None)

    async def _send(self, socket: ClientConnection, type: str, **fields: Any) -> None:
        await socket.send(json.dumps({"type": type, **fields}))

    async def _poll(self) -> None:
        while self._futures:
            for task_id in list(self._futures):
                try:
                    task = await self._look_up(task_id)
                except RequestRefused as refused:
                    self._fail(task_id, refused)
                    continue
                except ConnectionError:
                    continue
                if task.is_ended:
                    self._settle(task)
            await asyncio.sleep(POLL_S)


def _raise_if_unavailable(error: dict[str, Any]) -> None:
    """The hub's database does not answer: the next socket asks again."""
    if error["error"] == "unavailable":
        raise Unavailable(error.get("detail", "unavailable"))
