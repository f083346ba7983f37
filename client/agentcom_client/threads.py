"""Plain functions as work: each task has a thread of its own, and the event loop stays free."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from agentcom_client.errors import Cancelled
from agentcom_client.slot import Cancel, Task, Work

PlainWork = Callable[["ThreadTask"], "dict[str, Any] | None"]

REPORT_TIMEOUT_S = 30.0


class ThreadTask:
    """A task for a plain function: the same as `Task`, without `await`."""

    def __init__(self, task: Task, loop: asyncio.AbstractEventLoop) -> None:
        self._task = task
        self._loop = loop
        self._stop = threading.Event()
        self.id = task.id
        self.generation = task.generation
        self.description = task.description
        self.metadata = task.metadata
        self.assigned_at = task.assigned_at

    @property
    def is_cancelled(self) -> bool:
        """Whether the work is to stop. What the function returns then is the last it has to say."""
        return self._stop.is_set()

    @property
    def cancel(self) -> Cancel | None:
        """Why, if it was at the hub's request; None when the agent stops or lost the task."""
        return self._task.cancel

    def check(self) -> None:
        """Raises `Cancelled` when the work is to stop."""
        if self._stop.is_set():
            raise Cancelled(self.cancel.reason if self.cancel else "the agent stops")

    def wait(self, seconds: float) -> bool:
        """Sleep, but not beyond a cancellation: gives whether the work is to stop."""
        return self._stop.wait(seconds)

    def progress(self, percent: float | None = None, message: str | None = None) -> None:
        """As `Task.progress`."""
        self._do(self._task.progress(percent, message))

    def blocked(self, reason: str) -> None:
        """As `Task.blocked`."""
        self._do(self._task.blocked(reason))

    def unblocked(self) -> None:
        self._do(self._task.unblocked())

    def _do(self, report: Coroutine[Any, Any, None]) -> None:
        """Does nothing once the agent has ended, or when the hub does not answer for long."""
        if self._loop.is_closed():
            report.close()
            return
        with suppress(TimeoutError, asyncio.TimeoutError):
            asyncio.run_coroutine_threadsafe(report, self._loop).result(REPORT_TIMEOUT_S)


def in_threads(work: PlainWork) -> Work:
    """`work` as a coroutine function."""

    async def run(task: Task) -> dict[str, Any] | None:
        shown = ThreadTask(task, asyncio.get_running_loop())
        outcome = _in_thread(work, shown)
        while True:
            try:
                return await asyncio.shield(outcome)
            except asyncio.CancelledError:
                shown._stop.set()  # a thread cannot be ended from outside: wait until it has
            except Cancelled:
                raise asyncio.CancelledError from None

    return run


def _in_thread(work: PlainWork, task: ThreadTask) -> asyncio.Future[dict[str, Any] | None]:
    """A daemon thread: one that does not stop keeps no process from ending."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[dict[str, Any] | None] = loop.create_future()

    def settle(result: dict[str, Any] | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(result)
        else:
            outcome.set_exception(error)

    def run() -> None:
        result: dict[str, Any] | None = None
        error: BaseException | None = None
        try:
            returned: Any = work(task)
            if inspect.iscoroutine(returned):
                returned.close()
                raise TypeError("work returned a coroutine: declare it with `async def`")
            result = returned
        except StopIteration as wrong:  # a future cannot carry it
            error = RuntimeError(f"work raised {wrong!r}")
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=f"work on {task.id}", daemon=True).start()
    return outcome
