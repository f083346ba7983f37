"""The Writer with its thread, on committed rows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import InternalError, OperationalError, connection

from agentcom.commit import BACKOFF_S, DatabaseUnavailable
from agentcom.database import composed
from agentcom.errors import Refused, Unavailable
from agentcom.models import Event, Node
from agentcom.work import Command
from agentcom.writer import GroupEnd, Writer
from tests.agentcom.notes import (
    Broken,
    Counting,
    Holding,
    Impossible,
    Note,
    Refusing,
    Renamed,
    losing_answers,
    names,
    names_in_a_thread,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def commits() -> list[list[Event]]:
    """The events of each commit."""
    return []


@pytest.fixture
def writer(commits: list[list[Event]]) -> Iterator[Writer]:
    writer = Writer(committed=commits.append)
    yield writer
    writer.stop()


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


@contextmanager
def busy(writer: Writer, callers: ThreadPoolExecutor) -> Iterator[None]:
    """While inside, the Writer commits nothing; what is asked of it becomes one group."""
    holding = Holding()
    held = callers.submit(writer.call, holding)
    assert holding.started.wait(10)
    try:
        yield
    finally:
        holding.released.set()
        held.result(10)


def ask(writer: Writer, callers: ThreadPoolExecutor, *commands: Command) -> list[Future[Any]]:
    """Ask for each on a thread of its own, in this order."""
    futures = []
    for command in commands:
        waiting = len(writer.queue)
        futures.append(callers.submit(writer.call, command))
        until(lambda waiting=waiting: len(writer.queue) > waiting)  # type: ignore[misc]
    return futures


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(5_000):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError("it did not happen within 10 s")


def test_an_answer_means_that_it_is_there(writer: Writer):
    seq = writer.call(Note("a"))
    assert names() == ["a"]
    assert Event.objects.get().seq == seq


async def test_an_answer_to_a_coroutine_means_the_same(writer: Writer):
    await writer.do(Note("a"))
    assert await asyncio.to_thread(names_in_a_thread) == ["a"]


def test_what_waits_is_committed_as_one_group(
    writer: Writer, callers: ThreadPoolExecutor, commits: list[list[Event]]
):
    with busy(writer, callers):
        futures = ask(writer, callers, Note("a"), Note("b"), Note("c"))
    seqs = [future.result(10) for future in futures]
    assert seqs == [seqs[0], seqs[0] + 1, seqs[0] + 2]
    assert [[event.agent_id for event in events] for events in commits] == [["a", "b", "c"]]


def test_a_command_sees_what_the_one_before_it_in_the_group_did(
    writer: Writer, callers: ThreadPoolExecutor
):
    with busy(writer, callers):
        futures = ask(writer, callers, Note("a"), Renamed("a", "one"), Renamed("a", "two"))
    assert [future.result(10) for future in futures][1:] == ["here", "one"]
    assert Node.objects.get().host == "two"


async def test_threads_and_coroutines_share_a_group(
    writer: Writer, callers: ThreadPoolExecutor, commits: list[list[Event]]
):
    with busy(writer, callers):
        mine = [asyncio.create_task(writer.do(Note(name))) for name in "ab"]
        await asyncio.sleep(0)
        [theirs] = ask(writer, callers, Note("c"))
    await asyncio.gather(*mine, asyncio.wrap_future(theirs))
    assert [len(events) for events in commits] == [3]


def test_who_comes_while_another_process_commits_joins_the_group(
    writer: Writer,
    callers: ThreadPoolExecutor,
    commits: list[list[Event]],
    monkeypatch: pytest.MonkeyPatch,
):
    begin, waits, is_our_turn = writer.transaction.begin, threading.Event(), threading.Event()

    def begin_late() -> Any:
        waits.set()
        assert is_our_turn.wait(10)
        return begin()

    monkeypatch.setattr(writer.transaction, "begin", begin_late)
    first = callers.submit(writer.call, Note("a"))
    assert waits.wait(10)
    [second] = ask(writer, callers, Note("b"))
    is_our_turn.set()
    assert second.result(10) == first.result(10) + 1
    assert [[event.agent_id for event in events] for events in commits] == [["a", "b"]]


# --- What ends every group


def test_it_sees_the_whole_group_and_is_told_before_the_next(
    writer: Writer, callers: ThreadPoolExecutor
):
    told: list[Any] = []
    writer.end_groups_with(Counting(), lambda seen: told.append((seen, names())))
    with busy(writer, callers):
        futures = ask(writer, callers, Note("a"), Refusing(), Note("b"))
    for future in futures:
        future.exception(10)
    writer.call(Note("c"))
    writer.stop()
    assert told == [([], []), (["a", "b"], ["a", "b"]), (["c"], ["a", "b", "c"])]


def test_when_it_breaks_nobody_else_does(writer: Writer):
    told: list[Any] = []
    writer.end_groups_with(Broken(), told.append)
    writer.call(Note("a"))
    writer.call(Note("b"))
    writer.stop()
    assert names() == ["a", "b"]
    assert told == []


def test_it_is_not_told_of_a_commit_that_did_not_come_about(
    writer: Writer, impatient: list[float], monkeypatch: pytest.MonkeyPatch
):
    told: list[Any] = []
    writer.end_groups_with(Counting(), told.append)
    monkeypatch.setattr("agentcom.commit.transaction.atomic", losing_answers(2, committed=False))
    writer.call(Note("a"), timeout=10)
    writer.stop()
    assert told == [["a"]]
    assert len(impatient) == 2


# --- Refused and broken commands


def test_a_refused_command_tells_its_caller_and_leaves_nothing(writer: Writer):
    writer.call(Note("a"))
    with pytest.raises(Refused) as caught:
        writer.call(Refusing())
    assert (caught.value.code, caught.value.detail) == ("no", "because")
    assert names() == ["a"]
    assert Node.objects.get().host == "here"


def test_a_refused_command_fails_nobody_else_in_its_group(
    writer: Writer, callers: ThreadPoolExecutor, commits: list[list[Event]]
):
    with busy(writer, callers):
        before, refused, after = ask(writer, callers, Note("a"), Refusing(), Note("b"))
    assert isinstance(refused.exception(10), Refused)
    assert after.result(10) == before.result(10) + 1
    assert names() == ["a", "b"]
    assert len(commits) == 1


def test_a_broken_command_fails_nobody_else_in_its_group(
    writer: Writer, callers: ThreadPoolExecutor
):
    with busy(writer, callers):
        before, broken, after = ask(writer, callers, Note("a"), Broken(), Note("b"))
    assert isinstance(broken.exception(10), ZeroDivisionError)
    before.result(10)
    after.result(10)
    assert names() == ["a", "b"]


def test_a_broken_command_does_not_end_the_writer(writer: Writer):
    with pytest.raises(ZeroDivisionError):
        writer.call(Broken())
    writer.call(Note("a"))
    assert names() == ["a"]


def test_what_was_refused_is_announced_to_nobody(writer: Writer, commits: list[list[Event]]):
    with pytest.raises(Refused):
        writer.call(Refusing())
    assert commits == []


def test_commit_gives_results_and_refusals_in_order(commits: list[list[Event]]):
    writer = Writer(committed=commits.append)
    first, refused, last = writer.commit([Note("a"), Refusing(), Note("b")])
    assert isinstance(refused, Refused)
    assert last == first + 1
    assert [len(events) for events in commits] == [2]


# --- When the database is away


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses take no time; give how long they would have been."""
    pauses: list[float] = []
    monkeypatch.setattr("agentcom.commit.time.sleep", pauses.append)
    return pauses


@pytest.mark.parametrize("committed", [True, False], ids=["there", "not there"])
def test_a_commit_whose_answer_got_lost_counts_once(
    writer: Writer,
    impatient: list[float],
    monkeypatch: pytest.MonkeyPatch,
    commits: list[list[Event]],
    committed: bool,
):
    monkeypatch.setattr(
        "agentcom.commit.transaction.atomic", losing_answers(1, committed=committed)
    )
    seq = writer.call(Note("a"), timeout=10)
    assert names() == ["a"]
    assert Event.objects.get().seq == seq
    assert [[event.seq for event in events] for events in commits] == [[seq]]


def test_a_lost_answer_of_a_whole_group_counts_once(
    writer: Writer,
    callers: ThreadPoolExecutor,
    impatient: list[float],
    monkeypatch: pytest.MonkeyPatch,
):
    writer.call(Note("x"))
    with busy(writer, callers):
        futures = ask(writer, callers, Note("a"), Refusing(), Renamed("x", "there"))
        monkeypatch.setattr("agentcom.commit.transaction.atomic", losing_answers(2, committed=True))
    # the first lost answer is that of the holding command, which changed nothing
    assert isinstance(futures[1].exception(10), Refused)
    assert futures[2].result(10) == "here"
    assert names() == ["a", "x"]
    assert Event.objects.count() == 3


def test_a_command_that_no_database_takes_does_not_hold_up_the_others_for_ever(
    writer: Writer, callers: ThreadPoolExecutor, impatient: list[float]
):
    with busy(writer, callers):
        futures = ask(writer, callers, Note("a"), Impossible("b"), Note("c"))
    assert isinstance(futures[1].exception(20), OperationalError)
    for future in (futures[0], futures[2]):
        future.result(10)
    assert names() == ["a", "c"]


def test_it_waits_longer_and_longer_but_never_too_long(
    writer: Writer, impatient: list[float], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agentcom.commit.transaction.atomic", losing_answers(12, committed=False))
    writer.call(Note("a"), timeout=10)
    assert impatient == sorted(impatient)
    assert len(impatient) == 12
    assert impatient[-1] == BACKOFF_S[-1]
    assert names() == ["a"]


def test_a_session_that_postgresql_ended_while_the_process_was_frozen_harms_nobody(
    writer: Writer, impatient: list[float], monkeypatch: pytest.MonkeyPatch
):
    ended = losing_answers(1, committed=False, error=InternalError)  # as Django calls its 25P03
    monkeypatch.setattr("agentcom.commit.transaction.atomic", ended)
    writer.call(Note("a"), timeout=10)
    assert len(impatient) == 1
    assert names() == ["a"]


def test_who_gives_up_while_the_database_is_away_asked_for_nothing(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
):
    back = threading.Event()
    monkeypatch.setattr("agentcom.commit.time.sleep", lambda _: back.wait(10))
    monkeypatch.setattr("agentcom.commit.transaction.atomic", losing_answers(1, committed=False))
    with pytest.raises(Unavailable):
        writer.call(Note("a"), timeout=0.05)
    back.set()
    writer.call(Note("b"), timeout=10)
    assert names() == ["b"]


def test_what_ends_a_group_proves_not_that_the_trouble_is_over(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
):
    """It may write nothing: a full disk would not be met."""
    told: list[Any] = []
    begin, is_our_turn = writer.transaction.begin, threading.Event()
    monkeypatch.setattr(writer.transaction, "begin", lambda: is_our_turn.wait(10) and begin())
    writer.end_groups_with(Counting(), told.append)
    writer.note_trouble("the disk is full")
    with pytest.raises(Unavailable):
        writer.call(Note("a"), timeout=0.05)
    is_our_turn.set()
    until(lambda: told == [[]])
    assert writer.trouble
    writer.call(Note("b"))
    assert not writer.trouble


@pytest.mark.postgresql
def test_a_connection_that_broke_is_a_database_that_is_away_wherever_it_is_noticed():
    """Also where parameters are put into the SQL, which needs the connection's settings."""
    connection.ensure_connection()
    connection.connection.close()
    try:
        with pytest.raises(DatabaseUnavailable):
            composed([("SELECT %s", ("text",))])
    finally:
        connection.close()


def test_a_group_that_takes_long_is_trouble_until_it_is_committed(
    writer: Writer, callers: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
):
    """A lock that somebody else holds: no attempt fails, and nothing is committed."""
    monkeypatch.setattr("agentcom.writer.SLOW_S", 0)
    with busy(writer, callers):
        assert writer.trouble
    until(lambda: not writer.trouble)


# --- When too much is asked of it


def test_a_full_line_refuses_at_once(writer: Writer, callers: ThreadPoolExecutor, settings: Any):
    settings.AGENTCOM_WRITER_QUEUE = 2
    with busy(writer, callers):
        futures = ask(writer, callers, Note("a"), Note("b"))
        with pytest.raises(Unavailable):
            writer.call(Note("c"))
    for future in futures:
        future.result(10)
    assert names() == ["a", "b"]


async def test_a_full_line_refuses_coroutines_too(
    writer: Writer, callers: ThreadPoolExecutor, settings: Any
):
    settings.AGENTCOM_WRITER_QUEUE = 1
    with busy(writer, callers):
        ask(writer, callers, Note("a"))
        with pytest.raises(Unavailable):
            await writer.do(Note("b"))


def test_a_command_that_was_given_up_is_never_applied(writer: Writer, callers: ThreadPoolExecutor):
    with busy(writer, callers), pytest.raises(Unavailable):
        writer.call(Note("a"), timeout=0.05)
    writer.call(Note("b"))
    assert names() == ["b"]


async def test_a_coroutine_that_gave_up_asked_for_nothing(
    writer: Writer, callers: ThreadPoolExecutor
):
    with busy(writer, callers):
        with pytest.raises(Unavailable):
            await writer.do(Note("a"), timeout=0.05)
        cancelled = asyncio.create_task(writer.do(Note("b")))
        await asyncio.sleep(0)
        cancelled.cancel()
    await writer.do(Note("c"))
    assert await asyncio.to_thread(names_in_a_thread) == ["c"]


# --- Many at once, and the end


def test_call_all_gives_each_its_outcome_in_one_commit(
    writer: Writer, callers: ThreadPoolExecutor, commits: list[list[Event]]
):
    with busy(writer, callers):
        all_of_them = callers.submit(writer.call_all, [Note("a"), Refusing(), Note("b")])
        until(lambda: len(writer.queue) == 3)
    first, refused, last = all_of_them.result(10)
    assert isinstance(refused, Refused)
    assert last == first + 1
    assert [len(events) for events in commits] == [2]


def test_stopping_commits_what_waits(writer: Writer, callers: ThreadPoolExecutor):
    with busy(writer, callers):
        futures = ask(writer, callers, Note("a"), Note("b"))
        stopped = callers.submit(writer.stop)
    stopped.result(10)
    assert names() == ["a", "b"]
    first, last = [future.result(10) for future in futures]
    assert last == first + 1


def test_it_starts_again_after_a_stop(writer: Writer):
    writer.call(Note("a"))
    writer.stop()
    writer.call(Note("b"))
    assert names() == ["a", "b"]


# --- What watches the groups


def test_a_watcher_hears_what_became_of_each_group(writer: Writer, callers: ThreadPoolExecutor):
    ends: list[GroupEnd] = []
    writer.end_groups_with(Counting(), lambda _: None)  # counts as nobody's command
    with busy(writer, callers):
        writer.watch_groups(ends.append)
        futures = ask(writer, callers, Note("a"), Refusing(), Note("b"))
    for future in futures:
        future.exception(10)
    with pytest.raises(Exception, match="bug"):
        writer.call(Broken())
    writer.stop()
    held, group, *broken = ends
    assert (held.commands, held.refused, held.failed) == (1, 0, 0)
    assert (group.commands, group.refused, group.failed) == (3, 1, 0)
    # the group is replayed command by command, what ends it included
    assert [(end.commands, end.failed) for end in broken] == [(1, 1), (0, 0)]
    assert all(0 < end.seconds < 10 for end in ends)


def test_attempts_that_fail_belong_to_their_group(
    writer: Writer, impatient: list[float], monkeypatch: pytest.MonkeyPatch
):
    ends: list[GroupEnd] = []
    writer.watch_groups(ends.append)
    monkeypatch.setattr("agentcom.commit.transaction.atomic", losing_answers(2, committed=False))
    writer.call(Note("a"), timeout=10)
    writer.stop()
    assert [end.commands for end in ends] == [1]
    assert len(impatient) == 2


def test_a_watcher_that_fails_harms_nobody(writer: Writer, caplog: pytest.LogCaptureFixture):
    def fail(end: GroupEnd) -> None:
        raise RuntimeError("it cannot count")

    ends: list[GroupEnd] = []
    writer.watch_groups(fail)
    writer.watch_groups(ends.append)
    writer.call(Note("a"))
    writer.call(Note("b"))
    writer.stop()
    assert names() == ["a", "b"]
    assert len(ends) == 2
    assert "it cannot count" in caplog.text
