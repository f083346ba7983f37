"""What a viewer asks for: all agents, or a window of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from agentcom.api import BadInput, read_body
from agentcom.fields import Check, fields, takes, text, whole
from agentcom.shapes import Shape, shown
from dashboard.state.windows import COUNT, FILTER_MAX, ROWS_MAX, SORTS, Order, Wanted

FIRST_MAX = 10_000_000
SORTING: Shape = {
    "type": "string",
    "enum": [*SORTS, *(f"-{name}" for name in SORTS)],
    "examples": ["-last_seen"],
}


@takes(SORTING)
def check_sort(value: Any) -> str:
    if value not in SORTING["enum"]:
        raise ValueError(f"must be one of {', '.join(SORTS)}, with a - before it to descend")
    return str(value)


@takes({"type": "integer", "minimum": 1, "maximum": ROWS_MAX, "default": COUNT})
def check_count(value: Any) -> int:
    count: int = whole(ROWS_MAX)(value)
    if count < 1:
        raise ValueError(f"must be a whole number from 1 to {ROWS_MAX}")
    return count


WINDOW_FIELDS: Mapping[str, Check] = {
    "sort": check_sort,
    "filter": text(FILTER_MAX),
    "from": whole(FIRST_MAX),
    "count": check_count,
}
WINDOW: Shape = shown(
    fields(WINDOW_FIELDS),
    {"sort": "-last_seen", "filter": "gpu", "from": 0, "count": 50},
)


def read_window(data: Any) -> Wanted:
    """Raises `BadInput`."""
    given = read_body(data, WINDOW_FIELDS)
    sort: str = given.get("sort", "name")
    words = tuple(given.get("filter", "").lower().split())
    order = Order(sort.removeprefix("-"), sort.startswith("-"), words)
    return Wanted(order, given.get("from", 0), given.get("count", COUNT))


@takes({"type": "string", "contentMediaType": "application/json", "contentSchema": WINDOW})
def check_agents(value: str) -> Wanted:
    """The same in a query parameter."""
    try:
        return read_window(orjson.loads(value))
    except ValueError:
        raise ValueError("must be a JSON object") from None
    except BadInput as error:
        raise ValueError(error.answer["error"]) from None
