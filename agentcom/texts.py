"""Texts that others wrote: what of them can be seen, and how they are cut and shown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import chain

# Escape sequences of terminals: colours and cursor moves; titles and links, with all that belongs
# to them; the short ones. And control characters, but for white space.
_NOT_SHOWN = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]?"
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]?"
    r"|\x9b[0-9;:]+[@-~]"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]"
)
_SPACE_OR_FORMAT = {"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"}
# Neither a space nor a format character by their category, and yet nothing to be seen: fillers of
# Hangul, vowels of Khmer, selectors of variants, the blank Braille cell, a note without a head,
# and what Unicode keeps free for more of the kind.
_LOOKS_LIKE_NOTHING = frozenset(
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
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")  # what follows reads from the other side
_ISOLATES = re.compile("[\u2066-\u2069]")
_ROOM = 40  # characters for what stands in the gap


def plain(text: str) -> str:
    """Without the escape sequences of terminals and without control characters, for showing."""
    return text if text.isprintable() else _NOT_SHOWN.sub("", text)


def isolated(text: str) -> str:
    """So that nothing in it turns around what stands behind it, where several make one text."""
    return f"\u2068{_ISOLATES.sub('', text)}\u2069" if _TURNS.search(text) else text


def is_blank(text: str) -> bool:
    """Whether there is nothing in it that anybody can see."""
    return not any(map(shows, text))


def shows(character: str) -> bool:
    if character < "\x7f":
        return character > " "
    if character in _LOOKS_LIKE_NOTHING:
        return False
    return unicodedata.category(character) not in _SPACE_OR_FORMAT


def listed(names: Sequence[str], last: str = "and") -> str:
    """As in a sentence: "a, b and c". At least one."""
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def cut(text: str, most: int) -> str:
    """At most so many characters of it: the beginning and the end, and between them how many are
    missing. What went wrong stands at the beginning of one text and at the end of another."""
    if len(text) <= most:
        return text
    kept = most - _ROOM
    tail = kept // 3
    gap = f" … [{len(text) - kept:,} characters left out] … "
    return text[: kept - tail] + gap + text[-tail:]
