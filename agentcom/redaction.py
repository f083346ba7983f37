"""Masks secrets in what people see: the dashboard, the admin, exports and the log.

Agents and programs with a token get everything as it was submitted. What counts as a secret:

1. In JSON, and in texts that quote JSON, the value of a key that `AGENTCOM_REDACT` lists.
2. In every text, what a pattern of `AGENTCOM_REDACT_PATTERNS` matches.
3. In every text, a token of the hub behind `Bearer` or `token=`, and a session's cookie.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from re import _constants, _parser
from typing import Any

from django.conf import settings

MASK = "•••"
OFF = "none"  # as the only key: no key is masked

# A pattern is applied to so much of a text at once, so that its time grows with the text's length
# and not with its square. What it matches may begin in one part and end in the next.
WINDOW, OVERLAP = 1024, 256
LONGEST = 64 * 1024  # characters of one secret that are masked at least
# Where only the beginning of a text is read, so much at its end is not shown: a secret that is cut
# there might not look like one, and masks make room for it.
MARGIN = 200
MOST_STEPS = 1_000  # of a repeat within a repeat

PROBES, PROBE_LENGTHS, PROBE_S = "aA0 -_./=", (12, 18, 24, 30, 100, 300), 0.02

_TOKENS = (
    r"(?P<lead>(?i:\bbearer\s+|\btoken[\"']?\s*[=:]\s*[\"']?|\bagentcom_session=))"
    r"[A-Za-z0-9_~+/.-]{20,}=*"
    r"|\b(?:act|enrol)_[A-Za-z0-9_-]{20,}"
)
_TOKEN_HINTS = ("bearer", "token", "agentcomsession")


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    keys: frozenset[str]  # as `_same` has them
    hints: tuple[str, ...]  # likewise: a text with none of these has neither a token nor a key
    tokens_and_keys: re.Pattern[str]
    patterns: tuple[re.Pattern[str], ...]


def masked(value: Any) -> Any:
    """The value, of JSON, without its secrets. At most `wire.MAX_DEPTH` levels deep."""
    return _masked(value, current_rules())


def masked_text(text: str) -> str:
    return _replaced(text, current_rules())


def current_rules() -> Rules:
    """Called for every text: nothing is done again while the lists are the same objects."""
    global _current
    keys, patterns = settings.AGENTCOM_REDACT, settings.AGENTCOM_REDACT_PATTERNS
    if _current is None or _current[0] is not keys or _current[1] is not patterns:
        _current = keys, patterns, _rules(tuple(keys), tuple(patterns))
    return _current[2]


_current: tuple[list[str], list[str], Rules] | None = None


def _masked(value: Any, rules: Rules) -> Any:
    match value:
        case str():
            return _replaced(value, rules)
        case dict():
            return {
                key: MASK
                if _same(key) in rules.keys and not _says_nothing(item)
                else _masked(item, rules)
                for key, item in value.items()
            }
        case list():
            return [_masked(item, rules) for item in value]
    return value


def _says_nothing(item: Any) -> bool:
    """Whether a secret is set at all, people may see."""
    return item is None or item == "" or isinstance(item, bool)


def _replaced(text: str, rules: Rules) -> str:
    patterns = rules.patterns
    squeezed = _same(text)
    if "act_" in text or "enrol_" in text or any(map(squeezed.__contains__, rules.hints)):
        patterns = (rules.tokens_and_keys, *patterns)
    if not patterns:
        return text
    spans = sorted(span for pattern in patterns for span in _spans(pattern, text))
    if not spans:
        return text
    parts: list[str] = []
    shown_from = 0
    for start, end in spans:
        if start >= shown_from:
            parts += [text[shown_from:start], MASK]
        shown_from = max(shown_from, end)
    return "".join([*parts, text[shown_from:]])


def _spans(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Where the secrets begin and end."""
    for first in range(0, len(text), WINDOW - OVERLAP):
        end = first + WINDOW
        for found in pattern.finditer(text, first, end):
            if found.end() == end:  # it may go on
                found = pattern.match(text, found.start(), found.start() + LONGEST) or found
            named = found.groupdict()
            lead = named.get("lead") or named.get("name") or ""
            yield found.start() + len(lead), found.end()


# --- The rules


def _same(key: object) -> str:
    """`api_key`, `API-Key` and `apiKey` are the same key."""
    return str(key).casefold().replace("-", "").replace("_", "")


@lru_cache(maxsize=8)
def _rules(keys: tuple[str, ...], patterns: tuple[str, ...]) -> Rules:
    names = () if keys == (OFF,) else tuple(filter(None, map(_same, keys)))
    quoted = "|".join("[_-]?".join(map(re.escape, name)) for name in names)
    in_quotes = (
        rf'|(?P<name>(?i:"(?:{quoted})"\s*:\s*))(?:"(?:[^"\\]|\\.)*(?:"|\\?$)|-?\d[\d.eE+-]*)'
    )
    return Rules(
        frozenset(names),
        (*_TOKEN_HINTS, *names),
        re.compile(_TOKENS + in_quotes if names else _TOKENS, re.S),
        tuple(map(re.compile, patterns)),
    )


def pattern_fault(pattern: str) -> str | None:
    """Why a setting may not have this pattern, as the rest of a sentence."""
    try:
        re.compile(pattern)
        parsed = _parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"is no regular expression: {error}"
    if parsed.getwidth()[0] == 0:
        return "matches an empty text, so it would mask nothing, everywhere"
    if _most_steps(parsed, 1) > MOST_STEPS:
        return (
            "repeats what is itself repeated or a choice, as (a+)+ does, which may take for ever; "
            "write it without the outer repeat"
        )
    if _is_slow(re.compile(pattern)):
        return "takes too long where it does not match; begin it with fixed characters"
    return None


def _is_slow(pattern: re.Pattern[str]) -> bool:
    """Tries it on runs of one character. The short ones are first: what takes exponential time on
    them is not tried on the long ones."""
    for length in PROBE_LENGTHS:
        for character in PROBES:
            began = time.thread_time()
            pattern.search(character * length + "!")
            if time.thread_time() - began > PROBE_S:
                return True
    return False


def _most_steps(parsed: Any, times: int) -> int:
    """In how many ways the repeats within a repeat may share a text; 0 where there are none.
    `times`: how often all of this is repeated."""
    most = 0
    for operation, argument in parsed:
        most = max(most, _steps_of(operation, argument, times))
    return most


def _steps_of(operation: Any, argument: Any, times: int) -> int:
    if operation in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
        least, most, inside = argument
        choices = min(most - least + 1, MOST_STEPS + 1)
        own = choices ** min(times, 12) if times > 1 and choices > 1 else 0
        return max(own, _most_steps(inside, times * min(max(most, 1), MOST_STEPS + 1)))
    if operation is _constants.BRANCH:
        own = times if times > MOST_STEPS else 0
        return max(own, *(_most_steps(branch, times) for branch in argument[1]))
    inner = [part for part in _parts(argument) if isinstance(part, _parser.SubPattern)]
    return max((_most_steps(part, times) for part in inner), default=0)


def _parts(argument: Any) -> Sequence[Any]:
    return argument if isinstance(argument, tuple | list) else (argument,)


# --- The log


class MaskedLines(logging.Formatter):
    """Lines of the log, with their tracebacks, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return masked_text(super().format(record))
