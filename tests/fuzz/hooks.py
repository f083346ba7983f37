"""What Schemathesis has to know and no JSON Schema can say. Loaded by its command line.

Nothing here makes a check milder: it is about the data of requests that are meant to be valid.
"""

from __future__ import annotations

import base64
import os
import secrets
import time
from datetime import UTC, datetime
from typing import Any

import schemathesis
from hypothesis import strategies as st

from agentcom.texts import is_blank

DAY_MS = 24 * 3600 * 1000
NEVER = 10**15
NUMBERS = st.integers(0, NEVER)
# Enrolment codes that the hub knows, each good for one call.
CODES = iter(os.environ.get("CODES", "").split())


def cursors(parts: int) -> st.SearchStrategy[str]:
    """As a page of a list gives them."""

    def written(key: list[int]) -> str:
        return base64.urlsafe_b64encode("-".join(map(str, key)).encode()).decode().rstrip("=")

    return st.lists(NUMBERS, min_size=parts, max_size=parts).map(written)


def as_token(random: bytes) -> str:
    return base64.urlsafe_b64encode(random).decode().rstrip("=")


visible = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60)
schemathesis.openapi.format("visible", visible.filter(lambda text: not is_blank(text)))
schemathesis.openapi.format("printable", st.text(max_size=60).filter(str.isprintable))
schemathesis.openapi.format(
    "random", st.binary(min_size=32, max_size=32).map(as_token).filter(lambda t: len(set(t)) > 15)
)
schemathesis.openapi.format("cursor-1", cursors(1))
schemathesis.openapi.format("cursor-2", cursors(2))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    if is_meant_wrong(case, "body"):
        if "Idempotency-Key" in (case.headers or {}) and not is_meant_wrong(case, "header"):
            # a key that is known is answered with its first receipts, whatever the body is
            case.headers["Idempotency-Key"] = secrets.token_hex(16)
    else:
        if case.path == "/api/enrol" and isinstance(case.body, dict):
            case.body["code"] = next(CODES, case.body.get("code"))
        for task in case.body if isinstance(case.body, list) else [case.body]:
            if isinstance(task, dict):
                bring_into_order(task)
                task |= {name: without_nul(task[name]) for name in task.keys() & {"metadata"}}


def is_meant_wrong(case: Any, part: str) -> bool:
    components = case.meta.components
    found = next((info for place, info in components.items() if place.value == part), None)
    return found is not None and found.mode.is_negative


def bring_into_order(body: dict[str, Any]) -> None:
    """Deadlines are in the future, and `not_before` is before them."""
    for name in ("complete_by", "until"):
        if body.get(name) is not None and moment(body[name]) < time.time() * 1000 + DAY_MS:
            body[name] = int(time.time() * 1000) + DAY_MS + abs(hash(str(body[name]))) % DAY_MS
    start, end = body.get("not_before"), body.get("complete_by")
    if start is not None and end is not None and moment(start) >= moment(end):
        body["not_before"] = int(time.time() * 1000)


def without_nul(value: Any) -> Any:
    """Schemas say of texts that they have none, but not of all that may be in `metadata`."""
    match value:
        case str():
            return value.replace("\0", "")
        case list():
            return [without_nul(each) for each in value]
        case dict():
            return {without_nul(key): without_nul(each) for key, each in value.items()}
    return value


def moment(value: Any) -> float:
    """In ms."""
    if not isinstance(value, str):
        return float(value)
    try:
        found = datetime.fromisoformat(value)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        return found.timestamp() * 1000
    except (ValueError, OverflowError):
        return float(-NEVER)
