from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from agentcom.api import BadInput
from agentcom.wire import decode, encode
from tasks.models import Priority
from tasks.queue import NewTask
from tasks.serializers import new_task, new_tasks

pytestmark = pytest.mark.sqlite_only

SOON = timezone.now() + timedelta(days=1)
SURROGATE = "\ud800"


def read(**fields: Any) -> NewTask:
    return new_task({"description": "a task", **fields})


def refusal(data: Any) -> dict[str, Any]:
    with pytest.raises(BadInput) as caught:
        new_task(data)
    return caught.value.answer


def test_what_is_left_out_has_its_default():
    task = new_task({"description": "a task"})
    assert task.description == "a task"
    assert task.priority == Priority.NORMAL
    assert (task.metadata, task.max_retries, task.complete_by) == ({}, 3, None)
    assert list(task.needed_capabilities) == []


def test_null_counts_as_left_out():
    names = ("priority", "metadata", "max_retries", "complete_by", "needed_capabilities")
    task = read(**dict.fromkeys(names))
    assert (task.priority, task.metadata, task.max_retries) == (Priority.NORMAL, {}, 3)


@pytest.mark.parametrize(
    ("said", "meant"),
    [("urgent", 0), ("high", 1), ("normal", 2), ("low", 3), (0, 0), (1, 1), (2, 2), (3, 3)],
)
def test_priority_by_name_or_number(said: Any, meant: int):
    assert read(priority=said).priority == meant


def test_a_whole_number_may_be_written_with_a_fraction_of_nothing():
    task = read(priority=2.0, max_retries=3.0, complete_by=4_102_444_800_000.0)
    assert (task.priority, task.max_retries) == (2, 3)
    assert task.complete_by == datetime(2100, 1, 1, tzinfo=UTC)
    assert type(task.max_retries) is int


@pytest.mark.parametrize("limit", [0, 1, 100])
def test_max_retries_within_its_limits(limit: int):
    assert read(max_retries=limit).max_retries == limit


@pytest.mark.parametrize("length", [1, 16_384])
def test_a_description_within_its_limits(length: int):
    assert len(new_task({"description": "x" * length}).description) == length


def test_capabilities_within_their_limits():
    names = [f"{number:02}" + "x" * 56 for number in range(32)]
    assert read(needed_capabilities=names).needed_capabilities == names


@pytest.mark.parametrize(
    "said",
    [
        int(SOON.timestamp() * 1000),
        SOON.isoformat(),
        SOON.isoformat().replace("+00:00", "Z"),
        SOON.replace(tzinfo=None).isoformat(),
        (SOON + timedelta(hours=2)).replace(tzinfo=None).isoformat() + "+02:00",
    ],
    ids=["ms", "iso", "Z", "without a zone", "another zone"],
)
def test_complete_by_in_ms_or_iso_8601(said: Any):
    moment = read(complete_by=said).complete_by
    assert moment is not None
    assert abs(moment - SOON) < timedelta(milliseconds=1)
    assert moment.utcoffset() == timedelta(0)


def test_metadata_is_kept_as_it_is():
    metadata = {"a": [1, 2.5, None, True, {"b": "\\u0000 is only text, é 🙂"}]}
    assert read(metadata=metadata).metadata == metadata


def test_metadata_within_its_limit():
    assert read(metadata={"x": "x" * (64 * 1024 - len('{"x":""}'))})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("description", ""),
        ("description", "  \n"),
        ("description", "\u200b\u200b"),
        ("description", "\u2060"),
        ("description", "\ufeff\u00ad"),
        ("description", "\u3164"),
        ("description", "\u2800 \u2800"),
        ("description", 5),
        ("description", True),
        ("description", ["x"]),
        ("description", None),
        ("description", "x" * 16_385),
        ("description", "a\x00b"),
        ("description", SURROGATE),
        ("priority", "3"),
        ("priority", "URGENT"),
        ("priority", "soon"),
        ("priority", ""),
        ("priority", 4),
        ("priority", -1),
        ("priority", 2.5),
        ("priority", True),
        ("priority", False),
        ("priority", [2]),
        ("priority", 10**400),
        ("metadata", []),
        ("metadata", "x"),
        ("metadata", 1),
        ("metadata", {"x": "x" * (64 * 1024)}),
        ("metadata", {"x": "a\x00b"}),
        ("metadata", {"a\x00b": 1}),
        ("metadata", {"a": [{"b": ["\x00"]}]}),
        ("metadata", {"a": [{"b": SURROGATE}]}),
        ("metadata", {"a": {SURROGATE: 1}}),
        ("max_retries", -1),
        ("max_retries", 101),
        ("max_retries", "3"),
        ("max_retries", True),
        ("max_retries", 3.5),
        ("max_retries", 10**400),
        ("complete_by", 0),
        ("complete_by", -1),
        pytest.param("complete_by", int(timezone.now().timestamp() * 1000) - 1, id="a moment ago"),
        ("complete_by", "2001-01-31T12:00:00Z"),
        ("complete_by", "tomorrow"),
        ("complete_by", ""),
        ("complete_by", True),
        ("complete_by", 10**400),
        ("complete_by", 2**62),
        ("complete_by", "9999-12-31T23:59:59-12:00"),
        ("complete_by", 1.5),
        ("complete_by", {}),
        ("needed_capabilities", "code"),
        ("needed_capabilities", {"code": 1}),
        ("needed_capabilities", ["code", 5]),
        ("needed_capabilities", [None]),
        ("needed_capabilities", [""]),
        ("needed_capabilities", ["\u200b"]),
        ("needed_capabilities", ["x" * 65]),
        ("needed_capabilities", ["a\x00b"]),
        ("needed_capabilities", [SURROGATE]),
        ("needed_capabilities", ["x"] * 33),
        ("needed_capabilities", [f"{number:02}" + "é" * 60 for number in range(32)]),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_field(field: str, value: Any):
    answer = refusal({"description": "a task", field: value})
    assert answer["field"] == field
    assert answer["error"].startswith(f"{field}: ")


@pytest.mark.parametrize("data", [None, 5, "x", True, [], 2.5])
def test_a_task_is_an_object(data: Any):
    assert refusal(data)["field"] == "task"


def test_a_description_is_required():
    assert refusal({}) == {"error": "description: is required", "field": "description"}


def test_deep_metadata_is_refused():
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"x": deep}
    assert refusal({"description": "x", "metadata": deep})["field"] == "metadata"
    assert read(metadata=deep["x"])


@pytest.mark.parametrize("value", ["high", None])
def test_a_misspelt_field_is_refused_with_what_was_meant(value: Any):
    assert refusal({"description": "x", "prioritty": value}) == {
        "error": "prioritty: is not known; did you mean priority?",
        "field": "prioritty",
    }


@pytest.mark.parametrize("value", ["red", None, {}])
def test_a_field_that_is_nothing_like_one_of_ours_is_refused(value: Any):
    assert refusal({"description": "x", "colour": value}) == {
        "error": "colour: is not known",
        "field": "colour",
    }


def test_an_unknown_field_is_refused_even_beside_the_one_that_was_meant():
    assert refusal({"description": "x", "priority": 0, "prioritty": 1})["field"] == "prioritty"


@pytest.mark.parametrize("name", ["x" * 100_000, "", SURROGATE, "a\x00b", "<script>"])
def test_whatever_the_name_of_the_unknown_field_its_refusal_can_be_sent(name: str):
    answer = refusal({"description": "x", name: 1})
    assert answer["field"] == name[:64]
    assert len(encode(answer)) < 500


def test_a_thousand_odd_fields_cost_little():
    odd = {f"x{number}" * 50: 1 for number in range(10_000)}
    assert refusal({"description": "x", **odd})["field"].startswith("x0x0")


# --- Arrays


def test_an_array_is_read_in_order():
    tasks = list(new_tasks([{"description": "one"}, {"description": "two"}]))
    assert [task.description for task in tasks] == ["one", "two"]
    assert len({task.task_id for task in tasks}) == 2


def test_the_first_bad_element_is_named():
    with pytest.raises(BadInput) as caught:
        list(new_tasks([{"description": "one"}, {"description": 2}, {}]))
    assert caught.value.answer["index"] == 1
    assert caught.value.answer["field"] == "description"


def test_an_unknown_field_in_an_array_is_refused_with_its_index():
    with pytest.raises(BadInput) as caught:
        list(new_tasks([{"description": "one"}, {"description": "two", "run_at": None}]))
    assert caught.value.answer == {"error": "run_at: is not known", "field": "run_at", "index": 1}


@pytest.mark.parametrize("count", [0, 1001])
def test_an_array_has_1_to_1000_tasks(count: int):
    with pytest.raises(BadInput) as caught:
        list(new_tasks([{"description": "x"}] * count))
    assert caught.value.answer["field"] == "tasks"


# --- JSON on the wire


@pytest.mark.parametrize("body", [b"", b"{", b"[NaN]", b"[Infinity]", b"[1e999]", b"\xff", b"'a'"])
def test_what_is_no_json_is_refused(body: bytes):
    with pytest.raises(ValueError, match="not valid JSON"):
        decode(body)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_without_end_is_refused(opening: bytes):
    with pytest.raises(ValueError, match="not valid JSON"):
        decode(opening * 100_000)


def test_lone_surrogates_pass_so_that_their_field_can_be_named():
    assert decode(json.dumps({"a": SURROGATE}).encode()) == {"a": SURROGATE}


def test_a_surrogate_beside_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match="not valid JSON"):
        decode(b'["\\ud800", NaN]')


def test_of_a_repeated_key_the_last_value_counts():
    assert decode(b'{"a": 1, "a": 2}') == {"a": 2}


def test_the_future_is_judged_when_asked():
    assert read(complete_by="2999-01-01").complete_by == datetime(2999, 1, 1, tzinfo=UTC)
