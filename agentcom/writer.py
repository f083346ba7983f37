"""The one way in: a thread that commits waiting commands in groups.

1. Once it is its turn it takes whatever commands wait. While one group commits, here or in
   another process, the next gathers; nothing is delayed on purpose.
2. All rows that they name are read at once; they are applied one after the other; changed rows,
   then the new events are written; commit.
3. Only then are the callers told, so an ack always means "on disk".

A refused command fails its own caller only. An unexpected error rolls the group back and replays
it command by command, so that one poisoned command hurts nobody else. When the database is away,
the group is tried again with capped backoff: nothing acked is lost, nothing un-acked claimed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from django.conf import settings
from django.db import InterfaceError, InternalError, OperationalError, connection, transaction
from django.utils.module_loading import import_string

from agentcom.database import DISK_FULL, NO_ANSWER, NOW, lacks_room, now, together
from agentcom.errors import Refused, Unavailable
from agentcom.journal import LAST_SEQ, journal, last_seq
from agentcom.models import Event, Lease
from agentcom.work import Command, Projection, Work

logger = logging.getLogger(__name__)

GROUP_MAX = 500  # commands a transaction
BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
SUSPECT_MAX = 3  # failed attempts in a row after each of which the database was well
TROUBLE_AFTER = 3  # failed attempts in a row: no longer a hiccup
# How long PostgreSQL keeps a transaction of ours open that nobody speaks in (ms). A host that
# vanished or froze holds the lock of all writers; TCP alone would notice after hours.
IDLE_IN_TRANSACTION_MS = 5_000
# Any constant that nothing else in the database uses as an advisory lock.
WRITER_LOCK = 0x4147434D
# In all processes, until the end of the transaction. SQLite's immediate transaction is such a lock
# by itself. On PostgreSQL it comes before the first read, so that no row is ever locked in another
# order and `seq` order is commit order.
BE_THE_ONLY_WRITER = (
    "SELECT set_config('idle_in_transaction_session_timeout', %s, true), pg_advisory_xact_lock(%s)",
    (str(IDLE_IN_TRANSACTION_MS), WRITER_LOCK),
)

# The last is what a session meets that PostgreSQL ended because nobody spoke in its transaction.
Away = (OperationalError, InterfaceError, InternalError)


@dataclass(slots=True, eq=False)
class Pending:
    """A command and who waits for it: a future of an event loop, or of a thread."""

    command: Command
    future: Any
    loop: asyncio.AbstractEventLoop | None = None
    result: Any = None
    error: BaseException | None = None
    is_asked: bool = True  # by somebody, and not what ends every group

    def settle(self) -> None:
        if self.future.done():  # the caller gave up
            return
        # a thread may give up between that look and this answer
        with contextlib.suppress(InvalidStateError):
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)


class Writer:
    """Starts its thread with the first command. Thread-safe."""

    def __init__(self, committed: Callable[[list[Event]], None] | None = None) -> None:
        self._committed = committed
        self._waiting: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._projections: list[Projection] | None = None
        self._last: tuple[Command, Callable[[Any], None]] | None = None
        self.trouble = ""  # why nothing can be committed just now

    async def do(self, command: Command, timeout: float | None = None) -> Any:
        """Give what the command gives, once it is committed.

        Raises `Refused` when it was refused, `Unavailable` when too many commands wait or
        nothing was committed within `timeout` s. A command that had not begun by then never will.
        """
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._put(Pending(command, future, loop))
        try:
            return await asyncio.wait_for(future, timeout)
        except TimeoutError:
            raise self._unavailable() from None

    def call(self, command: Command, timeout: float | None = None) -> Any:
        """As `do`, for a thread without an event loop."""
        future: Future[Any] = Future()
        self._put(Pending(command, future))
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise self._unavailable() from None

    def call_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Any]:
        """As `call`, for many that share commits. Give each one's result, or its `Refused`."""
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
        return [_outcome(future) for future in futures]

    def end_groups_with(self, command: Command, tell: Callable[[Any], None]) -> None:
        """From now on apply `command` last in every group.

        `tell` gets its result on the Writer's thread, once committed and before the next group.
        """
        self._last = command, tell

    def stop(self) -> None:
        """Commit what waits, then end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join()

    def commit(self, commands: Sequence[Command]) -> list[Any]:
        """One transaction on this thread. Give each command's result, or its `Refused`."""
        with transaction.atomic():
            work, outcomes = self._apply(self._begin(), commands)
        self._announce(work)
        return outcomes

    def _put(self, pending: Pending) -> None:
        if self._waiting.qsize() >= settings.AGENTCOM_WRITER_QUEUE:
            raise Unavailable("too many commands are waiting")
        self._waiting.put(pending)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        try:
            while (first := self._waiting.get()) is not None:
                self._commit_group([first], gather=True)
        finally:
            connection.close()

    def _gather(self, group: list[Pending]) -> None:
        """Add all that wait by now, and what ends every group."""
        while len(group) < GROUP_MAX:
            try:
                pending = self._waiting.get_nowait()
            except queue.Empty:
                break
            if pending is None:
                self._waiting.put(None)  # commit these first
                break
            group.append(pending)
        if self._last is not None:
            group.append(_telling(*self._last))

    def _commit_group(self, group: list[Pending], gather: bool = False) -> None:
        try:
            work, outcomes = self._until_there(group, gather)
        except Exception as error:
            if len(group) > 1:
                logger.warning("A group of %d commands failed; replaying each alone", len(group))
                for pending in group:
                    self._commit_group([pending])
                return
            logger.exception("A command failed and changed nothing: %r", group[0].command)
            group[0].error = error
            _tell(group)
            return
        for pending, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, Refused):
                pending.error = outcome
            else:
                pending.result = outcome
        self._announce(work)  # first: who is told that it is committed must find it everywhere
        _tell(group)

    def _until_there(self, group: list[Pending], gather: bool) -> tuple[Work | None, list[Any]]:
        """Commit the group, however long the database is away, without those who gave up.

        With `gather`, others join it once it is its turn: while it waits for the commits of other
        processes, more come.
        """
        unsure: tuple[Work, list[Any]] | None = None  # handed over, but the answer got lost
        suspicion = 0
        for attempt in itertools.count():
            try:
                if unsure is not None and _landed(unsure[0]):
                    break
                unsure = None
                if all(pending.future.cancelled() for pending in group):
                    group.clear()
                    return None, []
                with transaction.atomic():
                    begun = self._begin()
                    if gather:
                        self._gather(group)
                        gather = False
                    group[:] = [pending for pending in group if not pending.future.cancelled()]
                    unsure = self._apply(begun, [pending.command for pending in group])
                break
            except Away as error:
                is_full = lacks_room(error)
                is_suspect = unsure is None and not is_full and _can_write()
                suspicion = suspicion + 1 if is_suspect else 0
                if suspicion == SUSPECT_MAX:
                    raise  # time and again the database was well: it is the group
                if attempt >= TROUBLE_AFTER:
                    self.trouble = DISK_FULL if is_full else NO_ANSWER
                pause = BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
                logger.warning("The database is away, next try in %s s: %s", pause, error)
                time.sleep(pause)
                connection.close()
        if any(pending.is_asked for pending in group):  # else nothing may have been written
            self.trouble = ""
        assert unsure is not None
        return unsure

    def _apply(
        self, begun: tuple[datetime, int], commands: Sequence[Command]
    ) -> tuple[Work, list[Any]]:
        projections = self._all_projections()
        work = Work(*begun, projections)
        wanted = [command.rows for command in commands]
        for projection in projections:
            if hasattr(projection, "rows"):
                wanted += [partial(projection.rows, command) for command in commands]
        work.load(itertools.chain.from_iterable(rows() for rows in wanted))
        outcomes: list[Any] = []
        for command in commands:
            try:
                with work.step():
                    outcomes.append(command.apply(work))
            except Refused as refused:
                outcomes.append(refused)
        work.close()
        return work, outcomes

    def _begin(self) -> tuple[datetime, int]:
        """Become the only writer; give time and last seq."""
        if connection.vendor != "postgresql":
            return now(), last_seq()
        _, [(moment,)], [(seq,)] = together([BE_THE_ONLY_WRITER, NOW, LAST_SEQ])
        return moment, seq or 0

    def _all_projections(self) -> list[Projection]:
        if self._projections is None:
            self._projections = [import_string(path) for path in settings.AGENTCOM_PROJECTIONS]
        return self._projections

    def _announce(self, work: Work | None) -> None:
        if self._committed is not None and work is not None and work.events:
            self._committed(work.events)

    def _unavailable(self) -> Unavailable:
        return Unavailable(self.trouble) if self.trouble else Unavailable()


def _telling(command: Command, tell: Callable[[Any], None]) -> Pending:
    def done(future: Future[Any]) -> None:
        if future.exception() is None:
            tell(future.result())

    future: Future[Any] = Future()
    future.add_done_callback(done)
    return Pending(command, future, is_asked=False)


def _outcome(future: Future[Any]) -> Any:
    error = future.exception()
    if error is None or isinstance(error, Refused):
        return error or future.result()
    raise error


def _landed(work: Work) -> bool:
    """Whether a commit whose answer got lost took place: its last event stands in the journal.

    It is looked for as the only writer: until then that commit may still be on its way. A unit
    without events repeats harmlessly.
    """
    if not work.events:
        return False
    last = work.events[-1]
    with transaction.atomic():
        if connection.vendor == "postgresql":
            together([BE_THE_ONLY_WRITER])
        return Event.objects.filter(
            seq=last.seq, kind=last.kind, task_id=last.task_id, agent_id=last.agent_id, at=last.at
        ).exists()


def _can_write() -> bool:
    """Whether the database takes a small change just now; the change itself is undone."""
    connection.close()
    try:
        with transaction.atomic():
            Lease.objects.create(name="probe", holder="", expires_at=now())
            transaction.set_rollback(True)
    except Away:
        return False
    return True


def _tell(group: list[Pending]) -> None:
    """Wake each waiting event loop once, not once a command.

    Loops come before threads, with what ends the group: an agent hears that its task is done
    before it gets the next.
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
