"""On SQLite, keeps the event loop and the Writer's thread on one core that the system chooses.

Only one thread at a time runs Python, so these two take turns. On two cores each turn wakes the
other core, and the Writer, which lets go of its turn for each statement of SQLite, has to wait for
it again every time. On one core it mostly has it back before the other thread has noticed. On
PostgreSQL, whose statements are few and take longer, it makes no difference.

For a moment every second both are free to run anywhere, so that the system can move them away from
a core that others use. All other threads always are, a new one within a second: what
they do mostly needs no turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from django.conf import settings
from django.db import connection

TOGETHER_S, FREE_S = 1.0, 0.05
THREADS = Path("/proc/self/task")
LAST_CORE = 36  # of the fields in `stat` behind the thread's name, see proc(5)


def is_of_use() -> bool:
    """Whether it is wanted, and there are several cores to choose from (Linux only)."""
    return settings.AGENTCOM_ONE_CORE and connection.vendor == "sqlite" and has_choice()


def has_choice() -> bool:
    if not hasattr(os, "sched_setaffinity") or not THREADS.is_dir():
        return False
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
    except OSError:  # some sandboxes forbid it
        return False
    return len(cores) > 1


class OneCore:
    def __init__(self, writer_thread: Callable[[], int | None]) -> None:
        """`writer_thread` gives the system's number of that thread, once it has one."""
        self._writer_thread = writer_thread

    async def run(self) -> None:
        """On the event loop's thread, until cancelled. Presumes `is_of_use`."""
        cores = os.sched_getaffinity(0)
        loop_thread = threading.get_native_id()
        try:
            while True:
                _free_all(cores)
                await asyncio.sleep(FREE_S)
                core = {_last_core(loop_thread)}
                for busy in (loop_thread, self._writer_thread()):
                    if busy is not None:
                        _may_run_on(core, busy)
                await asyncio.sleep(TOGETHER_S)
        finally:
            _free_all(cores)


def _free_all(cores: Collection[int]) -> None:
    """Of all threads, because one that began meanwhile has the core of the thread it began in."""
    for thread in os.listdir(THREADS):
        _may_run_on(cores, int(thread))


def _may_run_on(cores: Collection[int], thread: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended
        os.sched_setaffinity(thread, cores)


def _last_core(thread: int) -> int:
    fields = (THREADS / str(thread) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[LAST_CORE])
