"""The only way to change state: commands wait in a queue, and a thread commits them in groups.

1. When the thread has the write lock, it takes all waiting commands. While one group is being
   committed, here or in another process, the next one accumulates; nothing is delayed on purpose.
2. The group is applied and committed as one transaction (`agentcom.commit`), retried while the
   database is unavailable.
3. Only then are the callers notified, so an ack always means "on disk".

A refused command affects only its own caller. An unexpected error rolls the group back and replays
it command by command, so that one poisoned command affects no other. Nothing acked is lost, and
nothing is acked before it is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection

from agentcom.commit import Applied, RetriedCommit, Transaction
from agentcom.database import readiness
from agentcom.errors import Refused, Unavailable
from agentcom.journal import journal
from agentcom.models import Event
from agentcom.work import Command

logger = logging.getLogger(__name__)

GROUP_MAX = 500  # commands in a transaction
SLOW_S = 5.0  # a group that takes longer is stuck: a lock, a slow disk, a hung server
SLOW = f"nothing could be committed for over {SLOW_S:g} s"


@dataclass(slots=True, eq=False)
class Pending:
    """A command and its caller's future, of an event loop or of a thread."""

    command: Command
    future: Any
    loop: asyncio.AbstractEventLoop | None = None
    result: Any = None
    error: BaseException | None = None
    is_from_caller: bool = True  # False for the command that ends every group

    def settle(self) -> None:
        if self.future.done():  # the caller gave up
            return
        # a thread may give up between that check and this answer
        with contextlib.suppress(InvalidStateError):
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)


class Group:
    """Commands that are committed together. Those waiting in `queue` are added under the lock."""

    def __init__(self, pending: list[Pending], queue: CommandQueue | None = None) -> None:
        self.pending = pending
        self._queue = queue

    def gather(self) -> None:
        if self._queue is not None:
            self._queue.move_to(self.pending)
            self._queue = None

    def drop_cancelled(self) -> None:
        self.pending = [pending for pending in self.pending if not pending.future.cancelled()]

    def commands(self) -> list[Command]:
        return [pending.command for pending in self.pending]

    def settle(self, outcomes: Sequence[Any]) -> None:
        for pending, outcome in zip(self.pending, outcomes, strict=True):
            if isinstance(outcome, Refused):
                pending.error = outcome
            else:
                pending.result = outcome
        _notify(self.pending)

    def fail(self, error: Exception) -> None:
        """Pass the error to the callers; for a group of one."""
        for pending in self.pending:
            pending.error = error
        _notify(self.pending)


@dataclass(frozen=True, slots=True)
class GroupEnd:
    """What became of a group's commands, without the one that ends every group."""

    commands: int
    refused: int
    failed: int  # unexpectedly: a bug
    seconds: float  # from its turn on: waiting for the lock and repeated attempts included


class CommandQueue:
    """The waiting commands, and the command that ends every group. Bounded and thread-safe."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self._last: tuple[Command, Callable[[Any], None]] | None = None

    def __len__(self) -> int:
        return self._waiting.qsize()

    def put(self, pending: Pending) -> None:
        """Raises `Unavailable` when too many commands wait."""
        if len(self) >= settings.AGENTCOM_WRITER_QUEUE:
            raise Unavailable("too many commands are waiting")
        self._waiting.put(pending)

    def end(self) -> None:
        """Mark the end: nothing put after it is taken."""
        self._waiting.put(None)

    def end_groups_with(self, command: Command, notify: Callable[[Any], None]) -> None:
        self._last = command, notify

    def first(self) -> Pending | None:
        """Wait for the next command; None at the end."""
        return self._waiting.get()

    def move_to(self, group: list[Pending]) -> None:
        """Add all waiting commands, and the one that ends every group."""
        while len(group) < GROUP_MAX:
            try:
                pending = self._waiting.get_nowait()
            except queue.Empty:
                break
            if pending is None:
                self.end()  # the group is committed before the end is handled
                break
            group.append(pending)
        if self._last is not None:
            group.append(_notifying(*self._last))


class Writer:
    """Starts its thread with the first command. Thread-safe."""

    def __init__(
        self,
        committed: Callable[[list[Event]], None] | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        """`committed` gets each commit's events; `clock` replaces the database's clock."""
        self.transaction = Transaction(clock)
        self.queue = CommandQueue()
        self._committed = committed
        self._watchers: list[Callable[[GroupEnd], None]] = []
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._trouble = ""
        self._busy_since: float | None = None  # monotonic, s

    @property
    def trouble(self) -> str:
        """Why nothing can be committed at the moment; empty if there is no trouble."""
        busy_since = self._busy_since
        is_slow = busy_since is not None and time.monotonic() - busy_since > SLOW_S
        return self._trouble or (SLOW if is_slow else "")

    @property
    def thread_number(self) -> int | None:
        """The system's number of its thread; None as long as there is none."""
        return self._thread.native_id if self._thread is not None else None

    def note_trouble(self, reason: str) -> None:
        """Set the trouble until the next commit of a caller's command."""
        self._trouble = reason

    async def do(self, command: Command, timeout: float | None = None) -> Any:
        """Returns the command's result once it is committed.

        Raises `Refused` if it was refused, `Unavailable` if the process is not ready, too many
        commands wait, or it was not committed within `timeout` s. A command that has not been
        started by then never will be.
        """
        readiness.require()
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._put(Pending(command, future, loop))
        if timeout is None:
            return await future
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise self._unavailable() from None

    def call(self, command: Command, timeout: float | None = None) -> Any:
        """Like `do`, for a thread without an event loop, which does not depend on the journal."""
        future: Future[Any] = Future()
        self._put(Pending(command, future))
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise self._unavailable() from None

    def call_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Any]:
        """Like `call`, for many commands that share commits. Returns each result or `Refused`."""
        futures: list[Future[Any]] = []
        try:
            for command in commands:
                future: Future[Any] = Future()
                self._put(Pending(command, future))
                futures.append(future)
            if wait(futures, timeout).not_done:
                raise self._unavailable()
        except Unavailable:
            for future in futures:
                future.cancel()
            raise
        return [_result_of(future) for future in futures]

    def end_groups_with(self, command: Command, notify: Callable[[Any], None]) -> None:
        """From now on apply `command` at the end of every group.

        `notify` gets its result on the Writer's thread, once committed and before the next group.
        """
        self.queue.end_groups_with(command, notify)

    def watch_groups(self, watch: Callable[[GroupEnd], None]) -> None:
        """From now on call this after each commit, on the Writer's thread and before its callers
        are answered, who wait for it."""
        self._watchers.append(watch)

    def stop(self) -> None:
        """Commit the waiting commands, then end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self.queue.end()
            thread.join()

    def commit(self, commands: Sequence[Command]) -> list[Any]:
        """One transaction on this thread. Returns each command's result or its `Refused`."""
        applied = self.transaction.run(commands)
        self._announce(applied.work)
        return applied.outcomes

    def _put(self, pending: Pending) -> None:
        readiness.require_database()
        self.queue.put(pending)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        try:
            while (first := self.queue.first()) is not None:
                self._busy_since = time.monotonic()
                self._commit_group(Group([first], self.queue))
                self._busy_since = None
        finally:
            connection.close()

    def _commit_group(self, group: Group) -> None:
        began = time.monotonic()
        try:
            applied = RetriedCommit(self.transaction, group, self.note_trouble).run()
        except Exception as error:
            self._replay(group, error, began)
            return
        if applied is not None:
            self._finish(group, applied, began)

    def _finish(self, group: Group, applied: Applied, began: float) -> None:
        # the last command of each group may write nothing, and then proves nothing
        if any(pending.is_from_caller for pending in group.pending):
            self._trouble = ""
        # before the callers, who must find what is committed everywhere
        self._announce(applied.work)
        self._tell_watchers(group, applied.outcomes, began)
        group.settle(applied.outcomes)

    def _replay(self, group: Group, error: Exception, began: float) -> None:
        """Commit each command by itself; the poisoned one gets its error."""
        if len(group.pending) > 1:
            logger.warning(
                "A group of %d commands failed; replaying them one by one", len(group.pending)
            )
            for pending in group.pending:
                self._commit_group(Group([pending]))
            return
        commands = group.commands()
        logger.error("A command failed and changed nothing: %r", commands, exc_info=error)
        self._tell_watchers(group, [error] * len(commands), began)
        group.fail(error)

    def _tell_watchers(self, group: Group, outcomes: Sequence[Any], began: float) -> None:
        """Before the callers, who must find counted what they have been answered."""
        if not self._watchers:
            return
        pairs = zip(group.pending, outcomes, strict=True)
        found = [outcome for pending, outcome in pairs if pending.is_from_caller]
        refused = sum(isinstance(outcome, Refused) for outcome in found)
        failed = sum(isinstance(outcome, Exception) for outcome in found) - refused
        end = GroupEnd(len(found), refused, failed, time.monotonic() - began)
        for watch in self._watchers:
            try:
                watch(end)
            except Exception:
                logger.exception("What watches the Writer failed; commits continue")

    def _announce(self, work: Any) -> None:
        if self._committed is not None and work.events:
            self._committed(work.events)

    def _unavailable(self) -> Unavailable:
        trouble = self.trouble
        return Unavailable(trouble) if trouble else Unavailable()


def _notifying(command: Command, notify: Callable[[Any], None]) -> Pending:
    def done(future: Future[Any]) -> None:
        if future.exception() is None:
            notify(future.result())

    future: Future[Any] = Future()
    future.add_done_callback(done)
    return Pending(command, future, is_from_caller=False)


def _result_of(future: Future[Any]) -> Any:
    error = future.exception()
    if error is None or isinstance(error, Refused):
        return error or future.result()
    raise error


def _notify(group: list[Pending]) -> None:
    """Wake each waiting event loop once, rather than once for each command.

    Loops come before threads, and the command that ends the group counts as a thread's: an agent
    gets the ack of its task before its next task.
    """
    loops: dict[asyncio.AbstractEventLoop | None, list[Pending]] = defaultdict(list)
    for pending in group:
        loops[pending.loop].append(pending)
    threads = loops.pop(None, [])
    for loop, waiting in loops.items():
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(_settle, waiting)
    _settle(threads)


def _settle(waiting: list[Pending]) -> None:
    for pending in waiting:
        pending.settle()


writer = Writer(committed=journal.committed)
