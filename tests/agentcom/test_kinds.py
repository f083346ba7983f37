"""The tables of the journal's kinds: complete, and the only place where a kind is described."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.template.loader import render_to_string
from django.utils import timezone

from agentcom.admin.shows import kind_word, sentence
from agentcom.kinds import Kind, kinds
from agentcom.models import Event
from dashboard.events import to_wire

ROOT = Path(__file__).parents[2]
ROOMS = ("agentcom", "counters", "dashboard", "fleet", "metrics", "tasks", "webhooks", "worker")
EXAMPLES = {
    "conditions": [],
    "priority": 2,
    "title": "t",
    "generation": 1,
    "progress": 50,
    "message": "m",
    "reason": "r",
    "duration_ms": 5,
    "tokens_used": 7,
    "error": "e",
    "by_hand": True,
    "status": "queued",
    "was": "assigned",
    "until": None,
    "deadline": 1_700_000_000_000,
    "why": "silent",
    "agent": {"name": "n", "capabilities": [], "status": ""},
    "old_priority": 1,
    "old_needs": "",
    "said": "task_complete",
    "hold": {
        "id": "hold-1",
        "scope": "lane",
        "subject": "low",
        "reason": "r",
        "placed_by": "user:eve",
        "placed_at": 1_700_000_000_000,
        "until": None,
    },
    "signed_off": True,
    "connection": "c",
    "token_hash": "h",
    "retry_count": 1,
    "assigned_to": "a",
    "accepts": [],
    "held": None,
    "counts": [],
    "rows": 3,
    "webhook": {"id": "hook-1", "url": "https://receiver.example/"},
    "changed": ["url"],
    "missed": 0,
}


def emitted() -> Iterator[str]:
    """The kinds that the product's code emits."""
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "emit":
                    words = (a.value for a in node.args if isinstance(a, ast.Constant))
                    yield from (word for word in words if isinstance(word, str))


def entry(kind: str) -> Event:
    data = {name: EXAMPLES[name] for name in kinds()[kind].carries}
    return Event(1, kind, "task-1", "a-1", timezone.now(), data, "hub")


def test_what_is_emitted_is_described_and_what_is_described_is_emitted():
    assert set(emitted()) == kinds().keys()


def test_a_kind_belongs_to_one_room(settings):
    settings.AGENTCOM_KINDS = ("fleet.kinds.KINDS", "fleet.kinds.KINDS")
    with pytest.raises(AssertionError, match="agent_joined"):
        kinds.__wrapped__()


def test_a_field_is_named_once():
    assert Kind(step="x", shows=("a",), keeps=("b",)).carries == {"a", "b"}


def test_the_column_has_room_for_each_kind():
    longest = Event._meta.get_field("kind").max_length
    assert longest is not None
    assert all(len(kind) <= longest for kind in kinds())


@pytest.mark.parametrize("kind", list(kinds()))
def test_the_page_has_words_for_all_that_dashboards_get(kind: str):
    words = render_to_string("dashboard/_words.html")
    known = kinds()[kind]
    assert f'data-event="{kind}" data-step="{known.step}"' in words
    if to_wire(entry(kind)) is not None and kind != "health_changed":  # which says its status
        assert known.did or known.was


@pytest.mark.parametrize("kind", list(kinds()))
def test_the_admin_says_each_in_words(kind: str):
    assert kind_word(kind) == kinds()[kind].step.lower()
    assert "{" not in sentence(entry(kind))


def test_the_admin_shows_a_kind_that_is_no_more():
    assert kind_word("task_of_old") == "task of old"
