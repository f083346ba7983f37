from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from agentcom.redaction import (
    LONGEST,
    MASK,
    OVERLAP,
    WINDOW,
    MaskedLines,
    masked,
    masked_text,
    pattern_fault,
)
from dashboard.texts import READ_MAX, short

pytestmark = pytest.mark.sqlite_only

TOKEN = "Zx3_" + "a1-B" * 9 + "xyz"  # 43 characters, as secrets.token_urlsafe makes them
KEY = "sk-" + "Ab3" * 10


@pytest.fixture(autouse=True)
def rules(settings: Any) -> None:
    settings.AGENTCOM_REDACT = ["password", "api_key"]
    settings.AGENTCOM_REDACT_PATTERNS = ["sk-[A-Za-z0-9]{20,}", r"secret\s\d+"]


def test_keys_at_any_depth():
    value = {"a": [{"Password": "x"}, {"deep": {"API-Key": 1, "apiKey": ["y", "z"]}}], "b": KEY}
    assert masked(value) == {
        "a": [{"Password": MASK}, {"deep": {"API-Key": MASK, "apiKey": MASK}}],
        "b": MASK,
    }


@pytest.mark.parametrize(
    "value",
    [
        {"password_hint": "a fish", "passwords": 3, "the password": "x"},
        {"password": None},
        {"password": ""},
        {"password": False},
        ["password", "api_key"],
        7,
        None,
    ],
)
def test_what_is_no_secret_stays(value: Any):
    assert masked(value) == value


def test_what_is_masked_is_a_copy():
    value = {"password": "x", "list": [KEY]}
    masked(value)
    assert value == {"password": "x", "list": [KEY]}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"401 for Authorization: Bearer {TOKEN}.", f"401 for Authorization: Bearer {MASK}"),
        (f"bearer  {TOKEN} failed", f"bearer  {MASK} failed"),
        (f"GET /x?token={TOKEN}&y=1", f"GET /x?token={MASK}&y=1"),
        (
            f'{{"type": "identify", "token": "{TOKEN}"}}',
            f'{{"type": "identify", "token": "{MASK}"}}',
        ),
        (f"my new one is act_{TOKEN}", f"my new one is {MASK}"),
        (f"the code is enrol_{TOKEN}", f"the code is {MASK}"),
        (f"Cookie: agentcom_session={'a1' * 16}; x=y", f"Cookie: agentcom_session={MASK}; x=y"),
        (f"use {KEY}, then {KEY}", f"use {MASK}, then {MASK}"),
        ("secret 42 and 43", f"{MASK} and 43"),
        ('{"Password" : "a \\"b\\" c", "x": 1}', f'{{"Password" : {MASK}, "x": 1}}'),
        ('it said {"api-key": 12.5}', f'it said {{"api-key": {MASK}}}'),
        ('cut off: {"password": "abc', f'cut off: {{"password": {MASK}'),
    ],
)
def test_texts(text: str, shown: str):
    assert masked_text(text) == shown
    assert masked_text(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "the token: see below",
        "tokens=12345678901234567890",
        TOKEN,
        "a bearer of bad news",
        "sk-short",
        "an interact_" + "a" * 30,
        "password: is what it asks for",
        "",
    ],
)
def test_texts_without_secrets(text: str):
    assert masked_text(text) == text


def test_no_key_is_masked_if_none_is_set(settings):
    settings.AGENTCOM_REDACT = ["none"]
    assert masked({"none": "x", "password": "y"}) == {"none": "x", "password": "y"}
    assert masked_text('{"password": "y"}') == '{"password": "y"}'


@pytest.mark.parametrize(
    "place", [0, 1, WINDOW - OVERLAP - 1, WINDOW - 10, WINDOW - 1, WINDOW, 5000]
)
@pytest.mark.parametrize("length", [20, OVERLAP - 3, 2 * WINDOW, LONGEST // 2])
def test_secrets_anywhere_in_a_long_text(place: int, length: int):
    text = "x " * place + "sk-" + "a" * length + " end" + " y" * 3000
    assert masked_text(text) == "x " * place + MASK + " end" + " y" * 3000


def test_a_cut_text_shows_no_part_of_a_secret():
    """Masks make room, so that what was at the end of the read part would come into view."""
    text = f"{'sk-' + 'a' * 700} {'b ' * 140}{KEY}"
    assert len(text) > READ_MAX
    assert READ_MAX - len(KEY) < text.rindex("sk-") < READ_MAX
    assert "sk-" not in short(text)
    assert short(text).startswith(MASK)


@pytest.mark.parametrize(
    "pattern",
    [
        *("sk-[A-Za-z0-9]{20,}", r"eyJ[\w-]+\.[\w-]+\.[\w-]+", r"(?:AKIA|ASIA)[A-Z0-9]{16}"),
        *(r"(?i)secret\S+", r"(?:\d{1,3}\.){3}\d{1,3}", "(?:[0-9a-f]{4}-){7}[0-9a-f]{4}"),
        *(r"(?:\s?\d{4}){4}", r"[a-z]+@corp\.example", "(?:[A-F0-9]{2}:){5}[A-F0-9]{2}"),
    ],
)
def test_patterns_that_are_taken(pattern: str):
    assert pattern_fault(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        *[(p, "no regular expression") for p in ("(", "[z-a]", "*a", "(?P<x>a)(?P<x>b)")],
        *[(p, "empty text") for p in ("a*", "(a|b)*", "x?", "^", r"\b", "a|")],
        (r"\w*\w*\w*\w*@x", "takes too long"),
        *[
            (p, "take for ever")
            for p in (
                "(a+)+b",
                r"(\w+\s?)*x",
                "(a|aa)+b",
                "((a+)b?)+c",
                "(a{1,99}){1,99}",
                "(a?){30}b",
                "(?=(a+)+b)a",
            )
        ],
    ],
)
def test_patterns_that_are_refused(pattern: str, why: str):
    assert why in (pattern_fault(pattern) or "")


@pytest.mark.parametrize("text", ["a" * 256_000, '"password": "' * 20_000, "token" + " " * 256_000])
def test_the_time_grows_with_the_text(text: str, settings):
    """And not with its square, which would be minutes."""
    settings.AGENTCOM_REDACT_PATTERNS = [r"\w+@corp"]
    began = time.process_time()
    masked_text(text)
    assert time.process_time() - began < 10


def test_lines_of_the_log_with_their_tracebacks():
    formatter = MaskedLines("{message}", style="{")
    try:
        raise ValueError(f"refused: Bearer {TOKEN}")
    except ValueError as error:
        about = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("x", 30, "x", 1, "told %s", (KEY,), about)
    line = formatter.format(record)
    assert line.startswith(f"told {MASK}\n")
    assert line.endswith(f"ValueError: refused: Bearer {MASK}")
