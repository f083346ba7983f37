"""Reading beside the Writer: threads that keep their connection, and consistent looks."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar, overload

import psycopg
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone

from agentcom.errors import Unavailable

T = TypeVar("T")
Query = tuple[str, Sequence[Any]]  # SQL and its parameters

NOW: Query = ("SELECT clock_timestamp()", ())  # where the database has a clock of its own
NO_ANSWER = "the database does not answer"
DISK_FULL = "the database cannot write: its disk is full or broken"
TOO_MANY_READS = "too many requests wait for the database"
MAX_READS = 10_000  # of one reader that wait; more would only be kept waiting for their timeout
VIEWERS = 100  # likewise of those who look at the dashboard
# what a full disk is called depends on the call that met it
SQLITE_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
POSTGRESQL_NO_ROOM = {"53100", "58030"}  # disk full, I/O error


class Tables:
    """Whether they are those of this version. A web process may begin before they are migrated: as
    long as it waits for that, nothing is read or written, and all who ask hear why."""

    fault = ""  # what is missing, in words

    def require(self) -> None:
        """Raises `Unavailable`."""
        if self.fault:
            raise Unavailable(self.fault)


tables = Tables()


class Reader:
    """One thread with one kept connection: a fresh connection per read costs up to six times.

    `patience` is how many times the wait for a commit a read may take, `room` how many reads may
    wait or run.
    """

    def __init__(self, name: str, patience: float = 1, room: int = MAX_READS) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._patience = patience
        self._room = threading.Semaphore(room)

    async def run(self, read: Callable[..., T], *args: Any) -> T:
        """Raises `Unavailable` when the database does not answer, or when too many wait.

        A read that had not begun by then never will; one that had goes on holding the thread.
        """
        tables.require()
        return await self.run_in_any_case(read, *args)

    async def run_in_any_case(self, read: Callable[..., T], *args: Any) -> T:
        """`run`, whatever the tables are."""
        if not self._room.acquire(blocking=False):
            raise Unavailable(TOO_MANY_READS)
        reading = self._executor.submit(_read, read, args)
        reading.add_done_callback(lambda _: self._room.release())
        try:
            # not `wait_for`: before Python 3.12 that may swallow the caller's cancellation
            async with asyncio.timeout(self._patience * settings.AGENTCOM_COMMIT_TIMEOUT_S):
                return await asyncio.wrap_future(reading)
        except TimeoutError:
            raise Unavailable(NO_ANSWER) from None


def _read(read: Callable[..., T], args: tuple[Any, ...]) -> T:
    """Again where the connection was a kept one, which may be dead; a broken one is not kept."""
    was_kept = connection.connection is not None
    while True:
        try:
            return read(*args)
        except (DatabaseError, InterfaceError) as error:
            connection.close()
            if not was_kept:
                raise Unavailable(NO_ANSWER) from error
            was_kept = False


# The journal and the snapshot have readers of their own; of the others each serves those who must
# not wait for the rest.
checks = Reader("checks")  # whose token it is, and whether the hub is well: one short look each
queries = Reader("queries")  # what agents and submitters ask
viewers = Reader("viewers", room=VIEWERS)  # what anybody may ask who may see the dashboard


@contextmanager
def consistent_read() -> Iterator[None]:
    """All reads inside see the database as it was at one moment; takes no lock."""
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


def together(queries: Sequence[Query]) -> list[list[Any]]:
    """Execute each and give its rows; on PostgreSQL all in one round trip."""
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            return [cursor.execute(*query).fetchall() for query in queries]
        cursor.execute(";".join(composed(queries)))
        found = [cursor.fetchall()]
        while cursor.nextset():
            found.append(cursor.fetchall())
        return found


def composed(queries: Iterable[Query]) -> list[str]:
    """SQL for PostgreSQL with the parameters in it. Raises what Django makes of psycopg's errors.

    Several statements are sent as one text, and not as a pipeline: that psycopg ends in such a way
    that the server no longer watches whether the transaction is idle.
    """
    connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor = psycopg.ClientCursor(connection.connection)
        return [cursor.mogrify(sql, params) for sql, params in queries]


def now() -> datetime:
    """The database's clock where it has one of its own: hosts may differ, the database doesn't."""
    if connection.vendor != "postgresql":
        return timezone.now()
    moment: datetime
    [[(moment,)]] = together([NOW])
    return moment


@overload
def millis(moment: datetime) -> int: ...
@overload
def millis(moment: None) -> None: ...
@overload
def millis(moment: datetime | None) -> int | None: ...
def millis(moment: datetime | None) -> int | None:
    """Time on the wire: ms since the Unix epoch."""
    return None if moment is None else int(moment.timestamp() * 1000)


def lacks_room(error: Exception) -> bool:
    """Whether the database is there but its disk takes nothing more, by the driver's own code."""
    cause = error.__cause__
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in SQLITE_NO_ROOM
    return getattr(cause, "sqlstate", None) in POSTGRESQL_NO_ROOM
