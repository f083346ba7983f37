"""The event loop and the Writer's thread share a core; the others may run on all."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from agentcom import one_core
from agentcom.one_core import OneCore

pytestmark = pytest.mark.skipif(not one_core.has_choice(), reason="one core, or no Linux")


class Thread:
    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ended.wait)
        self._thread.start()

    @property
    def number(self) -> int:
        assert self._thread.native_id is not None
        return self._thread.native_id

    @property
    def cores(self) -> set[int]:
        return os.sched_getaffinity(self.number)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture
def threads() -> Iterator[list[Thread]]:
    threads = [Thread(), Thread()]
    yield threads
    for thread in threads:
        thread.end()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_core, "FREE_S", 0.01)
    monkeypatch.setattr(one_core, "TOGETHER_S", 0.05)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 – it is the system that is asked
            await asyncio.sleep(0.001)


async def test_two_threads_share_a_core_and_the_others_may_run_on_all(threads: list[Thread]):
    all_cores = os.sched_getaffinity(0)
    writer, other = threads
    running = asyncio.create_task(OneCore(lambda: writer.number).run())
    try:
        await eventually(lambda: len(writer.cores) == 1)
        assert os.sched_getaffinity(0) == writer.cores
        assert other.cores == all_cores

        born = Thread()  # from the loop's thread, whose core it has at first
        try:
            assert born.cores == writer.cores
            await eventually(lambda: born.cores == all_cores)
        finally:
            born.end()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert os.sched_getaffinity(0) == writer.cores == all_cores


async def test_the_core_is_chosen_anew(threads: list[Thread], monkeypatch: pytest.MonkeyPatch):
    all_cores = os.sched_getaffinity(0)
    writer, _ = threads
    chosen = iter(sorted(all_cores)[:2] * 1000)
    monkeypatch.setattr(one_core, "_last_core", lambda thread: next(chosen))
    running = asyncio.create_task(OneCore(lambda: writer.number).run())
    seen: set[frozenset[int]] = set()
    try:
        async with asyncio.timeout(5):
            while len(seen) < 3:  # each core, and all of them in between
                seen.add(frozenset(writer.cores))
                await asyncio.sleep(0.001)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert frozenset(all_cores) in seen


async def test_before_the_writer_has_begun_the_loop_is_alone():
    all_cores = os.sched_getaffinity(0)
    running = asyncio.create_task(OneCore(lambda: None).run())
    await eventually(lambda: len(os.sched_getaffinity(0)) == 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert os.sched_getaffinity(0) == all_cores


def test_where_a_sandbox_forbids_it_there_is_no_choice(monkeypatch: pytest.MonkeyPatch):
    def forbid(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", forbid)
    assert not one_core.has_choice()
