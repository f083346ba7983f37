"""Warns when SQLite's write-ahead log (WAL) cannot be reused any more and only grows.

A reader keeps the WAL from being reset while it is open. One that stays open, such as a database
browser in a transaction, keeps everything that is written after it began.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from django.conf import settings
from django.db import connection

logger = logging.getLogger(__name__)

PATIENCE_S = 60.0  # the hub's own reads take far less


class WalWatch:
    """Logs once that the WAL grows, and once that it can be reused again."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._has_warned = False

    def check(self) -> None:
        """Cheap as long as the WAL is not larger than configured."""
        if connection.vendor != "sqlite":
            return
        size = _wal_size()
        if size <= settings.SQLITE_WAL_BYTES or _copied_whole():
            self._note_end()
        else:
            self._note_growth(size)

    def _note_growth(self, size: int) -> None:
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since < PATIENCE_S or self._has_warned:
            return
        self._has_warned = True
        logger.warning(
            "The database's write-ahead log has grown to %d MB and cannot be reused, for %.0f s "
            "now: another program keeps a transaction on the database open. Close it, or the log "
            "will keep growing",
            size / 1e6,
            now - self._since,
        )

    def _note_end(self) -> None:
        if self._has_warned:
            logger.warning("The database's write-ahead log can be reused again")
        self._since, self._has_warned = None, False


def _wal_size() -> int:
    try:
        return Path(f"{connection.settings_dict['NAME']}-wal").stat().st_size
    except FileNotFoundError:
        return 0


def _copied_whole() -> bool:
    """Copy what no reader needs any more into the database. Give whether that was everything."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
        _, frames, copied = cursor.fetchone()
    return bool(frames == copied)
