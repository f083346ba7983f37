"""Filters of the page's first paint.

They format figures exactly like `static/dashboard/format.js`, so that nothing
moves when the scripts take over.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django import template
from django.conf import settings
from django.utils.html import format_html
from django.utils.safestring import SafeString

from agentcom import texts
from agentcom.kinds import Kind, kinds
from agentcom.redaction import masked_text

register = template.Library()

STATES = ("working", "assigned", "blocked", "stopping", "unresponsive", "idle", "offline")
TASK = re.compile(r"task-[0-9a-f]{16}")
WEBHOOK = re.compile(r"hook-[0-9a-f]{16}")
SHORT_TEXT = 300  # characters; a task's description may have 16,384 of them


@register.simple_tag
def base() -> str:
    """The path prefix of all URLs of the hub, for the scripts."""
    return str(settings.AGENTCOM_PATH_PREFIX)


@register.simple_tag
def age(at: int | None, now: int | None) -> SafeString:
    """A `<time>` that says how long before `now` the moment `at` was (both ms since the epoch).

    The scripts find it by `data-at` and keep it current.
    """
    if not at:
        return format_html('<time data-at="">{}</time>', "–")
    moment = datetime.fromtimestamp(at / 1000, UTC)
    return format_html(
        '<time data-at="{}" datetime="{}" title="{}">{}</time>',
        at,
        moment.isoformat(timespec="milliseconds"),
        moment.strftime("%Y-%m-%d %H:%M:%S UTC"),
        span((now or at) - at),
    )


@register.simple_tag
def moment(at: int | None) -> SafeString:
    """A `<time>` with the moment itself (ms since the epoch), to the second."""
    if not at:
        return format_html("{}", "–")
    then = datetime.fromtimestamp(at / 1000, UTC)
    return format_html(
        '<time datetime="{}">{}</time>',
        then.isoformat(timespec="milliseconds"),
        then.strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def span(ms: int) -> str:
    """A length of time, coarse but still informative: `42 s`, `3 min`, `2 h 5 min`."""
    seconds = max(0, ms) // 1000
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 1:
        return f"{seconds} s"
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"


@register.simple_tag
def kinds_of_events() -> Mapping[str, Kind]:
    """The kinds of journal entries, with the words for them."""
    return kinds()


@register.filter
def before(at: int, ms: int) -> int:
    """The moment `ms` earlier than `at`."""
    return at - ms


@register.filter
def duration(ms: int | None) -> str:
    """How long a piece of work took: `840 ms`, `1.2 s`, `3 min 4 s`."""
    if not isinstance(ms, int):
        return "–"
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms // 100 / 10:.1f} s"
    if ms < 3_600_000:
        return f"{ms // 60_000} min {ms // 1000 % 60} s"
    return span(ms)


@register.filter
def count(number: int | None) -> str:
    """A whole number with thousands separators."""
    return f"{number:,}" if isinstance(number, int) else "–"


@register.filter
def figure(number: int | None) -> str:
    """A number that must fit its tile: `48,213`, `1.25 M`, `18.2 M`."""
    if not isinstance(number, int) or number < 1_000_000:
        return count(number)
    if number < 10_000_000:
        return f"{number // 10_000 / 100:.2f} M"
    return f"{number // 100_000 / 10:,.1f} M"


@register.filter
def shorten(text: str | None) -> str:
    """The beginning of a text, at most 300 characters."""
    text = text or ""
    return text if len(text) <= SHORT_TEXT else text[:SHORT_TEXT] + "…"


@register.filter
def plain(text: str | None) -> str:
    """The text without escape sequences for terminals."""
    return masked_text(texts.plain(text or ""))


@register.filter
def in_order(by_state: dict[str, int]) -> list[tuple[str, int]]:
    """How many agents are in each state, the offline ones last."""
    return [(state, by_state[state]) for state in STATES]


@register.filter
def total(by_state: dict[str, int]) -> int:
    """How many agents there are."""
    return sum(by_state.values())


@register.filter
def connected(by_state: dict[str, int]) -> int:
    return sum(by_state.values()) - by_state["offline"]


@register.filter
def gravest(details: list[dict[str, Any]]) -> str:
    """The message of the most severe condition, and the number of others."""
    if not details:
        return "all clear"
    critical = [detail for detail in details if detail["severity"] == "critical"]
    message: str = (critical or details)[0]["message"]
    others = len(details) - 1
    if not others:
        return message
    return f"{message}, and {count(others)} more condition{'s' if others > 1 else ''}"


@register.filter
def is_task(subject: str) -> bool:
    """Whether a condition's subject is a task, and not an agent or a webhook."""
    return TASK.fullmatch(subject) is not None


@register.filter
def is_webhook(subject: str) -> bool:
    return WEBHOOK.fullmatch(subject) is not None


@register.filter
def fullest(lanes: dict[str, int]) -> int:
    """The length of the longest lane, to which the bars are scaled."""
    return max(lanes.values(), default=0)


@register.filter
def percent_of(part: int | None, whole: int | None) -> int:
    """`part` of `whole` in percent; 0 where there is nothing."""
    return round(100 * part / whole) if part and whole else 0
