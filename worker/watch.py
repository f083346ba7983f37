"""The time that a worker has watched: which of it counts, and whether the clock jumped.

Reads neither the database nor a clock. Times are the database's; between two readings they are
compared with the steady clock, which cannot be set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

JUMP_S = 2.0  # only a larger difference is a jump: not a leap second, nor a slow answer
STEADY_S = 600.0  # after so long without a jump, the clock is trusted again
PAUSES = 1000  # at most so many are remembered
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The database's time, and the steady clock before and after it was read (s)."""

    now: datetime
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Jump:
    at: datetime  # in the time after the jump
    by: timedelta  # negative if the clock was set back


@dataclass(frozen=True, slots=True)
class Pause:
    begin: datetime
    end: datetime
    is_jump: bool = False  # time that only a jump of the clock produced


class Watch:
    """Before `begin`, it counts as always having watched."""

    def __init__(self) -> None:
        self.since = LONG_AGO  # without a pause or a jump
        self.steady_since = LONG_AGO  # without a jump
        self.jump: Jump | None = None  # the latest one
        self._pauses: deque[Pause] = deque(maxlen=PAUSES)
        self._last: ClockReading | None = None

    def begin(
        self, reading: ClockReading, watched_until: datetime | None, newest: datetime | None
    ) -> None:
        """A worker starts. `watched_until`: the last report; `newest`: the latest time written.

        The clock may have been set meanwhile or shortly before, so it must stay steady first.
        """
        now = reading.now
        self._last = reading
        self.since = self.steady_since = now
        if newest is not None and (by := now - newest) < -_seconds(JUMP_S):
            self.jump = Jump(now, by)
        if watched_until is None or watched_until > now:
            watched_until = LONG_AGO
        self._pauses.append(Pause(watched_until, now))

    def follow(self, reading: ClockReading, patience_s: float, interrupted: bool = False) -> bool:
        """Give whether the watch begins anew: after a jump, or if nobody could act meanwhile.

        Up to `patience_s` between two readings is no pause. `interrupted`: the database did not
        answer in between.
        """
        now = reading.now
        last, self._last = self._last, reading
        assert last is not None
        passed = now - last.now
        jump = _jump(passed, reading.before - last.after, reading.after - last.before)
        if jump:
            self.jump, self.steady_since = Jump(now, jump), now
            self._drop_future_pauses(now)
        if not jump and not interrupted and passed <= _seconds(patience_s):
            return False
        self.since = now
        if passed > timedelta(0):
            self._pauses.append(Pause(last.now, now, is_jump=bool(jump)))
        return True

    def ago(self, now: datetime, seconds: float) -> datetime:
        """The moment `seconds` ago, not counting pauses and jumps of the clock."""
        return _ago(now, seconds, self._pauses)

    def ago_with_pauses(self, now: datetime, seconds: float) -> datetime:
        """The moment `seconds` ago, counting pauses but not jumps of the clock."""
        return _ago(now, seconds, [pause for pause in self._pauses if pause.is_jump])

    def is_steady(self, now: datetime) -> bool:
        """Whether the clock may be trusted to say that something is old."""
        return now - self.steady_since >= _seconds(STEADY_S)

    def recent_jump(self, now: datetime) -> Jump | None:
        jump = self.jump
        return jump if jump and timedelta(0) <= now - jump.at < _seconds(STEADY_S) else None

    def _drop_future_pauses(self, now: datetime) -> None:
        """They were recorded while the clock was ahead."""
        past = [replace(p, end=min(p.end, now)) for p in self._pauses if p.begin < now]
        self._pauses = deque(past, maxlen=PAUSES)


def _ago(now: datetime, seconds: float, pauses: Sequence[Pause]) -> datetime:
    left = _seconds(seconds)
    for pause in reversed(pauses):
        if now - pause.end >= left:
            break
        left -= now - pause.end
        now = pause.begin
    return now - left


def _jump(passed: timedelta, least_s: float, most_s: float) -> timedelta:
    """By how much the clock was set, if by the steady clock `least_s` to `most_s` passed."""
    if passed > _seconds(most_s + JUMP_S):
        return passed - _seconds(most_s)
    if passed < _seconds(least_s - JUMP_S):
        return passed - _seconds(least_s)
    return timedelta(0)


def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
