"""Shortens long texts for lists, and masks their secrets."""

from __future__ import annotations

from agentcom.redaction import MARGIN, masked_text
from agentcom.texts import plain

TEXT_MAX = 500  # characters of a description or an error; the task itself has all of it
READ_MAX = 2 * TEXT_MAX  # characters read for that: escape sequences among them are not shown


def short(text: str | None, most: int = TEXT_MAX) -> str:
    """The shown part of a text. Of a longer text, pass at least `READ_MAX` + 1 characters."""
    text = text or ""
    shown = masked_text(plain(text[:READ_MAX]))
    if len(text) <= READ_MAX and len(shown) <= most:
        return shown
    return (shown if len(text) <= READ_MAX else shown[:-MARGIN])[:most] + "…"
