"""Checks of values from outside, the same for HTTP and for the agents' sockets.

A check takes a decoded value and returns it, perhaps normalized, or raises ValueError with the rest
of a sentence that begins with the field's name. Whether a database can store the values is checked
once for all fields, see `agentcom.wire.fault`.

Each check carries the JSON Schema of the values that it takes, made of the same limits. Where a
schema cannot say a rule, its description does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, cast

from agentcom.shapes import FLAG, OBJECT, STORABLE, Shape, nullable
from agentcom.texts import is_blank


class Check(Protocol):
    shape: Shape

    def __call__(self, value: Any, /) -> Any: ...


def takes(shape: Shape) -> Callable[[Callable[[Any], Any]], Check]:
    """Makes a function a check of values of this shape."""

    def mark(function: Callable[[Any], Any]) -> Check:
        check = cast(Check, function)
        check.shape = shape
        return check

    return mark


def text(max_length: int, min_length: int = 0) -> Check:
    at_least = {"minLength": min_length} if min_length else {}

    @takes({"type": "string", **at_least, "maxLength": max_length, "pattern": STORABLE})
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("must be a string")
        if not min_length <= len(value) <= max_length:
            raise ValueError(f"must have {min_length} to {max_length:,} characters")
        return value

    return check


def visible(check: Check) -> Check:
    """A text that passes `check` and has a visible character."""

    @takes({**check.shape, "format": "visible", "description": "With a visible character."})
    def check_visible(value: Any) -> str:
        found: str = check(value)
        if is_blank(found):
            raise ValueError("must not be blank")
        return found

    return check_visible


def whole(maximum: int) -> Check:
    @takes({"type": "integer", "minimum": 0, "maximum": maximum})
    def check(value: Any) -> int:
        number = as_whole(value)
        if type(number) is not int or not 0 <= number <= maximum:
            raise ValueError(f"must be a whole number from 0 to {maximum:,}")
        return number

    return check


def as_whole(value: Any) -> Any:
    """The same, but 3.0 as 3: for JSON it is the same number, and for JSON Schema an integer."""
    return int(value) if type(value) is float and value.is_integer() else value


def seconds(maximum: float, minimum: float = 0) -> Check:
    @takes({"type": "number", "minimum": minimum, "maximum": maximum, "description": "In s."})
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("must be a number of seconds")
        if not minimum <= value <= maximum:
            raise ValueError(f"must be {minimum:g} to {maximum:,} seconds")
        return float(value)

    return check


@takes({"type": "number", "minimum": 0, "maximum": 100})
def percent(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise ValueError("must be a number from 0 to 100")
    return value


@takes(OBJECT)
def mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return value


@takes(FLAG)
def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def texts(max_items: int, item: Check) -> Check:
    @takes({"type": "array", "maxItems": max_items, "items": item.shape})
    def check(value: Any) -> list[str]:
        if not isinstance(value, list) or len(value) > max_items:
            raise ValueError(f"must be a list of at most {max_items} strings")
        return [item(each) for each in value]

    return check


# --- Fields of a query, which come as texts


def number(maximum: int, minimum: int, default: int) -> Check:
    """A whole number; `default` is for a request that gives none."""

    @takes({"type": "integer", "minimum": minimum, "maximum": maximum, "default": default})
    def check(value: str) -> int:
        found = digits(value)
        if found is None or not minimum <= found <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return found

    return check


def or_empty(shape: Shape) -> Shape:
    """The shape of a field of a query: one that is empty counts as absent."""
    if "enum" in shape:
        return {**shape, "enum": [*shape["enum"], ""]}
    if shape["type"] == "string" and "pattern" not in shape:
        return shape
    return {"anyOf": [shape, {"const": ""}]}


def digits(text: str) -> int | None:
    """The number, or None if the text is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


# --- Objects


def fields(
    checks: Mapping[str, Check],
    required: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> Shape:
    """The shape of an object with these fields. One that is not required may be null, which counts
    as absent; others than these are refused."""
    needed, left_out = tuple(required), defaults or {}
    return {
        "type": "object",
        "properties": {
            name: check.shape
            if name in needed
            else {
                **nullable(check.shape),
                **({"default": left_out[name]} if name in left_out else {}),
            }
            for name, check in checks.items()
        },
        **({"required": list(needed)} if needed else {}),
        "additionalProperties": False,
    }
