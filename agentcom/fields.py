"""Checks of values from outside, the same for HTTP and for the agents' sockets.

A check takes a decoded value and returns it, perhaps normalized, or raises ValueError with the rest
of a sentence that begins with the field's name. Whether a database can store the values is checked
once for all fields, see `agentcom.wire.fault`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentcom.texts import is_blank

Check = Callable[[Any], Any]


def text(max_length: int, min_length: int = 0) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("must be a string")
        if not min_length <= len(value) <= max_length:
            raise ValueError(f"must have {min_length} to {max_length:,} characters")
        return value

    return check


def visible(check: Check) -> Check:
    """A text that passes `check` and has a visible character."""

    def check_visible(value: Any) -> str:
        found: str = check(value)
        if is_blank(found):
            raise ValueError("must not be blank")
        return found

    return check_visible


def whole(maximum: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not 0 <= value <= maximum:
            raise ValueError(f"must be a whole number from 0 to {maximum:,}")
        return value

    return check


def seconds(maximum: float, minimum: float = 0) -> Check:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("must be a number of seconds")
        if not minimum <= value <= maximum:
            raise ValueError(f"must be {minimum:g} to {maximum:,} seconds")
        return float(value)

    return check


def percent(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise ValueError("must be a number from 0 to 100")
    return value


def mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def texts(max_items: int, item: Check) -> Check:
    def check(value: Any) -> list[str]:
        if not isinstance(value, list) or len(value) > max_items:
            raise ValueError(f"must be a list of at most {max_items} strings")
        return [item(each) for each in value]

    return check
