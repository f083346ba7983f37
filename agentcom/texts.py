"""Texts from outside: which characters are visible, and how to shorten and show them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import chain

# Terminal escape sequences: colours and cursor moves; titles and links with their contents; short
# sequences. And control characters except white space.
_NOT_SHOWN = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]?"
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]?"
    r"|\x9b[0-9;:]+[@-~]"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]"
)
_SPACE_OR_FORMAT = {"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"}
# Invisible, although their category is neither space nor format: Hangul fillers, Khmer inherent
# vowels, variation selectors, the blank Braille cell, the null notehead, and code points that
# Unicode reserves for more such characters.
_INVISIBLE = frozenset(
    map(
        chr,
        chain(
            (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x2800, 0x3164, 0xFFA0, 0x1D159),
            range(0x180B, 0x1810),
            range(0xFE00, 0xFE10),
            range(0xFFF0, 0xFFF9),
            range(0xE0000, 0xE1000),
        ),
    )
)
# they change the direction of the text that follows
_DIRECTION_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")
_ISOLATES = re.compile("[\u2066-\u2069]")
_GAP_LENGTH = 40  # characters for the note on what is left out


def plain(text: str) -> str:
    """The text without terminal escape sequences and control characters, for display."""
    return text if text.isprintable() else _NOT_SHOWN.sub("", text)


def isolated(text: str) -> str:
    """The text in a Unicode isolate, so that it cannot change the direction of text after it."""
    return f"\u2068{_ISOLATES.sub('', text)}\u2069" if _DIRECTION_CONTROLS.search(text) else text


def is_blank(text: str) -> bool:
    """Whether no character of the text is visible."""
    return not any(map(is_visible, text))


def is_visible(character: str) -> bool:
    if character < "\x7f":
        return character > " "
    if character in _INVISIBLE:
        return False
    return unicodedata.category(character) not in _SPACE_OR_FORMAT


def listed(names: Sequence[str], last: str = "and") -> str:
    """As in a sentence: "a, b and c". At least one."""
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def cut(text: str, max_length: int) -> str:
    """The text, shortened to `max_length` characters: its beginning, how many characters are left
    out, and its end. Some texts say at the beginning what went wrong, others at the end."""
    if len(text) <= max_length:
        return text
    kept = max_length - _GAP_LENGTH
    tail = kept // 3
    gap = f" … [{len(text) - kept:,} characters left out] … "
    return text[: kept - tail] + gap + text[-tail:]
