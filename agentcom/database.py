"""Reading beside the Writer: threads that keep their connection, and consistent looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar, overload

from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from agentcom.errors import Unavailable

T = TypeVar("T")


class Reader:
    """One thread with one kept connection: a fresh connection per read costs up to six times."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, read: Callable[..., T], *args: Any) -> T:
        """Raises `Unavailable` when the database does not answer."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, _read, read, args)


def _read(read: Callable[..., T], args: tuple[Any, ...]) -> T:
    """Twice, for a kept connection may be a dead one; a broken one is not kept."""
    for is_last in (False, True):
        try:
            return read(*args)
        except (DatabaseError, InterfaceError) as error:
            connection.close()
            if is_last:
                raise Unavailable("the database does not answer") from error
    raise AssertionError("unreachable")


# for whatever HTTP and the sockets ask; the journal and the snapshot have readers of their own,
# so that a slow page holds up neither the fleet nor the light
queries = Reader("queries")


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


def now() -> datetime:
    """The database's clock where it has one of its own: hosts may differ, the database doesn't."""
    if connection.vendor != "postgresql":
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
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


def missing_migrations() -> int:
    """How many of this version's migrations the database has not seen yet."""
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
