"""A hub, for programs that submit tasks: `AsyncHub`, and `Hub` without an event loop."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from agentcom_client import addresses, config
from agentcom_client.errors import BY_STATUS, NotFound, RequestRefused, Unavailable
from agentcom_client.info import TaskInfo
from agentcom_client.outcomes import Outcomes

T = TypeVar("T")
NewTask = Mapping[str, Any] | str  # the fields of a submission, or only its description

MAX_TASKS = 1_000  # in one request
MAX_BYTES = 7 * 1024 * 1024  # of one request; the hub takes 8 MiB
PATIENCE_S = 60.0
TIMEOUT_S = 30.0
FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 5.0
BUSY = frozenset({408, 429, 502, 503, 504})  # the same request may succeed later


class AsyncHub:
    """Submits tasks, waits for them, looks at them, steers them.

        async with AsyncHub("http://127.0.0.1:4000", TOKEN) as hub:
            task_id = await hub.submit("Review the change", needed_capabilities=["review"])
            task = await hub.wait(task_id)
            print(task.outcome())

    Without `url` or `token`, they are those of the environment or of `agentcom-client login`. While
    the hub cannot be reached, or says that it is busy, requests are repeated for `patience_s`;
    `calls` counts all of them. Every method raises `RequestRefused` (see there) when the hub says
    no, and `Unavailable` when it did not answer in time.

    Lives on one event loop. Raises `ConfigError` when there is no token.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        patience_s: float = PATIENCE_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        urls, token = config.addresses_and_token(url, token)
        self.url = urls[0]
        self._token = token
        self.patience_s = patience_s
        self.calls = 0
        self._http = httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout_s
        )
        socket = addresses.socket(self.url, "/ws/tasks")
        self._outcomes = Outcomes(socket, token, self.show)

    async def __aenter__(self) -> AsyncHub:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._outcomes.close()
        await self._http.aclose()

    # Submitting

    async def submit(
        self, description: str, *, idempotency_key: str | None = None, **fields: Any
    ) -> str:
        """Queue a task and give its id. `fields` are those of the protocol: priority, metadata,
        needed_capabilities, max_retries, not_before, complete_by, …

        The key, made up if none is given, keeps a repeated request from queueing the task twice.
        """
        task = {"description": description, **fields}
        answer = await self._submit(task, idempotency_key or uuid.uuid4().hex)
        task_id: str = answer["task_id"]
        return task_id

    async def submit_many(
        self, tasks: Iterable[NewTask], *, idempotency_key: str | None = None
    ) -> list[str]:
        """Queue many tasks and give their ids, in order.

        Up to 1,000 go into one request, and each request is queued as a whole or not at all. If a
        later one is refused, the earlier ones are queued: the error has the ids as `submitted`, and
        its `index` counts from the first task of all.
        """
        key = idempotency_key or uuid.uuid4().hex
        ids: list[str] = []
        for number, chunk in enumerate(_chunks(tasks)):
            try:
                answer = await self._submit(chunk, f"{key}-{number}" if number else key)
            except RequestRefused as refused:
                if refused.index is not None:
                    refused.index += len(ids)
                refused.submitted = ids
                raise
            ids += [receipt["task_id"] for receipt in answer["tasks"]]
        return ids

    async def _submit(self, body: Any, key: str) -> Any:
        return await self._call("POST", "/api/tasks", body, {"Idempotency-Key": key})

    # Waiting

    async def wait(self, task_id: str, timeout_s: float | None = None) -> TaskInfo:
        """The task, once it has ended; as many as you like wait over the same socket.

        Raises `asyncio.TimeoutError` when it takes longer than `timeout_s`.
        """
        outcome = asyncio.shield(self._outcomes.wait(task_id))
        return await asyncio.wait_for(outcome, timeout_s)

    async def wait_all(
        self, task_ids: Sequence[str], timeout_s: float | None = None
    ) -> list[TaskInfo]:
        """The tasks, in the order of the ids, once all of them have ended."""
        ends = [asyncio.shield(self._outcomes.wait(task_id)) for task_id in task_ids]
        return await asyncio.wait_for(asyncio.gather(*ends), timeout_s)

    async def as_ended(self, task_ids: Iterable[str]) -> AsyncIterator[TaskInfo]:
        """Each task when it has ended, the earliest first."""
        ends = [asyncio.shield(self._outcomes.wait(task_id)) for task_id in dict.fromkeys(task_ids)]
        for end in asyncio.as_completed(ends):
            yield await end

    async def run(
        self, description: str, *, timeout_s: float | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Submit a task, wait for it, and give its result. Raises `NotCompleted`."""
        task = await self.wait(await self.submit(description, **fields), timeout_s)
        return task.outcome()

    # Looking

    async def show(self, task_id: str) -> TaskInfo:
        """One task with its `history`, and with `waiting`: why it is not running."""
        return TaskInfo.of(await self._call("GET", _task(task_id)))

    async def tasks(
        self,
        *,
        status: str | None = None,
        priority: str | int | None = None,
        assigned_to: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[TaskInfo]:
        """All tasks, or those that the filters leave, the newest first; page by page."""
        filters = {"status": status, "priority": priority, "assigned_to": assigned_to}
        query = {name: str(value) for name, value in filters.items() if value is not None}
        left = limit
        while left is None or left > 0:
            query["limit"] = str(100 if left is None else min(left, 500))
            page = await self._call("GET", "/api/tasks", params=query)
            for raw in page["tasks"]:
                yield TaskInfo.of(raw)
            if left is not None:
                left -= page["count"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    async def counts(self) -> dict[str, Any]:
        """How many tasks there are: `by_status`, `by_priority` and `dead_letter`."""
        answer: dict[str, Any] = await self._call("GET", "/api/tasks/stats")
        return answer

    async def agents(self) -> list[dict[str, Any]]:
        """All known agents with their states, connected or not."""
        found: list[dict[str, Any]] = (await self._call("GET", "/api/agents/states"))["agents"]
        return found

    async def whoami(self) -> dict[str, Any]:
        """`name`: whose token this is; `version`: the hub's; `timestamp`: its clock, in ms."""
        answer: dict[str, Any] = await self._call("GET", "/api/whoami")
        return answer

    async def enrol(self, code: str) -> dict[str, Any]:
        """Make this token valid, with a code from whoever runs the hub: `name` and `kind`.

        Raises `NotFound` for a code that is wrong or too old, `Conflict` for one that was used.
        """
        answer: dict[str, Any] = await self._call(
            "POST", "/api/enrol", {"code": code, "token": self._token}
        )
        return answer

    # Steering

    async def cancel(
        self, task_id: str, reason: str | None = None, timeout_s: float | None = None
    ) -> str:
        """`cancelled`, or `cancelling` when its agent is asked to stop, which it has `timeout_s`
        for. Raises `Conflict` when the task is completed."""
        body = {"reason": reason, "timeout_s": timeout_s}
        body = {name: value for name, value in body.items() if value is not None}
        status: str = (await self._call("POST", f"{_task(task_id)}/cancel", body))["status"]
        return status

    async def retry(self, task_id: str) -> None:
        """Queue a dead letter or a cancelled task again. Raises `NotFound` for others."""
        try:
            await self._call("POST", f"{_task(task_id)}/retry")
        except NotFound as refused:
            # If the answer to an earlier attempt was lost, this one finds a task that was queued.
            if refused.attempt == 1 or (await self.show(task_id)).is_ended:
                raise

    async def set_priority(self, task_id: str, priority: str | int) -> None:
        """Move a task that waits to another lane. Raises `Conflict` when it does not wait."""
        await self._call("PATCH", _task(task_id), {"priority": priority})

    async def holds(self) -> list[dict[str, Any]]:
        """The holds in force, the newest first."""
        found: list[dict[str, Any]] = (await self._call("GET", "/api/holds"))["holds"]
        return found

    async def hold(
        self,
        scope: str,
        reason: str,
        *,
        subject: str | None = None,
        until: int | str | None = None,
    ) -> dict[str, Any]:
        """Keep work from being handed out: `scope` is hub, lane, capability or agent. An attempt
        whose answer is lost is not repeated, because it would place a second hold."""
        body = {"scope": scope, "subject": subject, "reason": reason, "until": until}
        placed: dict[str, Any] = await self._call("POST", "/api/holds", body, patience_s=0)
        return placed

    async def lift(self, hold_id: str) -> None:
        """Raises `NotFound` when the hold has ended already."""
        await self._call("DELETE", f"/api/holds/{hold_id}")

    async def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        patience_s: float | None = None,
    ) -> Any:
        until = time.monotonic() + (self.patience_s if patience_s is None else patience_s)
        delay_s = FIRST_DELAY_S
        for attempt in itertools.count(1):
            self.calls += 1
            wait_s = random.uniform(0, delay_s)
            try:
                answer = await self._http.request(
                    method, path, json=body, headers=headers, params=params
                )
            except httpx.TransportError as lost:
                why = f"{self.url} does not answer: {lost or type(lost).__name__}"
            else:
                if answer.status_code not in BUSY:
                    return _read(answer, attempt)
                why = f"{self.url} is busy: {_said(answer).get('detail', answer.status_code)}"
                wait_s = max(wait_s, _retry_after_s(answer))
            if time.monotonic() + wait_s >= until:
                raise Unavailable(why)
            await asyncio.sleep(wait_s)
            delay_s = min(LONGEST_DELAY_S, 2 * delay_s)


class Hub:
    """`AsyncHub` without an event loop: the same methods, and iterators instead of asynchronous
    ones. May be used by several threads.

        with Hub() as hub:
            print(hub.run("Review the change"))
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        patience_s: float = PATIENCE_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        config.addresses_and_token(url, token)  # a mistake is told here, not by a thread
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="agentcom hub", daemon=True
        )
        self._thread.start()

        async def make() -> AsyncHub:
            return AsyncHub(url, token, patience_s=patience_s, timeout_s=timeout_s)

        self._hub = self._do(make())

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._do(self._hub.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return self._hub.url

    @property
    def calls(self) -> int:
        return self._hub.calls

    def submit(self, description: str, *, idempotency_key: str | None = None, **fields: Any) -> str:
        return self._do(self._hub.submit(description, idempotency_key=idempotency_key, **fields))

    def submit_many(
        self, tasks: Iterable[NewTask], *, idempotency_key: str | None = None
    ) -> list[str]:
        return self._do(self._hub.submit_many(tasks, idempotency_key=idempotency_key))

    def wait(self, task_id: str, timeout_s: float | None = None) -> TaskInfo:
        return self._do(self._hub.wait(task_id, timeout_s))

    def wait_all(self, task_ids: Sequence[str], timeout_s: float | None = None) -> list[TaskInfo]:
        return self._do(self._hub.wait_all(task_ids, timeout_s))

    def as_ended(self, task_ids: Iterable[str]) -> Iterator[TaskInfo]:
        return self._each(self._hub.as_ended(task_ids))

    def run(
        self, description: str, *, timeout_s: float | None = None, **fields: Any
    ) -> dict[str, Any]:
        return self._do(self._hub.run(description, timeout_s=timeout_s, **fields))

    def show(self, task_id: str) -> TaskInfo:
        return self._do(self._hub.show(task_id))

    def tasks(
        self,
        *,
        status: str | None = None,
        priority: str | int | None = None,
        assigned_to: str | None = None,
        limit: int | None = None,
    ) -> Iterator[TaskInfo]:
        found = self._hub.tasks(
            status=status, priority=priority, assigned_to=assigned_to, limit=limit
        )
        return self._each(found)

    def counts(self) -> dict[str, Any]:
        return self._do(self._hub.counts())

    def agents(self) -> list[dict[str, Any]]:
        return self._do(self._hub.agents())

    def whoami(self) -> dict[str, Any]:
        return self._do(self._hub.whoami())

    def cancel(
        self, task_id: str, reason: str | None = None, timeout_s: float | None = None
    ) -> str:
        return self._do(self._hub.cancel(task_id, reason, timeout_s))

    def retry(self, task_id: str) -> None:
        self._do(self._hub.retry(task_id))

    def set_priority(self, task_id: str, priority: str | int) -> None:
        self._do(self._hub.set_priority(task_id, priority))

    def holds(self) -> list[dict[str, Any]]:
        return self._do(self._hub.holds())

    def hold(
        self,
        scope: str,
        reason: str,
        *,
        subject: str | None = None,
        until: int | str | None = None,
    ) -> dict[str, Any]:
        return self._do(self._hub.hold(scope, reason, subject=subject, until=until))

    def lift(self, hold_id: str) -> None:
        self._do(self._hub.lift(hold_id))

    def _do(self, call: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            call.close()
            raise RuntimeError("this Hub is closed")
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C too: nobody waits for the answer
            future.cancel()
            raise

    def _each(self, found: AsyncIterator[T]) -> Iterator[T]:
        async def next_or_end() -> tuple[T | None, bool]:
            async for each in found:
                return each, False
            return None, True

        while True:
            each, is_end = self._do(next_or_end())
            if is_end:
                return
            yield each  # type: ignore[misc]  # only None at the end


def _chunks(tasks: Iterable[NewTask]) -> Iterator[list[dict[str, Any]]]:
    """Not more in one than a request may have."""
    chunk: list[dict[str, Any]] = []
    room = MAX_BYTES
    for task in tasks:
        fields = {"description": task} if isinstance(task, str) else dict(task)
        size = len(json.dumps(fields)) + 1
        if chunk and (len(chunk) == MAX_TASKS or size > room):
            yield chunk
            chunk, room = [], MAX_BYTES
        chunk.append(fields)
        room -= size
    if chunk:
        yield chunk


def _task(task_id: str) -> str:
    return f"/api/tasks/{quote(task_id, safe='')}"


def _read(answer: httpx.Response, attempt: int) -> Any:
    """The content of the answer to so many requests. Raises `RequestRefused`."""
    if answer.is_success:
        return answer.json()
    refused = BY_STATUS.get(answer.status_code, RequestRefused)
    raise refused(answer.status_code, _said(answer), attempt)


def _said(answer: httpx.Response) -> dict[str, Any]:
    """The hub's own words; something between here and it may answer in other forms."""
    try:
        said = answer.json()
    except ValueError:
        said = None
    return said if isinstance(said, dict) else {"error": f"HTTP {answer.status_code}"}


def _retry_after_s(answer: httpx.Response) -> float:
    try:
        return min(60.0, float(answer.headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0
