"""JSON as it comes in and goes out: strict, and nothing that some database could not keep."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

MAX_DEPTH = 100  # levels; far below what any parser or encoder on the way can take
# an escaped NUL that is not itself escaped; PostgreSQL can store it neither in text nor in JSON
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def decode(body: bytes) -> Any:
    """Raises ValueError with a sentence. Of a repeated key the last value counts.

    Lone surrogates pass, so that `fault` can be asked about each field and the client be told
    which one it was.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "surrogate" not in str(error):
            raise ValueError(f"not valid JSON: {error}") from None
    try:
        return json.loads(body.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from None


def encode(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # deeper or with larger numbers than orjson takes
        return json.dumps(value, separators=(",", ":")).encode()


def fault(value: Any) -> str | None:
    """What keeps a decoded value from being stored, as the rest of a sentence; None: nothing."""
    try:
        encoded = orjson.dumps(value)
    except TypeError as error:
        if "surrogates" in str(error):
            return "must not contain lone surrogates"
        return f"must be JSON of at most {MAX_DEPTH} levels"
    if b"\\u0000" in encoded and NUL.search(encoded):
        return "must not contain NUL characters"
    # counting is cheap and nearly always enough
    if encoded.count(b"[") + encoded.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        return f"must not be nested deeper than {MAX_DEPTH} levels"
    return None


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inside), default=0) if isinstance(value, dict | list) else 0


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
