"""Rows that the last commit left in memory, so that the next one need not read them again.

They are valid while nobody else has written to the database. The database itself says whether that
is so, and it does not matter who wrote, what, or whether it is in the journal:

- SQLite's `data_version` changes when another connection has committed anything.
- On PostgreSQL every transaction that writes takes the next transaction id. If our last one saw no
  other under way, and the next id is the one after ours, then nobody else has written.

Both are asked under the lock of all writers. After a commit that failed, or whose reply was lost,
nothing is remembered.
"""

from __future__ import annotations

from typing import Any

from django.db import connection
from django.db.models import Model

from agentcom.database import Query

Key = tuple[type[Model], Any]
Rows = dict[Key, Model]
Version = Any  # of the database; compared, and nothing else

MAX_ROWS = 20_000

SNAPSHOT: Query = ("SELECT pg_current_snapshot()::text", ())
DATA_VERSION: Query = ("PRAGMA data_version", ())


class Remembered:
    """For one thread with one connection. `take` before a commit's changes, `keep` after it."""

    def __init__(self) -> None:
        self._rows: Rows = {}
        self._valid_at: Version = None

    def take(self, version: Version) -> Rows:
        """The rows, if they are as in the database of this version. Until the next `keep` nothing
        is remembered."""
        rows, self._rows = self._rows, {}
        return rows if version == self._valid_at and version is not None else {}

    def keep(self, rows: Rows, version: Version, has_written: bool) -> None:
        """A transaction that began at this version is committed, and left these rows."""
        self._valid_at = after(version, has_written)
        self._rows = rows if len(rows) <= MAX_ROWS else {}


def sqlite_version(data_version: int) -> Version:
    """Versions of different connections do not compare."""
    return connection.connection, data_version


def after(version: Version, has_written: bool) -> Version:
    """The version that the next transaction finds if nobody writes in between; None: it cannot be
    known."""
    if not isinstance(version, str):
        return version
    first, end, under_way = version.split(":")  # PostgreSQL's "xmin:xmax:xip_list"
    if under_way or first != end:
        return None
    next_id = int(end) + has_written
    return f"{next_id}:{next_id}:"
