"""A reader that stays open keeps SQLite's write-ahead log from being reused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from django.conf import LazySettings
from django.db import connection

from tests.tasks.play import submit
from worker import wal
from worker.wal import WalWatch

pytestmark = [pytest.mark.sqlite_only, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def reader() -> Iterator[sqlite3.Connection]:
    """Another program that sees the database as it was, and never lets go."""
    path = connection.settings_dict["NAME"]
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM tasks_task").fetchone()
        yield reader


@pytest.fixture(autouse=True)
def soon(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SQLITE_WAL_BYTES = 100_000
    monkeypatch.setattr(wal, "PATIENCE_S", 0)


def write() -> None:
    for _ in range(20):
        submit("x" * 10_000)


def test_it_is_said_once_and_so_is_its_end(
    reader: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    watch = WalWatch()
    write()
    watch.check()
    watch.check()
    assert [line.partition(" to ")[0] for line in caplog.messages] == [
        "The database's write-ahead log has grown"
    ]
    reader.execute("ROLLBACK")
    watch.check()
    watch.check()
    assert caplog.messages[1:] == ["The database's write-ahead log can be reused again"]


def test_a_large_one_that_can_be_reused_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    write()
    WalWatch().check()
    assert caplog.messages == []


def test_one_that_grew_becomes_small_again_once_it_is_reused() -> None:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_size_limit")
        assert cursor.fetchone() == (16 * 1024 * 1024,)
