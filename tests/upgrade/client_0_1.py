"""A client for the agent protocol: copy it to write a first agent, it needs `websockets` only.

async def work(task: Task) -> dict[str, Any]:
    await task.progress(50, "half way")
    return {"summary": task.description.upper()}

asyncio.run(Agent("ws://127.0.0.1:4000/ws", "writer-1", TOKEN, work, capabilities=["write"]).run())
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

logger = logging.getLogger(__name__)

Message = dict[str, Any]
Work = Callable[["Task"], Awaitable[dict[str, Any]]]
Observer = Callable[[Message], None]

PUSHES = frozenset({"task_assign", "agent_joined", "agent_left", "status_changed"})
LOST = (OSError, TimeoutError, InvalidHandshake, ConnectionClosed)
RESTARTS = 1012
COME_BACK = re.compile(r"within (\d+) s")  # in the reason of a 1012
SUPERSEDED = 4409
LARGEST_RESULT = 255 * 1024  # the hub closes the socket on a frame of more than 256 KiB
LONGEST_ERROR = 4_000


class HubError(Exception):
    """The hub answered a message with an error; `code` is what it said, the socket stays open."""

    def __init__(self, code: str, detail: str | None = None) -> None:
        super().__init__(code if detail is None else f"{code} ({detail})")
        self.code = code


class Unavailable(ConnectionError):
    """The hub cannot commit just now, and has not; the same message will do later."""


class Refused(Exception):
    """The hub does not take this agent: a wrong token, or a newer socket has the name."""


class Reject(Exception):
    """Raise it from the work to hand a task back; another agent gets it and no attempt is spent."""


@dataclass(frozen=True)
class Task:
    """One assignment. `generation` is its fencing token, `assigned_at` is in ms since the epoch.

    The three messages tell the hub how the work goes; while the socket is down they are left out.
    """

    id: str
    generation: int
    description: str = field(compare=False)
    metadata: dict[str, Any] = field(compare=False)
    assigned_at: int = field(compare=False)
    agent: Agent = field(compare=False, repr=False)

    async def progress(self, percent: float | None = None, message: str | None = None) -> None:
        """Say that the task is alive, and how far it is (0 to 100)."""
        await self.agent.tell("task_progress", self, progress=percent, message=message)

    async def blocked(self, reason: str) -> None:
        """Say that the task waits for a person; it does not count as stuck until `unblocked`."""
        await self.agent.tell("task_blocked", self, reason=reason)

    async def unblocked(self) -> None:
        await self.agent.tell("task_unblocked", self)


class Connection:
    """One open socket. `request` sends a message and waits for its answer; they come in order.
    `next_push` waits for what comes unasked. Once the socket is gone all raise `ConnectionClosed`.
    """

    def __init__(self, socket: ClientConnection, observe: Observer | None = None) -> None:
        self.socket = socket
        self._observe = observe
        self._waiting: deque[asyncio.Future[Message]] = deque()
        self._pushes: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, url: str, observe: Observer | None = None) -> Connection:
        # Frames are small: compressing them costs more memory per agent than it saves.
        return cls(await connect(url, compression=None, open_timeout=30), observe)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.socket.close()
        await self._reader

    def cut(self) -> None:
        """Drop the connection without a word, as a crash or a lost network does."""
        self.socket.transport.abort()

    async def identify(self, agent_id: str, token: str, **about: Any) -> Message:
        """`about`: name, status, capabilities, presence. Raises `HubError` on a wrong token."""
        return await self.request("identify", agent_id=agent_id, token=token, **about)

    async def send(self, type: str, **fields: Any) -> None:
        await self.socket.send(_frame(type, fields))

    async def request(self, type: str, **fields: Any) -> Message:
        """Raises `HubError` when the answer is an error, `Unavailable` when it is worth a retry."""
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        frame = _frame(type, fields)
        self._waiting.append(answer)
        try:
            await self.socket.send(frame)
        except ConnectionClosed:
            answer.cancel()  # nobody will wait for it
            raise
        message = await answer
        if message["type"] == "error":
            code: str = message["error"]
            if code.endswith("unavailable"):
                raise Unavailable(code)
            raise HubError(code, message.get("detail"))
        return message

    async def next_push(self) -> Message:
        push = await self._pushes.get()
        if isinstance(push, Exception):
            self._pushes.put_nowait(push)
            raise push
        return push

    async def _read(self) -> None:
        try:
            while True:
                self._deliver(json.loads(await self.socket.recv()))
        except Exception as gone:  # whatever it was, nobody may wait for an answer any longer
            self._pushes.put_nowait(gone)
            for answer in self._waiting:
                if not answer.done():
                    answer.set_exception(gone)

    def _deliver(self, message: Message) -> None:
        if self._observe:
            self._observe(message)
        if not self._waiting or message["type"] in PUSHES or _is_about_progress(message):
            self._pushes.put_nowait(message)
        elif not (answer := self._waiting.popleft()).done():
            answer.set_result(message)


class Agent:
    """A worker that stays connected: it takes one task at a time and tells the hub the outcome.

    What `work` returns is the task's result, what it raises is its error. A task outlives a lost
    socket: the work goes on, and after the reconnect the agent delivers the outcome, or asks
    whether the task is still its own.

    Of several addresses in `url` each attempt to connect takes the next. The delay before it is
    drawn at random below a bound that doubles from `first_delay_s` up to `longest_delay_s`, so
    that a fleet does not come back all at once; a hub that restarts says a bound itself.
    `observe` sees every frame from the hub.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        agent_id: str,
        token: str,
        work: Work,
        *,
        name: str | None = None,
        capabilities: Iterable[str] = (),
        first_delay_s: float = 0.5,
        longest_delay_s: float = 30.0,
        observe: Observer | None = None,
    ) -> None:
        self._urls = cycle([url] if isinstance(url, str) else url)
        self.agent_id = agent_id
        self.token = token
        self.work = work
        self.about = {"name": name, "capabilities": list(capabilities)}
        self.first_delay_s = first_delay_s
        self.longest_delay_s = longest_delay_s
        self.observe = observe
        self._hub: Connection | None = None  # set while identified
        self._task: Task | None = None
        self._working: asyncio.Future[dict[str, Any]] | None = None
        self._settled: Task | None = None
        self._stopping = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._hub is not None

    async def run(self) -> None:
        """Serve until `stop`. Raises `Refused` where connecting again would not help."""
        lost_in_a_row = 0
        try:
            while not self._stopping.is_set():
                try:
                    async with await Connection.open(next(self._urls), self.observe) as hub:
                        await self._identify(hub)
                        lost_in_a_row = 0
                        if self._stopping.is_set():
                            await self.stop()
                        await self._serve(hub)
                except LOST as lost:
                    self._hub = None
                    if _was_superseded(lost):
                        raise Refused(f"{self.agent_id}: superseded by a newer socket") from lost
                    restart_s = _restart_bound_s(lost)
                    if restart_s is not None:
                        lost_in_a_row = 0
                    if not self._stopping.is_set():
                        bound_s = restart_s or self.first_delay_s * 2**lost_in_a_row
                        await self._wait_before_attempt(bound_s, lost)
                        lost_in_a_row += 1
        finally:
            self._hub = None
            self._let_go()

    async def stop(self) -> None:
        """Hand back the task in hand, sign off, and let `run` return."""
        self._stopping.set()
        if self._hub is None:
            return
        with suppress(*LOST, HubError):
            if self._task and self._working and not self._working.done():
                task = self._task
                self._let_go()
                await self._hub.request("task_rejected", task_id=task.id, reason="signing off")
            await self._hub.request("sign_off")

    def cut(self) -> None:
        """Lose the socket without a word, to see what the hub makes of it; `run` reconnects."""
        if self._hub:
            self._hub.cut()

    async def tell(self, type: str, task: Task, **fields: Any) -> None:
        """Left out while the socket is down, and for a task that is no longer in hand."""
        if self._hub is None or task is not self._task:
            return
        send = self._hub.send if type == "task_progress" else self._hub.request
        with suppress(*LOST, HubError):
            await send(type, task_id=task.id, generation=task.generation, **fields)

    async def _identify(self, hub: Connection) -> None:
        try:
            await hub.identify(self.agent_id, self.token, **self.about)
        except HubError as error:
            raise Refused(f"{self.agent_id}: {error}") from error
        self._hub = hub
        logger.info("%s is connected", self.agent_id)

    async def _serve(self, hub: Connection) -> None:
        await self._resume(hub)
        push = asyncio.ensure_future(hub.next_push())
        try:
            while True:
                awaited = [push, self._working] if self._working else [push]
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if self._task and self._working and self._working.done():
                    await self._settle(hub, self._task, self._working)
                if push.done():
                    message = push.result()
                    push = asyncio.ensure_future(hub.next_push())
                    if message["type"] == "task_assign" and not self._stopping.is_set():
                        await self._take(hub, message)
        finally:
            _drop(push)

    async def _resume(self, hub: Connection) -> None:
        """Ask whether the task in hand is still ours; a finished one will simply be delivered."""
        if self._task is None or (self._working and self._working.done()):
            return
        answer = await hub.request("task_recovering", task_id=self._task.id)
        if answer.get("generation") == self._task.generation:  # `task_continue`
            self._begin(self._task)
        else:
            self._let_go()

    async def _take(self, hub: Connection, push: Message) -> None:
        task = Task(
            id=push["task_id"],
            generation=push["generation"],
            description=push["description"],
            metadata=push["metadata"],
            assigned_at=push["assigned_at"],
            agent=self,
        )
        if task == self._settled:
            return
        if task != self._task:
            self._let_go()
            self._task = task
        try:
            await hub.request("task_accepted", task_id=task.id, generation=task.generation)
        except HubError as error:
            logger.info("%s cannot have %s: %s", self.agent_id, task.id, error)
            self._let_go()
        else:
            self._begin(task)

    def _begin(self, task: Task) -> None:
        if self._working is None:
            self._working = asyncio.ensure_future(self.work(task))

    async def _settle(
        self, hub: Connection, task: Task, working: asyncio.Future[dict[str, Any]]
    ) -> None:
        """Deliver the outcome. Until it is answered the task stays in hand, for the next socket."""
        type, outcome = _outcome(working)
        try:
            await hub.request(type, task_id=task.id, generation=task.generation, **outcome)
        except HubError as error:
            # Mostly the task is somebody else's by now, and this is refused as well. But a result
            # that the hub cannot take must not leave it waiting for another one.
            with suppress(HubError):
                failure = {"generation": task.generation, "error": f"result refused: {error}"}
                await hub.request("task_failed", task_id=task.id, **failure)
        if self._task is task:
            self._settled, self._task, self._working = task, None, None

    def _let_go(self) -> None:
        if self._working:
            _drop(self._working)
        self._task = self._working = None

    async def _wait_before_attempt(self, bound_s: float, why: Exception) -> None:
        delay_s = random.uniform(0, min(self.longest_delay_s, bound_s))
        logger.info("%s lost the hub (%s), tries again in %.1f s", self.agent_id, why, delay_s)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay_s)


def _encode(message: Message) -> str:
    return json.dumps(message, allow_nan=False, separators=(",", ":"))


def _frame(type: str, fields: Message) -> str:
    return _encode(
        {"type": type, **{name: value for name, value in fields.items() if value is not None}}
    )


def _outcome(work: asyncio.Future[dict[str, Any]]) -> tuple[str, Message]:
    try:
        result = work.result()
        if len(_encode(result)) > LARGEST_RESULT:
            raise ValueError(f"the result is larger than {LARGEST_RESULT} bytes")
    except (Reject, asyncio.CancelledError) as handed_back:
        return "task_rejected", {"reason": str(handed_back) or "cancelled"}
    except Exception as error:
        return "task_failed", {"error": (str(error) or repr(error))[:LONGEST_ERROR]}
    return "task_complete", {"result": result}


def _drop(future: asyncio.Future[Any]) -> None:
    """Nobody asks any more what comes of it, or what came of it: asyncio would complain of that."""
    if not future.cancel() and not future.cancelled():
        future.exception()


def _was_superseded(lost: Exception) -> bool:
    return _close_of(lost)[0] == SUPERSEDED


def _restart_bound_s(lost: Exception) -> float | None:
    """Within how many s to come back to a hub that restarts; None when it does not."""
    code, reason = _close_of(lost)
    if code != RESTARTS:
        return None
    hint = COME_BACK.search(reason)
    return float(hint[1]) if hint else 1.0


def _close_of(lost: Exception) -> tuple[int | None, str]:
    """The code and reason with which the hub closed the socket."""
    if isinstance(lost, ConnectionClosed) and lost.rcvd is not None:
        return lost.rcvd.code, lost.rcvd.reason
    return None, ""


def _is_about_progress(message: Message) -> bool:
    """A progress report has no answer, so its error must not pass for the answer to another."""
    return message["type"] == "error" and str(message["error"]).startswith("task_progress_failed")
