"""Texts that others wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcom.texts import cut, is_blank, plain


@given(st.text(), st.integers(100, 300))
def test_a_cut_text_has_its_beginning_and_its_end(text: str, most: int):
    shown = cut(text * 40, most)
    assert len(shown) <= most
    if len(text) * 40 <= most:
        assert shown == text * 40
    else:
        assert (text * 40).startswith(shown[:30])
        assert (text * 40).endswith(shown[-15:])
        assert "characters left out" in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "\x1b[31;1mError:\x1b[0m no model in \x1b[36mregistry\x1b[0m",
            "Error: no model in registry",
        ),
        ("\x1b[38;2;255;0;0mred\x1b[K\x1b[2J\x1b[?25l", "red"),
        ("\x1b]0;title\x07see \x1b]8;;https://x.example\x1b\\here\x1b]8;;\x1b\\", "see here"),
        ("\x1b(Bplain\x1bM \x1b=keys\x1b>", "plain keys"),
        ("\x9b31mold\x9b0m \x07bell \x7f\x08", "old bell "),
        ("cut off \x1b[3", "cut off "),
        ("never ended \x1b]0;title", "never ended 0;title"),
        ("two\nlines\tand é 🙂 \u202e", "two\nlines\tand é 🙂 \u202e"),
        ("an array[31m] of \x1b", "an array[31m] of "),
    ],
)
def test_what_was_meant_for_a_terminal_is_not_shown(text: str, shown: str):
    assert plain(text) == shown


@pytest.mark.parametrize("piece", ["\x1b]", "\x1b[", "\x1b", "\x9b1", "\x1bP", "\x90"])
def test_no_text_takes_long(piece: str):
    assert len(plain(piece * 131_072)) < 262_144


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "\x00\x1b",
        "\u00a0",
        "\u00ad",
        "\u034f",
        "\u115f",
        "\u200b\u200b",
        "\u202e\u2066",
        "\u2060",
        "\u2800 \u2800",
        "\u3164",
        "\ufe0f",
        "\ufeff",
        "\U0001d159",
        "\U000e0041",
    ],
)
def test_what_nobody_can_see_is_blank(text: str):
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", "\u200b.", "é", "🛠", "\u202eabc", "ㅤx", "ガ", "�", "\u0301"])
def test_what_somebody_can_see_is_not(text: str):
    assert not is_blank(text)
