"""Long texts, cut for those who only glance."""

from __future__ import annotations

TEXT_MAX = 500  # characters of a description or an error; the task itself has all of it


def short(text: str | None, most: int = TEXT_MAX) -> str:
    text = text or ""
    return text if len(text) <= most else text[:most] + "…"
