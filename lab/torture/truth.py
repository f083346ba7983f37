"""What is wrong as torture itself knows it, to hold against what the light says."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

# So long after something went wrong, and after the last act on a process, the database or Redis,
# the light must say so: a process that died is noticed after 3 s, and looked at twice a second.
BOUND_S = 6.0
REMEMBERED_S = 300.0  # of a jump of the clock; the light tells of it for ten minutes
OFFLINE, JUMPED = "agent_offline", "clock_jumped"
UNKNOWN = {"worker_silent", "database_silent"}  # the light says that it cannot know


class Truth:
    """`now` is `time.monotonic`, or a test's."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str], float] = {}  # by the light's code and whom it is about
        self._acts = 0  # under way
        self._undisturbed_since = 0.0

    def begins(self, code: str, whom: str, now: float | None = None) -> None:
        self._since[code, whom] = _now(now)

    def ends(self, code: str, whom: str) -> None:
        self._since.pop((code, whom), None)

    @contextmanager
    def disturbed(self) -> Iterator[None]:
        """Something is done to what the light needs."""
        self._acts += 1
        try:
            yield
        finally:
            self._acts -= 1
            self._undisturbed_since = time.monotonic()

    def is_undisturbed_since(self, at: float) -> bool:
        return not self._acts and self._undisturbed_since < at

    def must_be_told(self, now: float | None = None) -> set[tuple[str, str]]:
        now = _now(now)
        if self._acts or now - self._undisturbed_since < BOUND_S:
            return set()
        return {
            wrong for wrong, since in self._since.items() if BOUND_S <= now - since < REMEMBERED_S
        }


def untold(wrong: Collection[tuple[str, str]], health: dict[str, Any]) -> list[str]:
    """What of it the light does not say."""
    told = {detail["code"] for detail in health["details"]}
    if told & UNKNOWN:
        return []
    return sorted(f"{code}: {whom}" for code, whom in wrong if code not in told)


def _now(now: float | None) -> float:
    return time.monotonic() if now is None else now
