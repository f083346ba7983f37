"""What a value from outside must be: one set of checks for HTTP and for the agents' sockets.

A check takes a decoded value and gives it back, perhaps in a tidier form, or raises ValueError
with the rest of a sentence that began with the field's name. Whether a database can keep the
value is asked once for all fields together, see `agentcom.wire.fault`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentcom.texts import is_blank

Check = Callable[[Any], Any]


def text(most: int, least: int = 0) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("must be a string")
        if not least <= len(value) <= most:
            raise ValueError(f"must have {least} to {most:,} characters")
        return value

    return check


def visible(check: Check) -> Check:
    """A text with something in it that can be seen."""

    def check_visible(value: Any) -> str:
        found: str = check(value)
        if is_blank(found):
            raise ValueError("must not be blank")
        return found

    return check_visible


def whole(most: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not 0 <= value <= most:
            raise ValueError(f"must be a whole number from 0 to {most:,}")
        return value

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


def texts(most: int, item: Check) -> Check:
    def check(value: Any) -> list[str]:
        if not isinstance(value, list) or len(value) > most:
            raise ValueError(f"must be a list of at most {most} strings")
        return [item(each) for each in value]

    return check
