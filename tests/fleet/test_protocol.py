"""What a frame may say, without a socket."""

from __future__ import annotations

import json

import pytest

from fleet.protocol import ProtocolError, parse


def refusal(text: str) -> ProtocolError:
    with pytest.raises(ProtocolError) as refused:
        parse(text)
    return refused.value


@pytest.mark.parametrize("agent_id", [".", "..", "cafe\u0301", "a  b", "\u2800", "a-1\u3164"])
def test_an_agent_that_was_called_so_before_comes_in(agent_id: str) -> None:
    frame = json.dumps({"type": "identify", "agent_id": agent_id, "token": "t"})
    assert parse(frame)["agent_id"] == agent_id


def test_an_error_is_looked_for_under_both_names() -> None:
    frame = {"type": "task_failed", "task_id": "t", "generation": 1}
    assert parse(json.dumps({**frame, "reason": "why"}))["error"] == "why"
    assert parse(json.dumps({**frame, "reason": "why", "error": "what"}))["error"] == "what"
    assert refusal(json.dumps(frame)).detail == "error: is required"
    assert refusal(json.dumps({**frame, "reason": 7})).detail == "reason: must be a string"


@pytest.mark.parametrize(
    ("frame", "code", "detail"),
    [
        ({"type": "identify", "agent_id": "a", "token": "nul\0"}, "invalid_message", "it must not"),
        ({"type": "ping", "x": "\ud800"}, "invalid_json", ""),
        (
            {"type": "task_rejected", "task_id": "nul\0"},
            "invalid_message",
            "task_id: must not contain NUL characters",
        ),
        ({"type": "task_rejected", "task_id": "\ud800"}, "invalid_json", ""),
    ],
)
def test_only_an_outcome_is_mended(frame: dict[str, str], code: str, detail: str) -> None:
    refused = refusal(json.dumps(frame))
    assert refused.code == code
    assert refused.detail.startswith(detail)


def test_of_a_mended_frame_nothing_else_is_kept() -> None:
    frame = {"type": "task_rejected", "task_id": "t", "reason": "a\0b", "extra": "\0"}
    message = parse(json.dumps(frame))
    assert message["reason"] == "a\ufffdb"
    assert message.notes == ["reason: must not contain NUL characters; that was replaced"]
    assert "extra" not in message.fields


def test_beside_half_a_surrogate_numbers_are_what_they_are_elsewhere() -> None:
    about = '"type": "task_complete", "task_id": "t", "generation": 1'
    numbers = '"n": [1, -2.5, 18446744073709551615, 18446744073709551616]'
    kept = parse(f'{{{about}, "result": {{"half": "\\ud83d", {numbers}}}}}')["result"]
    assert kept == {"half": "\ufffd", **parse(f'{{{about}, "result": {{{numbers}}}}}')["result"]}
    assert list(map(type, kept["n"])) == [int, float, int, float]


@pytest.mark.parametrize("number", ["1e400", "9" * 400, "NaN", "-Infinity"])
def test_nor_is_anything_a_number_there_that_is_none_elsewhere(number: str) -> None:
    about = '"type": "task_complete", "task_id": "t", "generation": 1'
    frame = f'{{{about}, "result": {{"half": "\\ud83d", "n": {number}}}}}'
    assert refusal(frame).code == "invalid_json"
