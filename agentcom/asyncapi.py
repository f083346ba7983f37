"""The sockets as an AsyncAPI 3.0 document."""

from __future__ import annotations

from typing import Any


def document() -> dict[str, Any]:
    return {}
