"""What an error says when everything that differs from task to task is left out.

Dead letters with one cause form one group. The group's key is kept with the task, so nothing is
compared when groups are read; whoever changes these rules has to fill the keys anew, as migration
0005 did.
"""

from __future__ import annotations

import hashlib
import re

from agentcom.texts import plain

READ_MAX = 4_000  # characters of an error that are looked at
TOLD_MAX = 1_000  # characters that count, without the colours of a terminal
CAUSE_MAX = 200  # characters of what is left of it
GAP = "…"
NOTHING = "No error was given"

_MONTH = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DAY = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"

# What is left out, in this order: what holds others goes before them.
_PATTERNS = (
    r'"[^"]*"|“[^”]*”|«[^»]*»|‘[^’]*’|`[^`]*`',
    r"(?<!\w)'[^']*'(?!\w)",  # not the apostrophe in "can't"
    r"\b[a-z][a-z0-9+.-]*://[^\s,;)\]}>]+",  # addresses
    r"\b[A-Za-z]:\\[^\s,;:)\]}>]+|\\\\[^\s,;:)\]}>]+",  # paths of Windows
    r"(?<![\w.])(?:~|\.{1,2})?/[^\s,;:)\]}>/]+(?:/[^\s,;:)\]}>/]*)*",  # paths of others
    r"\b[\w.+-]+@[\w.-]+\w",  # mail addresses
    r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?:Z\b|[+-]\d\d:?\d\d\b)?",
    rf"\b(?:(?:{_DAY})[a-z]*,? )?(?:\d{{1,2}}\.? (?:{_MONTH})|(?:{_MONTH})[a-z]* (?=\d))"
    r"(?:[\d:., +-]*\d)?",
    r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b",  # UUIDs
    r"\b0[xX][0-9a-fA-F]+\b",
    r"\b(?=[a-fA-F]*\d)[0-9a-fA-F]{6,}\b",
    r"\b(?=(?:[A-Za-z_]*\d){3})(?=\d*[A-Za-z_])\w{8,}\b",  # ids such as req_8f3kd72x
    r"(?:(?<!\w)[-+])?\d+(?:[.,:]\d+)*",
)
_DIFFERS = re.compile("|".join(f"(?:{pattern})" for pattern in _PATTERNS))
_GAPS = re.compile(rf"{GAP}(?:[\s,;:/.x-]*{GAP})+")


def cause_of(error: str) -> str:
    """The error without colours, ids, numbers, quoted values, paths and dates; what is left has 1
    to 200 characters."""
    told = " ".join(plain(error[:READ_MAX])[:TOLD_MAX].split())
    cause = _GAPS.sub(GAP, _DIFFERS.sub(GAP, told))
    return cause[:CAUSE_MAX].strip() or NOTHING


def group_of(error: str) -> str:
    """The key of the error's group: 16 hex digits."""
    return hashlib.sha256(cause_of(error).encode()).hexdigest()[:16]
