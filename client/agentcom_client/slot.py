"""One identity of an agent: one socket, one task at a time. `agent.py` runs several together."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from agentcom_client.connection import Connection, Message, Observer, encode
from agentcom_client.errors import HubError, NoRetry, Refused, Reject, RetryAfter

logger = logging.getLogger(__name__)

Work = Callable[["Task"], Awaitable["dict[str, Any] | None"]]

LOST = (OSError, asyncio.TimeoutError, InvalidHandshake, ConnectionClosed)
RESTARTS = 1012
COME_BACK = re.compile(r"within (\d+) s")  # in the reason of a 1012
SUPERSEDED = 4409
LARGEST_RESULT = 255 * 1024  # the hub closes the socket on a frame of more than 256 KiB
LONGEST_ERROR = 4_000


@dataclass(frozen=True)
class Cancel:
    """The hub wants a task to end. After the deadline (ms since the epoch) it ends it by itself."""

    reason: str
    deadline: int | None


@dataclass(frozen=True)
class Task:
    """One assignment. `generation` is its fencing token, `assigned_at` is in ms since the epoch.

    The three methods report to the hub how the work is going. They do nothing while the socket is
    down.
    """

    id: str
    generation: int
    description: str = field(compare=False)
    metadata: dict[str, Any] = field(compare=False)
    assigned_at: int = field(compare=False)
    agent: Slot = field(compare=False, repr=False)

    @property
    def cancel(self) -> Cancel | None:
        """Tells in an `except asyncio.CancelledError` why the work is to stop: at the hub's
        request, or, if None, because the agent stops or the task is no longer assigned to it."""
        return self.agent.cancel_of(self)

    async def progress(self, percent: float | None = None, message: str | None = None) -> None:
        """Report a sign of life, and how far the task is (0 to 100).

        A report that repeats the last one is no sign of life; one without arguments always is.
        """
        await self.agent.report("task_progress", self, progress=percent, message=message)

    async def blocked(self, reason: str) -> None:
        """Report that the task waits for a person; until `unblocked` it does not count as stuck."""
        await self.agent.report("task_blocked", self, reason=reason)

    async def unblocked(self) -> None:
        await self.agent.report("task_unblocked", self)


class Slot:
    """Connects, takes one task at a time, reports the outcome, and connects again: `run`.

    What `work` returns is the task's result; an exception becomes its error. A task survives a
    lost socket: the work continues, and after the reconnect the slot delivers the outcome, or asks
    whether the task is still assigned to it.

    When the hub cancels the task, `work` is cancelled like any coroutine. It may clean up, also
    with `await`, and return what it has so far; only then is the next task begun.

    `urls` are the addresses of agents' sockets; each attempt to connect uses the next one. The
    other parameters are those of `Agent`. `number` is sent as the `slot` of the agent.
    """

    def __init__(
        self,
        urls: Sequence[str],
        token: str,
        work: Work,
        *,
        agent_id: str | None = None,
        number: int | None = None,
        name: str | None = None,
        capabilities: Iterable[str] = (),
        accepts: Iterable[str] = ("cancel",),
        first_delay_s: float = 0.5,
        longest_delay_s: float = 30.0,
        heartbeat_s: float | None = None,
        observe: Observer | None = None,
    ) -> None:
        self._urls = cycle(urls)
        self._name = agent_id
        self.agent_id = agent_id or ""  # until the hub has said it
        self.token = token
        self.work = work
        self.about = {
            "slot": number,
            "name": name,
            "capabilities": list(capabilities),
            "accepts": list(accepts),
        }
        self.first_delay_s = first_delay_s
        self.longest_delay_s = longest_delay_s
        self.heartbeat_s = heartbeat_s
        self.observe = observe
        self._hub: Connection | None = None  # set while identified
        self._task: Task | None = None
        self._working: asyncio.Future[dict[str, Any] | None] | None = None
        self._cancel: Cancel | None = None  # of the current task
        self._is_dropped = False  # nobody waits for the outcome of the current task
        self._next: Message | None = None  # an assignment that waits for the current work to end
        self._settled: Task | None = None
        self._stopping = asyncio.Event()
        self._is_draining = False
        self._idle = asyncio.Event()  # there is no current task
        self._idle.set()

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
            if self._working:
                await asyncio.wait([self._working])
                self._let_go()

    async def stop(self) -> None:
        """Stop the work, sign off once it has ended, and let `run` return. Signing off gives the
        current task back: earlier, another agent could begin it while this one cleans up."""
        self._stopping.set()
        if self._hub is None:
            return
        if self._working and not self._working.done():
            self._let_go()
            await asyncio.wait([self._working])
        if self._hub is not None:
            with suppress(*LOST, HubError):
                await self._hub.request("sign_off")

    async def drain(self) -> None:
        """Begin no other task, deliver the outcome of the current one when it has ended, and then
        `stop`."""
        self._is_draining = True
        await self._idle.wait()
        await self.stop()

    def cut(self) -> None:
        """Drop the socket without a close frame, to test the hub's reaction; `run` reconnects."""
        if self._hub:
            self._hub.cut()

    def cancel_of(self, task: Task) -> Cancel | None:
        return self._cancel if task is self._task else None

    async def report(self, type: str, task: Task, **fields: Any) -> None:
        """Does nothing while the socket is down, or when the task is no longer the current one."""
        if self._hub is None or task is not self._task or self._is_dropped:
            return
        send = self._hub.send if type == "task_progress" else self._hub.request
        with suppress(*LOST, HubError):
            await send(type, task_id=task.id, generation=task.generation, **fields)

    async def _identify(self, hub: Connection) -> None:
        try:
            identified = await hub.identify(self._name, self.token, **self.about)
        except HubError as error:
            raise Refused(f"{self.agent_id or 'this agent'}: {error}") from error
        self.agent_id = identified.get("agent_id", self.agent_id)
        self._hub = hub
        logger.info("%s is connected", self.agent_id)

    async def _serve(self, hub: Connection) -> None:
        self._next = None  # what was still assigned is pushed again
        await self._resume(hub)
        push = asyncio.ensure_future(hub.next_push())
        try:
            while True:
                awaited: list[asyncio.Future[Any]] = [push]
                if self._working:
                    awaited.append(self._working)
                done, _ = await asyncio.wait(
                    awaited, timeout=self.heartbeat_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done and self._task and self._working:
                    await self._task.progress()
                if self._task and self._working and self._working.done():
                    await self._finish(hub, self._task, self._working)
                if push.done():
                    message = push.result()
                    push = asyncio.ensure_future(hub.next_push())
                    if not self._stopping.is_set():
                        await self._react(hub, message)
        finally:
            _drop(push)

    async def _resume(self, hub: Connection) -> None:
        """Ask whether the current task is still ours. A finished one needs no question: its outcome
        is delivered."""
        if self._task is None or self._is_dropped or (self._working and self._working.done()):
            return
        answer = await hub.request("task_recovering", task_id=self._task.id)
        if answer.get("generation") == self._task.generation:  # `task_continue`
            self._begin(self._task)
        else:
            self._let_go()

    async def _react(self, hub: Connection, push: Message) -> None:
        match push["type"]:
            case "task_assign":
                await self._take(hub, push)
            case "task_cancel":
                await self._stop_work(hub, push)

    async def _take(self, hub: Connection, push: Message) -> None:
        task = Task(
            id=push["task_id"],
            generation=push["generation"],
            description=push["description"],
            metadata=push["metadata"],
            assigned_at=push["assigned_at"],
            agent=self,
        )
        if task == self._settled or self._is_draining:  # signing off gives it back
            return
        if task != self._task:
            self._let_go()
            if self._task is not None:  # its work cleans up
                self._next = push
                return
            self._task = task
            self._idle.clear()
        try:
            await hub.request("task_accepted", task_id=task.id, generation=task.generation)
        except HubError as error:
            logger.info("%s was refused %s: %s", self.agent_id, task.id, error)
            self._let_go()
        else:
            self._begin(task)

    def _begin(self, task: Task) -> None:
        if self._working is None:
            self._working = asyncio.ensure_future(self.work(task))

    async def _stop_work(self, hub: Connection, push: Message) -> None:
        """The hub wants a task to end; it may say so again, with an earlier deadline."""
        asked = (push["task_id"], push["generation"])
        if self._task and asked == (self._task.id, self._task.generation):
            if self._interrupt() or self._cancel:
                self._cancel = Cancel(push["reason"], push["deadline"])
            return
        if self._settled and asked == (self._settled.id, self._settled.generation):
            return
        if self._next and asked == (self._next["task_id"], self._next["generation"]):
            self._next = None
        # It was not begun; perhaps its assignment was lost. Without an answer the hub would wait.
        with suppress(HubError):
            await hub.request("task_cancelled", task_id=asked[0], generation=asked[1])

    async def _finish(
        self, hub: Connection, task: Task, working: asyncio.Future[dict[str, Any] | None]
    ) -> None:
        """The work has ended: deliver the outcome, and go on with what has waited for it."""
        if self._is_dropped:
            self._let_go()
        else:
            await self._settle(hub, task, working)
        push, self._next = self._next, None
        if push is not None and not self._stopping.is_set():
            await self._take(hub, push)

    async def _settle(
        self, hub: Connection, task: Task, working: asyncio.Future[dict[str, Any] | None]
    ) -> None:
        """Until it is answered the task is kept, for the next socket."""
        type, outcome = _outcome(working) if self._cancel is None else _last_words(task, working)
        try:
            await hub.request(type, task_id=task.id, generation=task.generation, **outcome)
        except HubError as error:
            logger.info(
                "%s: the hub did not take %s of %s: %s", self.agent_id, type, task.id, error
            )
            # Usually the hub has ended the task or given it to another agent by now, and this is
            # refused as well. But if it refused the result itself, it must not keep waiting.
            with suppress(HubError):
                failure = {"generation": task.generation, "error": f"result refused: {error}"}
                await hub.request("task_failed", task_id=task.id, **failure)
        if self._task is task:
            self._settled = task
            self._forget()

    def _let_go(self) -> None:
        """Stop the work. It stays the current one while it cleans up: two never run at once."""
        self._interrupt()
        if self._working and not self._working.done():
            self._is_dropped = True
            return
        if self._working:
            _drop(self._working)
        self._forget()

    def _interrupt(self) -> bool:
        """Whether there was anything to do: a second time would end the cleanup."""
        if self._working is None or self._cancel or self._is_dropped:
            return False
        return self._working.cancel()

    def _forget(self) -> None:
        self._task = self._working = self._cancel = None
        self._is_dropped = False
        self._idle.set()

    async def _wait_before_attempt(self, bound_s: float, why: Exception) -> None:
        delay_s = random.uniform(0, min(self.longest_delay_s, bound_s))
        name = self.agent_id or "an agent"
        logger.info("%s lost the hub (%s), retrying in %.1f s", name, why, delay_s)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay_s)


def _outcome(work: asyncio.Future[dict[str, Any] | None]) -> tuple[str, Message]:
    try:
        result = _checked(work.result())
    except (Reject, asyncio.CancelledError) as handed_back:
        return "task_rejected", {"reason": str(handed_back) or "cancelled"}
    except NoRetry as error:
        return "task_failed", {"error": _text(error), "retryable": False}
    except RetryAfter as error:
        return "task_failed", {"error": _text(error), "retry_after_s": error.seconds}
    except Exception as error:
        return "task_failed", {"error": _text(error)}
    return "task_complete", {"result": result}


def _last_words(task: Task, work: asyncio.Future[dict[str, Any] | None]) -> tuple[str, Message]:
    """Of a work that was cancelled: what it had so far, if it returned it."""
    try:
        return "task_cancelled", {"result": _checked(work.result())}
    except asyncio.CancelledError:
        pass
    except Exception as error:
        logger.info("%s ended with an error when it was cancelled: %s", task.id, _text(error))
    return "task_cancelled", {}


def _checked(result: dict[str, Any] | None) -> dict[str, Any]:
    if result is None:
        return {}
    if not isinstance(result, dict):
        raise TypeError(f"work must return a dict or None, not {type(result).__name__}")
    if len(encode(result)) > LARGEST_RESULT:
        raise ValueError(f"the result is larger than {LARGEST_RESULT} bytes")
    return result


def _text(error: Exception) -> str:
    return (str(error) or repr(error))[:LONGEST_ERROR]


def _drop(future: asyncio.Future[Any]) -> None:
    """Cancel it, or fetch its exception: asyncio logs an exception that nobody fetched."""
    if not future.cancel() and not future.cancelled():
        future.exception()


def _was_superseded(lost: Exception) -> bool:
    return _close_of(lost)[0] == SUPERSEDED


def _restart_bound_s(lost: Exception) -> float | None:
    """Within how many s to reconnect to a hub that restarts; None when it does not restart."""
    code, reason = _close_of(lost)
    if code != RESTARTS:
        return None
    hint = COME_BACK.search(reason)
    return float(hint[1]) if hint else 1.0


def _close_of(lost: Exception) -> tuple[int | None, str]:
    """The hub's close code and reason."""
    if isinstance(lost, ConnectionClosed) and lost.rcvd is not None:
        return lost.rcvd.code, lost.rcvd.reason
    return None, ""
