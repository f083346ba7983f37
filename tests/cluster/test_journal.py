"""The journal's order with two writers: that of the commits, whatever becomes of a transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from agentcom.journal import last_seq, read_after
from agentcom.work import Command
from agentcom.writer import Writer
from tests.agentcom.notes import Broken, Holding, Note

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]

WAITING = """
    SELECT COUNT(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
    WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()
"""


def apart(call: Callable[..., Any], *args: Any) -> Any:
    """With a connection of its own, as another process has."""
    try:
        return call(*args)
    finally:
        connection.close()


def follow(after: int, seen: list[tuple[int, str | None]], stop: threading.Event) -> None:
    """As a process does: it remembers one number."""
    is_last = False
    while not is_last:
        is_last = stop.wait(0.005)
        for event in read_after(after):
            after = event.seq
            seen.append((event.seq, event.agent_id))


def somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(WAITING)
        return bool(cursor.fetchone()[0])


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1_000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen within 10 s")


@pytest.mark.parametrize("rolls_back", [False, True])
def test_a_reader_that_remembers_one_number_misses_nothing(rolls_back: bool):
    """A slow transaction is numbered first; another one comes while it is open."""
    before, holding, stop = last_seq(), Holding(), threading.Event()
    slow: Sequence[Command] = [Note("slow"), holding, *([Broken()] if rolls_back else [])]
    seen: list[tuple[int, str | None]] = []
    with ThreadPoolExecutor() as threads:
        reading = threads.submit(apart, follow, before, seen, stop)
        first = threads.submit(apart, Writer().commit, slow)
        assert holding.started.wait(10)
        second = threads.submit(apart, Writer().commit, [Note("quick")])
        try:
            until(somebody_waits)
            assert not seen
        except AssertionError:
            stop.set()
            raise
        finally:
            holding.released.set()
        if rolls_back:
            with pytest.raises(ZeroDivisionError):
                first.result(10)
        else:
            first.result(10)
        second.result(10)
        stop.set()
        reading.result(10)
    names = ["quick"] if rolls_back else ["slow", "quick"]
    assert seen == [(before + n, name) for n, name in enumerate(names, start=1)]
