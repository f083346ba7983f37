"""How the admin formats values: times to the second, links, JSON, and a task's history."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from agentcom import actors
from agentcom.database import from_millis
from agentcom.kinds import kinds
from agentcom.models import Event
from agentcom.redaction import MARGIN, masked, masked_text
from agentcom.texts import isolated, plain

NOTHING = "–"
MILLISECOND = timedelta(milliseconds=1)
TIMELINE_ROW = (
    '<tr><td>{}</td><td>{}</td><td><span class="{}">{}</span></td><td>{}</td><td>{}</td>'
    "<td>{}</td></tr>"
)
SHORT = 100  # characters of a text in a list
READ = 5 * SHORT  # characters that are read for that: a secret that is cut does not look like one


def at(moment: datetime | None) -> str:
    if moment is None:
        return NOTHING
    try:
        return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}"
    except OverflowError:  # in that zone it is outside the years that Python supports
        return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def moment(field: str, name: str | None = None) -> Any:
    """A column with a time."""

    @admin.display(description=name or field.removesuffix("_at").replace("_", " "), ordering=field)
    def column(row: Any) -> str:
        return at(getattr(row, field))

    return column


def span(ms: float) -> str:
    """A duration for people: `340 ms`, `12.4 s`, `5 min 20 s`, `2 h 10 min`."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    seconds = round(ms / 1000)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86_400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86_400} d {seconds % 86_400 // 3600} h"


def short(text: str | None, max_length: int = SHORT) -> str:
    if not text:
        return NOTHING
    line = " ".join(masked_text(plain(text)).split())
    is_cut = len(text) >= READ
    if is_cut:
        line = line[: max(len(line) - MARGIN, 0)]
    if len(line) <= max_length and not is_cut:
        return line
    return line[: max_length - 1].rstrip() + "…"


def clamped(text: str | None) -> SafeString | str:
    """A text in a list, at most two lines of it."""
    return format_html('<div class="clamp">{}</div>', short(text)) if text else NOTHING


def as_text(text: str | None) -> SafeString | str:
    """A long text with its line breaks."""
    return format_html('<div class="text">{}</div>', masked_text(plain(text))) if text else NOTHING


def as_list(texts: Iterable[str]) -> str:
    return ", ".join(isolated(plain(text)) for text in texts)


def as_json(value: Any) -> SafeString | str:
    if value in (None, {}, []):
        return NOTHING
    return format_html(
        '<pre class="json">{}</pre>', json.dumps(masked(value), indent=2, ensure_ascii=False)
    )


def badge(word: str) -> SafeString:
    """A state with its colour."""
    return format_html(
        '<span class="state state-{}">{}</span>', word.replace(" ", "_"), word.replace("_", " ")
    )


def link(to: str, pk: Any, text: Any) -> SafeString:
    return format_html('<a href="{}">{}</a>', reverse(f"admin:{to}_change", args=[quote(pk)]), text)


def agent_link(agent_id: str | None) -> SafeString | str:
    return link("agents_agent", agent_id, agent_id) if agent_id else NOTHING


def task_link(task_id: str | None) -> SafeString | str:
    return link("tasks_task", task_id, task_id) if task_id else NOTHING


def by(actor: str | None) -> str:
    """The actor, for display."""
    return actors.in_words(actor) or NOTHING


def list_link(to: str, query: str, text: str) -> SafeString:
    """A link to the results of a search."""
    url = reverse(f"admin:{to}_changelist", query={"q": query})
    return format_html('<a href="{}">{}</a>', url, text)


# --- The journal, in words


def kind_word(kind: str) -> str:
    """The kind for display. The journal may have kinds of other versions, unknown to this one."""
    known = kinds().get(kind)
    return known.step.lower() if known else kind.replace("_", " ")


# How each field of an entry is formatted, in this order. Fields not listed here are not shown.
FIELD_WORDS: dict[str, Callable[[Any], str]] = {
    "priority": lambda priority: f"priority {priority}",
    "generation": lambda generation: f"generation {generation}",
    "progress": lambda progress: f"{progress:g} %",
    "duration_ms": lambda ms: f"after {span(ms)}",
    "tokens_used": lambda tokens: f"{tokens:,} tokens" if tokens else "",
    "by_hand": lambda by_hand: "by hand" if by_hand else "an attempt is left",
    "signed_off": lambda signed_off: "signed off" if signed_off else "connection lost",
    "status": str,
    "conditions": "; ".join,
    "message": str,
    "error": str,
    "until": lambda until: f"until {at(from_millis(until))}",
    "deadline": lambda deadline: f"by {at(from_millis(deadline))}",
    "hold": lambda hold: " ".join(filter(None, (hold["scope"], hold["subject"], hold["reason"]))),
    "webhook": lambda webhook: webhook["url"],
    "changed": ", ".join,
    "missed": lambda missed: f"{missed:,} entries missed" if missed else "",
    "reason": str,
}


def sentence(event: Event) -> str:
    """The event's fields as text. Rows of older versions may lack fields or have other types."""
    try:
        parts = [
            as_words(event.data[field])
            for field, as_words in FIELD_WORDS.items()
            if event.data.get(field) is not None and field not in _hidden(event.kind)
        ]
        return short(" · ".join(filter(None, parts)), 200)
    except (TypeError, ValueError, AttributeError):
        return short(json.dumps(event.data), 200)


def _hidden(kind: str) -> tuple[str, ...]:
    known = kinds().get(kind)
    return known.hides if known else ()


def timeline(events: Iterable[Event], *, about_agent: bool = False) -> SafeString | str:
    """The events, oldest first, each with the time since the previous one."""
    rows: list[tuple[object, ...]] = []
    before = None
    for event in events:
        later = "" if before is None else f"+{span((event.at - before) / MILLISECOND)}"
        other = task_link(event.task_id) if about_agent else agent_link(event.agent_id)
        word = kind_word(event.kind)
        rows.append(
            (at(event.at), later, event.kind, word, other, by(event.actor), sentence(event))
        )
        before = event.at
    if not rows:
        return "Nothing, or so long ago that the journal no longer has it"
    return format_html(
        '<table class="timeline"><thead><tr><th>when</th><th>later</th><th>what</th><th>{}</th>'
        "<th>by</th><th>details</th></tr></thead><tbody>{}</tbody></table>",
        "task" if about_agent else "agent",
        format_html_join("", TIMELINE_ROW, rows),
    )
