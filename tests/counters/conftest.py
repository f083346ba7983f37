"""A worker whose clock the test moves."""

from tests.shift import clock, shift

__all__ = ["clock", "shift"]
