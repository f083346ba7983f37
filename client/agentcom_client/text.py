"""Text that comes from others, for display."""

from __future__ import annotations

import re

# Escape sequences and control characters: a task's text must not steer the terminal.
CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def plain(text: str) -> str:
    """Without escape sequences and control characters, except tabs and line breaks."""
    return CONTROL.sub("", text)
