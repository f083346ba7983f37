"""What the commands print: for people on a terminal, for scripts everywhere else."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from agentcom_client.text import plain

RED, GREEN, YELLOW, BLUE, DIM, BOLD = "31", "32", "33", "34", "2", "1"
BY_STATUS = {
    "completed": GREEN,
    "assigned": BLUE,
    "working": BLUE,
    "dead_letter": RED,
    "cancelled": DIM,
    "queued": YELLOW,
    "scheduled": YELLOW,
    "idle": GREEN,
    "blocked": YELLOW,
    "stopping": YELLOW,
    "unresponsive": RED,
    "offline": DIM,
}
PRIORITIES = ("urgent", "high", "normal", "low")


def is_terminal(stream: TextIO | None = None) -> bool:
    return (stream or sys.stdout).isatty()


def paint(text: str, colour: str | None, stream: TextIO) -> str:
    """With colour on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    if not colour or not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def coloured(text: str, colour: str | None) -> str:
    """For standard output."""
    return paint(text, colour, sys.stdout)


def line(text: str) -> str:
    """As one line."""
    return " ".join(plain(text).split())


def complain(sentence: str) -> None:
    print(f"agentcom-client: {plain(sentence)}", file=sys.stderr)


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], tint: int | None = None) -> None:
    """In columns. The last one is cut to the width of a terminal. The column `tint` has a status,
    which gets its colour."""
    shown = [[line(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(head, *shown, strict=True)]
    room = shutil.get_terminal_size((100, 24)).columns if is_terminal() else 0
    left = room - sum(width + 2 for width in widths[:-1])
    print(coloured("  ".join(map(padded, head, widths)).rstrip(), BOLD))
    for row in shown:
        cells = list(map(padded, row, widths))
        cells[-1] = cut(row[-1], left) if room else row[-1]
        if tint is not None:
            cells[tint] = coloured(cells[tint], BY_STATUS.get(row[tint]))
        print("  ".join(cells).rstrip())


def age(ms: int | None, now_ms: float | None = None) -> str:
    """How long ago: "12 s", "3 min", "5 h", "2 d"."""
    if not ms:
        return ""
    seconds = max(0, ((time.time() * 1000 if now_ms is None else now_ms) - ms) / 1000)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def at(ms: int | None) -> str:
    """A moment, in the local time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000)) if ms else ""


class Progress:
    """A bar on the terminal's standard error; nothing elsewhere."""

    WIDTH = 30

    def __init__(self, total: int, what: str) -> None:
        self._total = total
        self._what = what
        self._is_shown = sys.stderr.isatty()

    def show(self, done: int, note: str = "") -> None:
        if not self._is_shown:
            return
        filled = self.WIDTH * done // max(1, self._total)
        bar = "█" * filled + "░" * (self.WIDTH - filled)
        print(f"\r\x1b[K{bar} {done}/{self._total} {self._what} {note}", end="", file=sys.stderr)
        sys.stderr.flush()

    def end(self) -> None:
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr)
            sys.stderr.flush()


def _width(text: str) -> int:
    """In columns of a terminal."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    while text and _width(text) > width - 1:
        text = text[:-1]
    return text + "…"
