"""The cause of an error: its text without everything that differs from task to task.

Dead letters with the same cause form a group. The group's key is stored with the task, so reading
groups compares no texts. A change of these rules needs a migration that recomputes the keys, such
as 0005.
"""

from __future__ import annotations

import hashlib
import re

from agentcom.texts import plain

READ_MAX = 4_000  # characters of an error that are read
CLEAN_MAX = 1_000  # of those, characters that are used after escape sequences are removed
CAUSE_MAX = 200  # characters of a cause
GAP = "…"
NOTHING = "No error was given"

_MONTH = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DAY = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"

# What is left out, in this order: patterns that may contain others come first.
_PATTERNS = (
    r'"[^"]*"|“[^”]*”|«[^»]*»|‘[^’]*’|`[^`]*`',
    r"(?<!\w)'[^']*'(?!\w)",  # not the apostrophe in "can't"
    r"\b[a-z][a-z0-9+.-]*://[^\s,;)\]}>]+",  # addresses
    r"\b[A-Za-z]:\\[^\s,;:)\]}>]+|\\\\[^\s,;:)\]}>]+",  # Windows paths
    r"(?<![\w.])(?:~|\.{1,2})?/[^\s,;:)\]}>/]+(?:/[^\s,;:)\]}>/]*)*",  # POSIX paths
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
    """The error without colours, ids, numbers, quoted values, paths and dates: 1 to 200
    characters."""
    clean = " ".join(plain(error[:READ_MAX])[:CLEAN_MAX].split())
    cause = _GAPS.sub(GAP, _DIFFERS.sub(GAP, clean))
    return cause[:CAUSE_MAX].strip() or NOTHING


def group_of(error: str) -> str:
    """The key of the error's group: 16 hex digits."""
    return hashlib.sha256(cause_of(error).encode()).hexdigest()[:16]
