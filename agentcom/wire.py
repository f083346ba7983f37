"""JSON in and out: strict, and without values that a database could not store."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

MAX_DEPTH = 100  # levels; far below the limit of any parser or encoder involved
# an escaped NUL that is not itself escaped; PostgreSQL can store it neither in text nor in JSON
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
TOO_DEEP = "[left out: nested too deep]"


def decode(body: bytes | str) -> Any:
    """Raises ValueError with a sentence. If a key is repeated, the last value counts.

    Lone surrogates are accepted here, so that `fault` can find the field that has one, and the
    error can name it.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "surrogate" not in str(error):
            raise ValueError(f"not valid JSON: {error}") from None
    try:
        text = body if isinstance(body, str) else body.decode()
        return json.loads(text, parse_constant=_no_number, parse_int=_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from None


def encode(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # deeper, or with larger numbers, than orjson accepts
        return json.dumps(value, separators=(",", ":")).encode()


def fault(value: Any, levels: int = MAX_DEPTH) -> str | None:
    """Why a decoded value cannot be stored, as the rest of a sentence; None if it can."""
    try:
        encoded = orjson.dumps(value)
    except TypeError as error:
        if "surrogates" in str(error):
            return "must not contain lone surrogates"
        return f"must be JSON of at most {levels} levels"
    if b"\\u0000" in encoded and NUL.search(encoded):
        return "must not contain NUL characters"
    # counting brackets is cheap and nearly always enough
    if encoded.count(b"[") + encoded.count(b"{") > levels and _depth(value) > levels:
        return f"must not be nested deeper than {levels} levels"
    return None


def sanitized(value: Any, levels: int = MAX_DEPTH) -> Any:
    """The value in a form that can be stored: what `fault` rejects is replaced visibly."""
    if isinstance(value, str):
        return UNSTORABLE.sub("\ufffd", value)
    if not isinstance(value, dict | list):
        return value
    if not levels:
        return TOO_DEEP
    if isinstance(value, list):
        return [sanitized(item, levels - 1) for item in value]
    return {sanitized(key): sanitized(item, levels - 1) for key, item in value.items()}


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inside), default=0) if isinstance(value, dict | list) else 0


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _number(digits: str) -> int | float:
    """Like orjson: a number that 64 bits cannot hold becomes a floating point number."""
    number = int(digits) if len(digits) <= 20 else math.inf
    return number if -(2**63) <= number < 2**64 else _finite(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_number(digits[:20])
