"""Reads outside the Writer: threads that keep their connection, and consistent snapshots."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar, overload

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone

from agentcom.errors import Unavailable

T = TypeVar("T")
Query = tuple[str, Sequence[Any]]  # SQL and its parameters

ANSWER: Query = ("SELECT 1", ())
NOW: Query = ("SELECT clock_timestamp()", ())  # on PostgreSQL; SQLite has no clock
NO_ANSWER = "the database does not answer"
DISK_FULL = "the database cannot write: its disk is full or broken"
TOO_MANY_READS = "too many requests wait for the database"
MAX_READS = 10_000  # waiting for one reader; any more would only time out
MAX_VIEWER_READS = 100  # waiting for the reader of dashboard viewers
# the error code of a full disk depends on the call that failed
SQLITE_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
POSTGRESQL_NO_ROOM = {"53100", "58030"}  # disk full, I/O error


STARTING = "the hub is starting"


class Readiness:
    """Whether callers may read and write. A web process may start before its database, and before
    `migrate`; and of what is committed before its journal has begun, its sockets would never hear.
    Until then callers get the reason."""

    fault = ""  # what is wrong with the database, in words
    is_starting = False  # the journal of this process has not begun

    def require(self) -> None:
        """Raises `Unavailable`."""
        self.require_database()
        if self.is_starting:
            raise Unavailable(STARTING)

    def require_database(self) -> None:
        """For threads, which no socket waits for. Raises `Unavailable`."""
        if self.fault:
            raise Unavailable(self.fault)


readiness = Readiness()


class Reader:
    """One thread with one persistent connection; a new connection for each read would cost up to
    six times as much.

    A read times out after `timeout_factor` times AGENTCOM_COMMIT_TIMEOUT_S. At most `capacity`
    reads may wait or run.
    """

    def __init__(self, name: str, timeout_factor: float = 1, capacity: int = MAX_READS) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._timeout_factor = timeout_factor
        self._capacity = threading.Semaphore(capacity)

    async def run(self, read: Callable[..., T], *args: Any) -> T:
        """Raises `Unavailable` when the database does not answer, or when too many reads wait.

        After a timeout, a read that has not started never will; one that has started keeps the
        thread busy until it ends.
        """
        readiness.require()
        return await self.run_in_any_case(read, *args)

    async def run_in_any_case(self, read: Callable[..., T], *args: Any) -> T:
        """`run`, also before the process is ready."""
        if not self._capacity.acquire(blocking=False):
            raise Unavailable(TOO_MANY_READS)
        reading = self._executor.submit(_read, read, args)
        reading.add_done_callback(lambda _: self._capacity.release())
        try:
            # not `wait_for`: before Python 3.12 that may swallow the caller's cancellation
            async with asyncio.timeout(self._timeout_factor * settings.AGENTCOM_COMMIT_TIMEOUT_S):
                return await asyncio.wrap_future(reading)
        except TimeoutError:
            raise Unavailable(NO_ANSWER) from None


def _read(read: Callable[..., T], args: tuple[Any, ...]) -> T:
    """Retry once if the connection was an old one, which may be dead; close a broken one."""
    was_kept = connection.connection is not None
    while True:
        try:
            return read(*args)
        except (DatabaseError, InterfaceError) as error:
            connection.close()
            if not was_kept:
                raise Unavailable(NO_ANSWER) from error
            was_kept = False


# Each reader serves callers that must not wait for the others. The journal and the snapshot have
# readers of their own.
checks = Reader("checks")  # short reads: token checks and the hub's health
queries = Reader("queries")  # for agents and submitters
viewers = Reader("viewers", capacity=MAX_VIEWER_READS)  # for anybody who may see the dashboard


@contextmanager
def consistent_read() -> Iterator[None]:
    """All reads inside the block see one snapshot of the database; takes no lock."""
    begin = (
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        if connection.vendor == "postgresql"
        else "BEGIN DEFERRED"
    )
    if connection.in_atomic_block:  # a test's own transaction
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute(begin)
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")


def execute_all(queries: Sequence[Query]) -> list[list[Any]]:
    """Execute each query and return its rows; on PostgreSQL all in one round trip."""
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            return [cursor.execute(*query).fetchall() for query in queries]
        cursor.execute(";".join(composed(queries)))
        found = [cursor.fetchall()]
        while cursor.nextset():
            found.append(cursor.fetchall())
        return found


def composed(queries: Iterable[Query]) -> list[str]:
    """SQL for PostgreSQL with the parameters filled in. Raises Django's forms of psycopg's errors.

    Several statements are sent as one text rather than as a pipeline: after psycopg ends a
    pipeline, the server no longer checks whether the transaction is idle.
    """
    import psycopg  # not installed where the database is SQLite

    connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor = psycopg.ClientCursor(connection.connection)
        return [cursor.mogrify(sql, params) for sql, params in queries]


def literals(rows: Iterable[Sequence[Any]]) -> list[tuple[str, ...]]:
    """Each value as it is written in SQL for PostgreSQL. Raises like `composed`."""
    from psycopg.adapt import Transformer

    connection.ensure_connection()
    with connection.wrap_database_errors:
        literal = Transformer(connection.connection).as_literal
        return [tuple([literal(value).decode() for value in row]) for row in rows]


def now() -> datetime:
    """The time by PostgreSQL's clock, because hosts may differ; with SQLite by this host's."""
    if connection.vendor != "postgresql":
        return timezone.now()
    moment: datetime
    [[(moment,)]] = execute_all([NOW])
    return moment


@overload
def millis(moment: datetime) -> int: ...
@overload
def millis(moment: None) -> None: ...
@overload
def millis(moment: datetime | None) -> int | None: ...
def millis(moment: datetime | None) -> int | None:
    """The time as it is sent on the wire: ms since the Unix epoch."""
    return None if moment is None else int(moment.timestamp() * 1000)


def from_millis(moment: int) -> datetime:
    return datetime.fromtimestamp(moment / 1000, UTC)


def lacks_room(error: Exception) -> bool:
    """Whether the database answers but its disk is full or broken, by the driver's error code."""
    cause = error.__cause__
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in SQLITE_NO_ROOM
    return getattr(cause, "sqlstate", None) in POSTGRESQL_NO_ROOM
