"""The time that a worker has watched: what of it counts, and whether the clock is right.

No look at the database and none at a clock. Times are the database's; between two looks they are
compared with a clock that nobody sets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

JUMP_S = 2.0  # the clock is set by more than that: no leap second, and not a slow answer
STEADY_S = 600.0  # without a jump for so long, the clock is believed again
PAUSES = 1000  # that are remembered
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Look:
    """The database's time, and the steady clock before and after it was asked for (s)."""

    now: datetime
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Jump:
    at: datetime  # by the clock after it
    by: timedelta  # below 0 when it was set back


@dataclass(frozen=True, slots=True)
class Pause:
    begin: datetime
    end: datetime
    is_jump: bool = False  # it never was


class Watch:
    """As made, it has watched for ever."""

    def __init__(self) -> None:
        self.since = LONG_AGO  # without a pause or a jump
        self.steady_since = LONG_AGO  # without a jump
        self.jump: Jump | None = None  # the last one
        self._pauses: deque[Pause] = deque(maxlen=PAUSES)
        self._last: Look | None = None

    def begin(self, look: Look, watched_until: datetime | None, newest: datetime | None) -> None:
        """A worker starts. `watched_until`: when one reported last; `newest`: the last entry.

        Whether it was set meanwhile, or shortly before, nobody knows: it has to stay steady first.
        """
        self._last = look
        self.since = self.steady_since = look.now
        if newest is not None and (by := look.now - newest) < -_seconds(JUMP_S):
            self.jump = Jump(look.now, by)
        if watched_until is None or watched_until > look.now:
            watched_until = LONG_AGO
        self._pauses.append(Pause(watched_until, look.now))

    def follow(self, look: Look, patience_s: float, interrupted: bool = False) -> bool:
        """Give whether the watch begins anew: after a jump, or when nobody could act meanwhile.

        `patience_s` may lie between two looks; `interrupted`: the database did not answer.
        """
        last, self._last = self._last, look
        assert last is not None
        passed = look.now - last.now
        jump = _jump(passed, look.before - last.after, look.after - last.before)
        if jump:
            self.jump, self.steady_since = Jump(look.now, jump), look.now
            self._forget_what_is_to_come(look.now)
        if not jump and not interrupted and passed <= _seconds(patience_s):
            return False
        self.since = look.now
        if passed > timedelta(0):
            self._pauses.append(Pause(last.now, look.now, is_jump=bool(jump)))
        return True

    def ago(self, now: datetime, seconds: float) -> datetime:
        """The moment since which there were so many seconds in which everybody could act."""
        return _ago(now, seconds, self._pauses)

    def ago_with_pauses(self, now: datetime, seconds: float) -> datetime:
        """The moment since which so many seconds passed; only jumps are left out."""
        return _ago(now, seconds, [pause for pause in self._pauses if pause.is_jump])

    def is_steady(self, now: datetime) -> bool:
        """Whether what is old by the clock may be dropped."""
        return now - self.steady_since >= _seconds(STEADY_S)

    def jumped_lately(self, now: datetime) -> Jump | None:
        jump = self.jump
        return jump if jump and timedelta(0) <= now - jump.at < _seconds(STEADY_S) else None

    def _forget_what_is_to_come(self, now: datetime) -> None:
        """Pauses by a clock that was ahead."""
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
    """By how much the clock was set, when by the steady one between `least_s` and `most_s` went."""
    if passed > _seconds(most_s + JUMP_S):
        return passed - _seconds(most_s)
    if passed < _seconds(least_s - JUMP_S):
        return passed - _seconds(least_s)
    return timedelta(0)


def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
