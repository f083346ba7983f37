"""The schemas that the hub publishes agree with the code, the docs and each other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import jsonschema_rs
import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from hypothesis import given, settings

from agentcom import asyncapi, calls, openapi
from agentcom.api import SOCKETS, is_for_api
from agentcom.calls import Problem, declared_at
from agentcom.fields import Check, or_empty
from agentcom.wire import fault
from dashboard.api import GROUP, MINUTES
from dashboard.consumers import ACTS
from fleet.api import AGENT_NOT_FOUND, HOLD_NOT_FOUND, TOO_MANY_HOLDS
from fleet.frames import ANSWERS, CLOSES, CODES, FRAMES, REASONS
from fleet.holds import HOLD_FIELDS, SUBJECTS, read_hold
from fleet.protocol import MESSAGES, ProtocolError, parse
from fleet.shapes import NEW_HOLD
from tasks.api import CANCEL_FIELDS, PRIORITY_FIELDS, TASK_NOT_FOUND, TASKS_PAGE, TOO_LATE
from tasks.serializers import TASK_FIELDS, new_task
from tasks.shapes import NEW_TASK
from tests.described import closed, http, message_validator, sockets, validator
from tests.test_docs import AGENTS, SUBMITTERS, VIEWERS, blocks, table_rows

pytestmark = pytest.mark.sqlite_only

Json = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def components() -> Json:
    found: Json = http()["components"]["schemas"]
    return found


def operations() -> Iterator[tuple[str, str, Json]]:
    for path, methods in http()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


# --- The document


def test_every_schema_is_one():
    for schema in components().values():
        jsonschema_rs.meta.validate({**schema, "$schema": DRAFT})


def contents(part: Any) -> Iterator[Json]:
    """Every media type of the document."""
    if isinstance(part, Mapping):
        if "schema" in part and ("example" in part or "examples" in part):
            yield dict(part)
        for value in part.values():
            yield from contents(value)


def test_every_example_is_valid():
    count = 0
    for content in contents(http()["paths"]):
        examples = [each["value"] for each in content.get("examples", {}).values()]
        for each in [*examples, *([content["example"]] if "example" in content else [])]:
            validator(content["schema"], components()).validate(each)
            count += 1
    assert count > 100


def test_every_reference_leads_somewhere():
    names = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(http()))
    assert set(names) <= set(components())


# --- The code


def routes(patterns: Any, before: str = "") -> Iterator[str]:
    for found in patterns:
        route = before + str(found.pattern)
        if isinstance(found, URLResolver):
            yield from routes(found.url_patterns, route)
        elif isinstance(found, URLPattern):
            yield "/" + route


def test_every_address_of_the_api_is_in_the_schema():
    served = {route for route in routes(get_resolver().url_patterns) if is_for_api(route)}
    described = {re.sub(r"{(\w+)}", r"\1", path) for path in http()["paths"]}
    assert {re.sub(r"<\w+:(\w+)>", r"\1", route) for route in served} - set(SOCKETS) == described


def test_every_method_of_a_view_is_in_the_schema():
    for address, view in openapi.addresses().items():
        methods = {name for name in view.http_method_names if hasattr(view, name)} - {"head"}
        assert methods == http()["paths"][address].keys()


def test_every_call_has_one_of_the_tags():
    assert {tag for _, _, found in operations() for tag in found["tags"]} == set(openapi.TAGS)


def test_a_handler_that_declares_nothing_is_refused():
    async def get() -> None: ...

    with pytest.raises(LookupError):
        declared_at(get)


CHECKS: dict[str, Check] = {
    **{f"task.{name}": check for name, check in TASK_FIELDS.items()},
    **{f"cancel.{name}": check for name, check in CANCEL_FIELDS.items()},
    **{f"priority.{name}": check for name, check in PRIORITY_FIELDS.items()},
    **{f"hold.{name}": check for name, check in HOLD_FIELDS.items()},
    **{f"hold.{scope}": check for scope, check in SUBJECTS.items()},
    **{
        f"{type}.{name}": field.check
        for type, fields in MESSAGES.items()
        for name, field in fields.items()
    },
}
NOW = datetime.now(UTC)
MOMENTS = [
    *(int((NOW + timedelta(days=days)).timestamp() * 1000) for days in (-1, 1)),
    *((NOW + timedelta(days=days)).isoformat() for days in (-1, 1)),
    *("2030-01-31T12:00:00Z", "2030-01-31T12:00:00", "no time", -(2**53), 2**53),
]
NUMBERS = [
    bound + step
    for bound in (0, 1, 3, 100, 86_400, 31_622_400, 604_800, 10**12, 2**31 - 1)
    for step in (-1, 0, 1, 0.5)
]
LENGTHS = [0, 1, 64, 65, 128, 129, 200, 201, 500, 501, 512, 513, 16_384, 16_385]
LISTS = [["x"] * length for length in (0, 1, 32, 33, 64, 65)]
VALUES = [
    *(None, True, False, "", " ", "\u200b", "x ", "é", "\n", "\0", "x\0", {}, [], {"x": {"y": []}}),
    *("hub", "lane", "capability", "agent", "urgent", "low", "expire", "run", "ok"),
    *([""], [" "], ["x" * 65], [1], ["x", None]),
    *MOMENTS,
    *NUMBERS,
    *LISTS,
    *("x" * length for length in LENGTHS),
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def accepted(check: Check, value: Any) -> bool:
    if fault(value) is not None:
        return False
    try:
        check(value)
    except ValueError:
        return False
    return True


# What no schema says, but its description does.
def is_beyond_schemas(name: str) -> bool:
    field = name.partition(".")[2]
    return field in ("complete_by", "until")  # which have to be in the future


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_takes_what_its_schema_says(name: str):
    check = CHECKS[name]
    described = validator(check.shape, {})

    def agree(value: Any) -> None:
        valid = described.is_valid(value)
        if accepted(check, value):
            assert valid, value
        elif valid and fault(value) is None:
            assert is_beyond_schemas(name), value

    for value in VALUES:
        agree(value)

    @settings(max_examples=50, derandomize=True, database=None)
    @given(ANYTHING)
    def any_value(value: Any) -> None:
        agree(value)

    any_value()


def test_a_submission_takes_what_its_schema_says():
    described = validator(NEW_TASK, {})
    for name in TASK_FIELDS:
        for value in VALUES:
            task = {"description": "x", name: value}
            try:
                new_task(task)
            except Exception:
                continue
            assert described.is_valid(task), task
    assert not described.is_valid({})
    assert not described.is_valid({"description": "x", "prioritiy": 1})


@pytest.mark.parametrize("scope", ["hub", "lane", "capability", "agent", "x", None])
def test_a_hold_takes_what_its_schema_says(scope: str | None):
    described = validator(NEW_HOLD, {})
    subjects: list[Any] = [None, "gpu", "low", 2, 9, "", " ", [], "x" * 64, "x" * 65, "x" * 129]
    for subject in subjects:
        hold = {"scope": scope, "subject": subject, "reason": "x"}
        try:
            read_hold(hold)
        except Exception:
            assert not described.is_valid(hold), hold
        else:
            assert described.is_valid(hold), hold


@pytest.mark.parametrize("table", [TASKS_PAGE, GROUP, MINUTES])
def test_a_query_takes_what_its_schema_says(table: Mapping[str, Check]):
    texts = (
        "0",
        "1",
        "500",
        "501",
        "1440",
        "1441",
        "x",
        "1.5",
        "-1",
        "urgent",
        "queued",
        "0123456789abcdef",
    )
    for name, check in table.items():
        described = validator(or_empty(check.shape), {})
        assert described.is_valid("")
        for text in texts:
            values = [text, int(text)] if text.isdecimal() else [text]
            valid = any(map(described.is_valid, values))
            if name != "cursor":  # of which the schema says no more than that it is a text
                assert valid == accepted(check, text), (name, text)


# --- The docs


def calls_in_docs() -> dict[tuple[str, str], str]:
    """The text about each call, by method and address."""
    rows = [*table_rows(SUBMITTERS, "Calls"), *table_rows(VIEWERS, "Calls")]
    found = {}
    for row in rows:
        for method, address in re.findall(r"`([A-Z]+) (\S+)`", row[0]):
            found[method, address] = row[2]
    return found


def in_docs(path: str) -> str:
    return re.sub(r"{\w+}", "ID", path)


def test_every_call_is_in_the_docs_and_in_the_schema():
    described = {(method, in_docs(path)) for method, path, _ in operations()}
    documented = {call for call in calls_in_docs() if is_for_api(call[1])}
    assert documented == described


def test_the_statuses_in_the_docs_are_in_the_schema():
    by_call = {(method, in_docs(path)): found for method, path, found in operations()}
    for call, text in calls_in_docs().items():
        if not is_for_api(call[1]):
            continue
        statuses = set(re.findall(r"\b[2345]\d\d\b", text))
        assert statuses <= by_call[call]["responses"].keys(), call


def problems() -> list[Problem]:
    """All errors that the code declares."""
    common = [value for value in vars(calls).values() if isinstance(value, Problem)]
    return [*common, TASK_NOT_FOUND, AGENT_NOT_FOUND, HOLD_NOT_FOUND, TOO_LATE, TOO_MANY_HOLDS]


def test_the_errors_in_the_docs_are_in_the_schema():
    examples = [
        (int(row[0]), json.loads(text.replace("…", "task-0123456789abcdef")))
        for row in table_rows(SUBMITTERS, "Errors")
        for text in re.findall(r"`({.*?})`", row[1])
    ]
    assert len(examples) > 15
    for status, body in examples:
        if status == 426:  # at the addresses of the sockets, which are not calls
            continue
        shapes = [problem.shape for problem in problems() if problem.status == status]
        assert validator({"anyOf": shapes}, {}).is_valid(body), body


def test_the_errors_in_the_schema_are_in_the_docs():
    documented = "\n".join(row[0] + row[1] for row in table_rows(SUBMITTERS, "Errors"))
    for problem in problems():
        code = problem.shape["properties"]["error"].get("const")
        assert str(problem.status) in documented
        assert code is None or f'"{code}"' in documented, code


def test_what_the_docs_send_is_what_the_schema_shows():
    sent = {
        json.dumps(json.loads(body))
        for block in blocks(SUBMITTERS, "sh")
        for body in re.findall(r"-d '(.*)'", block)
    }
    shown = {
        json.dumps(found["requestBody"]["content"]["application/json"]["example"])
        for _, _, found in operations()
        if "requestBody" in found
    }
    assert sent == shown


def json_in_docs() -> list[Any]:
    pages = (SUBMITTERS, AGENTS, VIEWERS)
    return [json.loads(block) for page in pages for block in blocks(page, "json")]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("uptime_ms", "Snapshot"),
        ("history", "FullTask"),
        ("missing", "Waiting"),
        ("by_status", "Counts"),
        ("placed_by", "Hold"),
        ("points", "History"),
        ("groups", "Causes"),
        ("created_at", "Receipt"),
    ],
)
def test_an_answer_in_the_docs_is_as_the_schema_says(key: str, name: str):
    found = [each for each in json_in_docs() if key in each]
    described = validator({"$ref": f"#/components/schemas/{name}"}, components())
    assert any(described.is_valid(each) for each in found), [
        [error.message for error in described.iter_errors(each)] for each in found
    ]


def test_every_field_of_a_submission_in_the_docs_has_the_limits_of_the_schema():
    properties = closed(NEW_TASK)["properties"]
    for row in table_rows(SUBMITTERS, "Submitting"):
        name, text = row[0].strip("`"), row[1]
        shape = properties[name]
        for limit in ("maxLength", "maximum", "maxItems"):
            if limit in shape and "anyOf" not in shape:
                assert f"{shape[limit]:,}" in text, f"{name}: {limit}"


# --- The sockets


def messages(channel: str, action: str) -> dict[str, Json]:
    """Each message of one direction, by type."""
    operations = sockets()["operations"]
    names = [name.rpartition(".")[2] for name in operations if f"{channel}.{action}." in name]
    return {name: sockets()["channels"][channel]["messages"][name] for name in names}


def test_every_message_and_frame_is_in_its_channel_once():
    for socket in asyncapi.sockets():
        assert not socket.messages.keys() & socket.frames.keys()
        described = sockets()["channels"][socket.name]["messages"].keys()
        assert described == socket.messages.keys() | socket.frames.keys()
        assert socket.answers.keys() == socket.messages.keys()
        assert {type for answers in socket.answers.values() for type in answers} <= described


def test_every_reference_of_the_sockets_leads_somewhere():
    text = json.dumps(sockets())
    for reference in re.findall(r'"#/([^"]+)"', text):
        found: Any = sockets()
        for part in reference.split("/"):
            found = found[part]


def test_every_example_of_a_message_is_valid():
    for name, channel in sockets()["channels"].items():
        for type, message in channel["messages"].items():
            for shown in message["examples"]:
                message_validator(name, type).validate(shown["payload"])


def test_the_messages_of_agents_are_those_that_are_parsed():
    described = messages("agents", "receive")
    assert described.keys() == MESSAGES.keys()
    for type, message in described.items():
        [shown] = message["examples"]
        assert parse(json.dumps(shown["payload"])).type == type
        for name in shown["payload"].keys() - {"type"}:
            without = {key: value for key, value in shown["payload"].items() if key != name}
            for changed in (without, {**without, name: None}):
                assert is_parsed(changed) == message_validator("agents", type).is_valid(changed)


def is_parsed(frame: Json) -> bool:
    try:
        parse(json.dumps(frame))
    except ProtocolError:
        return False
    return True


def test_an_error_may_be_in_either_of_two_fields():
    about = {"type": "task_failed", "task_id": "x", "generation": 1}
    for more in ({"error": "x"}, {"reason": "x"}, {"error": None, "reason": "x"}, {}):
        frame = {**about, **more}
        assert is_parsed(frame) == message_validator("agents", "task_failed").is_valid(frame)


def test_the_messages_of_agents_in_the_docs_have_the_fields_of_the_schema():
    for row in table_rows(AGENTS, "What an agent may say"):
        payload = messages("agents", "receive")[row[0].strip("`")]["payload"]
        for name in payload["properties"].keys() - {"type"}:
            assert f"`{name}`" in row[1], (row[0], name)


def test_the_answers_to_agents_in_the_docs_are_in_the_schema():
    acks = sockets()["channels"]["agents"]["messages"]["task_ack"]["payload"]["properties"]
    documented = set()
    for row in table_rows(AGENTS, "What an agent may say"):
        answers = ANSWERS[row[0].strip("`")]
        for type in re.findall(r"`(\w+)`", row[2]):
            if type in acks["status"]["enum"]:
                documented.add(type)
            elif type in FRAMES:
                assert type in answers
    assert documented == set(acks["status"]["enum"])


def test_the_errors_of_the_socket_are_in_the_docs():
    rows = table_rows(AGENTS, "Errors on the socket")
    documented = {code for row in rows for code in re.findall(r"`([^`]+)`", row[0])}
    assert {re.sub(r": \w+$", ": …", code) for code in CODES} == documented
    reasons = set(re.findall(r"`(\w+)` \(", AGENTS.split("Reasons are checked in this order")[1]))
    assert reasons == set(REASONS)


def test_the_codes_of_closes_are_in_the_docs():
    documented = {row[0] for row in table_rows(AGENTS, "Closes")}
    assert {str(code) for code in CLOSES} == {code for code in documented if code.isdecimal()}


def test_the_session_in_the_docs_is_as_the_schema_says():
    for session in blocks(AGENTS, "session"):
        for line in session.splitlines():
            frame = json.loads(line[2:])
            message_validator("agents", frame["type"]).validate(frame)


@pytest.mark.parametrize("type", ["events", "patch"])
def test_a_frame_in_the_docs_is_as_the_schema_says(type: str):
    found = [each for each in json_in_docs() if each.get("type") == type]
    assert found
    for each in found:
        message_validator("dashboard", type).validate(each)


def test_the_messages_of_viewers_in_the_docs_are_as_the_schema_says():
    told = {}
    for row in table_rows(VIEWERS, "What a viewer may say"):
        [said] = [json.loads(text) for text in re.findall(r"`({\"type.*?})`", row[0])]
        told[said["type"]] = said
        for answer in re.findall(r"`({\"type.*?})`", row[1]):
            frame = json.loads(answer.replace("HOLD}", "null}"))
            described = sockets()["channels"]["dashboard"]["messages"][frame["type"]]["payload"]
            keys = {frozenset(each["properties"]) for each in described.get("anyOf", [described])}
            assert frozenset(frame) in keys, frame
    assert told.keys() == messages("dashboard", "receive").keys()
    for type, said in told.items():
        until = {"until": "2130-01-31T12:00:00Z"} if "until" in said else {}
        message_validator("dashboard", type).validate({**said, **until})


def test_the_refusals_of_viewers_are_in_the_docs():
    rows = table_rows(VIEWERS, "What a viewer may say")
    for type, act in ACTS.items():
        [row] = [row for row in rows if f'"type": "{type}"' in row[0]]
        for status in act.refusals:
            assert f"`{status}`" in row[1], (type, status)
