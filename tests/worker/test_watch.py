"""What counts as time, by the database's clock and one that nobody sets. No database, no worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from worker.watch import LONG_AGO, STEADY_S, ClockReading, Jump, Watch

START = datetime(2026, 5, 4, 12, tzinfo=UTC)
PATIENCE_S = 5


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Looks:
    """A watch that begins at `START`, after a worker that reported until then."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.now = self.steady = 0.0
        self.watch.begin(self._look(), watched_until=START, newest=START)

    def go_on(self, seconds: float, *, jump: float = 0, steps: int = 1, slow: float = 0) -> bool:
        """Look every so many seconds; `slow`: how long the answer takes."""
        anew = False
        for _ in range(steps):
            self.now += seconds
            self.steady += seconds
            anew = self.watch.follow(self._look(jump, slow), PATIENCE_S)
            jump = 0
        return anew

    def _look(self, jump: float = 0, slow: float = 0) -> ClockReading:
        self.now += jump
        return ClockReading(at(self.now), self.steady, self.steady + slow)

    def ago(self, seconds: float) -> float:
        return (self.watch.ago(at(self.now), seconds) - START).total_seconds()

    @property
    def jumped_by(self) -> float | None:
        jump = self.watch.recent_jump(at(self.now))
        return jump.by.total_seconds() if jump else None


def test_time_that_was_watched_counts_in_full():
    looks = Looks()
    assert not looks.go_on(1, steps=100)
    assert looks.ago(30) == 70
    assert looks.watch.since == START
    assert looks.jumped_by is None


def test_a_pause_is_left_out():
    looks = Looks()
    looks.go_on(1, steps=10)
    assert looks.go_on(1000)
    looks.go_on(1, steps=10)
    assert looks.watch.since == at(1010)
    assert looks.jumped_by is None  # the steady clock says the same
    assert [looks.ago(seconds) for seconds in (9, 10, 11, 15)] == [1011, 1010, 9, 5]


def test_several_pauses_are_left_out():
    looks = Looks()
    for _ in range(3):
        looks.go_on(1, steps=10)
        looks.go_on(100)
    assert [looks.ago(seconds) for seconds in (5, 10, 15, 25)] == [225, 220, 115, 5]


def test_an_absence_of_the_database_is_left_out_however_short():
    looks = Looks()
    looks.go_on(1, steps=10)
    looks.now += 3
    looks.steady += 3
    assert looks.watch.follow(looks._look(), PATIENCE_S, interrupted=True)
    assert looks.ago(2) == 8


@pytest.mark.parametrize("by", [3600, 3, -3, -600])
def test_a_jump_is_noticed_and_believed_after_a_while(by: float):
    looks = Looks()
    looks.go_on(1, steps=int(STEADY_S))
    assert looks.watch.is_steady(at(looks.now))
    assert looks.go_on(1, jump=by)
    assert looks.watch.since == looks.watch.steady_since == at(looks.now)
    assert looks.jumped_by == by
    looks.go_on(1, steps=int(STEADY_S) - 1)
    assert looks.jumped_by == by
    assert not looks.watch.is_steady(at(looks.now))
    looks.go_on(1)
    assert looks.watch.recent_jump(at(looks.now)) is None
    assert looks.watch.is_steady(at(looks.now))


def test_a_jump_forward_is_no_time_that_passed():
    looks = Looks()
    looks.go_on(1, steps=10)
    looks.go_on(1, jump=3600)
    looks.go_on(1, steps=5)
    assert looks.ago(5) == 3611
    assert looks.ago(8) == 7
    looks.go_on(100)
    assert (looks.watch.ago_with_pauses(at(looks.now), 108) - START).total_seconds() == 7


def test_after_a_jump_back_pauses_by_the_clock_of_before_are_forgotten():
    looks = Looks()
    looks.go_on(1000)
    looks.go_on(1, jump=-500)  # at 501, in the middle of what was the pause
    looks.go_on(1, steps=9)
    assert looks.ago(9) == 501
    assert looks.ago(10) == -1


@pytest.mark.parametrize("by", [1.5, -1.5])
def test_a_leap_second_is_no_jump(by: float):
    looks = Looks()
    assert not looks.go_on(1, jump=by)
    assert looks.jumped_by is None


@pytest.mark.parametrize("told", [1, 17, 31])
def test_a_slow_answer_is_no_jump(told: float):
    """It may tell of any moment of the waiting."""
    looks = Looks()
    looks.watch.follow(ClockReading(at(told), 1, 31), PATIENCE_S)
    looks.watch.follow(ClockReading(at(32), 32, 32), PATIENCE_S)
    assert looks.watch.jump is None


# --- The first look after a start


def begun(watched_until: datetime | None, newest: datetime | None = None) -> Watch:
    watch = Watch()
    watch.begin(ClockReading(START, 0, 0), watched_until, newest or watched_until)
    return watch


def test_the_time_without_a_worker_is_left_out():
    watch = begun(at(-3000))
    assert watch.since == START
    assert watch.ago(START, 60) == at(-3060)
    assert watch.ago(at(10), 60) == at(-3050)
    assert watch.jump is None


def test_where_no_worker_reported_yet_everything_begins_now():
    watch = begun(None)
    assert watch.ago(at(10), 60) < LONG_AGO
    assert watch.jump is None


def test_after_a_start_the_clock_is_believed_after_a_while():
    for watch in (begun(at(-30)), begun(at(-3 * 86_400)), begun(None)):
        assert not watch.is_steady(at(STEADY_S - 1))
        assert watch.is_steady(at(STEADY_S))


@pytest.mark.parametrize("reported", [None, -5, 3600])
def test_a_clock_that_is_behind_the_journal_was_set_back(reported: float | None):
    watched_until = None if reported is None else at(reported)
    watch = begun(watched_until, newest=at(3600))
    assert watch.recent_jump(START) == Jump(START, timedelta(hours=-1))
    assert not watch.is_steady(START)
    assert watch.ago(at(10), 60) < (LONG_AGO if reported != -5 else at(-50))
