"""Commits a group of commands in one transaction, retried until it succeeds.

Only one transaction writes at a time, across all processes. SQLite's immediate transaction is such
a lock by itself. On PostgreSQL an advisory lock is taken before the first read, so that row locks
cannot deadlock, and the order of `seq` is the order of commits.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from django.conf import settings
from django.db import InterfaceError, InternalError, OperationalError, connection, transaction
from django.utils.module_loading import import_string

from agentcom import database
from agentcom.database import DISK_FULL, NO_ANSWER, NOW, execute_all, lacks_room
from agentcom.errors import Refused
from agentcom.journal import LAST_SEQ
from agentcom.models import Event, Lease
from agentcom.remembered import (
    DATA_VERSION,
    SNAPSHOT,
    Remembered,
    Rows,
    Version,
    sqlite_version,
)
from agentcom.work import Command, Projection, Work

logger = logging.getLogger(__name__)

BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
# Failed attempts in a row, after each of which the database accepted another change, before the
# group is at fault.
SUSPECT_MAX = 3
TROUBLE_AFTER = 3  # failed attempts in a row before the trouble is reported
# After how long PostgreSQL ends a transaction of ours in which no statement arrives (ms). A host
# that crashed or froze holds the lock of all writers, and TCP alone detects that only after hours.
IDLE_IN_TRANSACTION_MS = 5_000
# An arbitrary key that nothing else in the database uses for an advisory lock.
WRITER_LOCK = 0x4147434D
BECOME_ONLY_WRITER = (
    "SELECT set_config('idle_in_transaction_session_timeout', %s, true), pg_advisory_xact_lock(%s)",
    (str(IDLE_IN_TRANSACTION_MS), WRITER_LOCK),
)

# InternalError is what a session gets that PostgreSQL ended for being idle in a transaction.
DatabaseUnavailable = (OperationalError, InterfaceError, InternalError)


@dataclass(frozen=True, slots=True)
class Begun:
    """What a transaction found when it had become the only writer."""

    now: datetime
    last_seq: int
    version: Version  # of the database, see `agentcom.remembered`


@dataclass(frozen=True, slots=True)
class Applied:
    """The unit of work, and for each command its result or its `Refused`."""

    work: Work
    outcomes: list[Any]


class Transaction:
    """One attempt, on the calling thread. `clock` returns the time of the commit."""

    def __init__(self, clock: Callable[[], datetime] | None = None) -> None:
        self.clock = clock  # None: the database's clock
        self.remembered = Remembered()  # of the Writer's thread
        self._projections: list[Projection] | None = None

    def begin(self) -> Begun:
        """Become the only writer."""
        if connection.vendor == "postgresql":
            reads = [BECOME_ONLY_WRITER, NOW, LAST_SEQ, SNAPSHOT]
            _, [(moment,)], [(seq,)], [(version,)] = execute_all(reads)
        else:
            moment = database.now()
            [[(seq,)], [(number,)]] = execute_all([LAST_SEQ, DATA_VERSION])
            version = sqlite_version(number)
        return Begun(self.clock() if self.clock else moment, seq or 0, version)

    def apply(
        self, begun: Begun, commands: Sequence[Command], remembered: Rows | None = None
    ) -> Applied:
        """Load the rows of all commands, apply each command, and write what changed.

        `remembered` has rows as they are in the database."""
        projections = self._all_projections()
        work = Work(begun.now, begun.last_seq, projections, remembered)
        wanted = [command.rows for command in commands]
        for projection in projections:
            if hasattr(projection, "rows"):
                wanted += [partial(projection.rows, command) for command in commands]
        work.load(itertools.chain.from_iterable(rows() for rows in wanted))
        outcomes = [_outcome(work, command) for command in commands]
        work.close()
        return Applied(work, outcomes)

    def run(self, commands: Sequence[Command]) -> Applied:
        with transaction.atomic():
            return self.apply(self.begin(), commands)

    def _all_projections(self) -> list[Projection]:
        if self._projections is None:
            self._projections = [import_string(path) for path in settings.AGENTCOM_PROJECTIONS]
        return self._projections


class Group(Protocol):
    """Commands to be committed together. Their callers may give up in the meantime."""

    def gather(self) -> None:
        """Add the commands that are waiting by now."""
        ...

    def drop_cancelled(self) -> None: ...

    def commands(self) -> list[Command]: ...


class RetriedCommit:
    """Commits a group, however long the database is unavailable. For each attempt:

    1. check whether the previous attempt was committed although its reply was lost;
    2. drop the commands of callers who gave up, and end if none is left;
    3. become the only writer, add the commands that arrived since, apply, commit;
    4. if the database failed, decide whether the group is at fault, report, wait, reconnect.
    """

    def __init__(self, one: Transaction, group: Group, report: Callable[[str], None]) -> None:
        """`report` is called with the reason after several failed attempts in a row."""
        self._transaction = one
        self._group = group
        self._report = report
        self._applied: Applied | None = None  # perhaps committed, if only the reply was lost
        self._suspicion = 0

    def run(self) -> Applied | None:
        """None if all callers gave up. Raises the database's error if the group is at fault."""
        attempt = 0
        while True:
            try:
                if not self._was_committed():
                    self._group.drop_cancelled()
                    if not self._group.commands():
                        return None
                    self._attempt()
                return self._applied
            except DatabaseUnavailable as error:
                self._judge(error)
                self._pause(attempt, error)
                attempt += 1

    def _was_committed(self) -> bool:
        if self._applied is not None and _is_in_journal(self._applied.work):
            return True
        self._applied = None
        return False

    def _attempt(self) -> None:
        one = self._transaction
        with transaction.atomic():
            begun = one.begin()
            self._group.gather()
            self._group.drop_cancelled()
            remembered = one.remembered.take(begun.version)
            self._applied = one.apply(begun, self._group.commands(), remembered)
        work = self._applied.work
        one.remembered.keep(work.left_in_memory(), begun.version, work.has_written)

    def _judge(self, error: Exception) -> None:
        """Raise the error if the database repeatedly accepts other changes but not this group."""
        is_suspect = self._applied is None and not lacks_room(error) and _can_write()
        self._suspicion = self._suspicion + 1 if is_suspect else 0
        if self._suspicion == SUSPECT_MAX:
            raise error

    def _pause(self, attempt: int, error: Exception) -> None:
        if attempt >= TROUBLE_AFTER:
            self._report(DISK_FULL if lacks_room(error) else NO_ANSWER)
        pause = BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
        logger.warning("The database is unavailable, next try in %s s: %s", pause, error)
        time.sleep(pause)
        connection.close()


def _outcome(work: Work, command: Command) -> Any:
    try:
        with work.step(command.actor):
            return command.apply(work)
    except Refused as refused:
        return refused


def _is_in_journal(work: Work) -> bool:
    """Whether a commit whose reply was lost succeeded: its last event is in the journal.

    Checked as the only writer, because before that the commit may still be in progress. A unit
    of work without events can be repeated without harm.
    """
    if not work.events:
        return False
    last = work.events[-1]
    with transaction.atomic():
        if connection.vendor == "postgresql":
            execute_all([BECOME_ONLY_WRITER])
        return Event.objects.filter(
            seq=last.seq, kind=last.kind, task_id=last.task_id, agent_id=last.agent_id, at=last.at
        ).exists()


def _can_write() -> bool:
    """Whether the database accepts a small change now. The change is rolled back."""
    connection.close()
    try:
        with transaction.atomic():
            Lease.objects.create(name="probe", holder="", expires_at=database.now())
            transaction.set_rollback(True)
    except DatabaseUnavailable:
        return False
    return True
