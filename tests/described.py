"""Holds what a hub says against the schemas that it publishes.

Published schemas are open: later versions may add keys. Here they are closed, so that a key that
is sent and not described is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import httpx
import jsonschema_rs
from django.utils.dateparse import parse_datetime

from agentcom import asyncapi, openapi
from agentcom.texts import is_blank

Json = dict[str, Any]

VARIABLE = re.compile(r"{(\w+)}")
FORMATS = {
    "visible": lambda text: not is_blank(text),
    "printable": lambda text: text.isprintable(),
    "name": lambda text: text.isprintable() and text == text.strip(),
    "date-time": lambda text: parse_datetime(text) is not None,
}
TEXTS = jsonschema_rs.validator_for({"type": "string"})


def closed(schema: Any) -> Any:
    """The same, but without other keys than those that it lists."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {key: closed(value) for key, value in schema.items() if key not in ("examples",)}
    if schema.get("type") == "object" and "properties" in schema:
        found.setdefault("additionalProperties", False)
    return found


def validator(schema: Any, components: Mapping[str, Any]) -> jsonschema_rs.Validator:
    """For a schema that may refer to components."""
    whole = closed({"allOf": [schema], "components": {"schemas": components}})
    return jsonschema_rs.validator_for(whole, formats=FORMATS, validate_formats=True)


@cache
def http() -> Json:
    return openapi.document()


@cache
def answer_validator(path: str, method: str, status: str) -> jsonschema_rs.Validator | None:
    """None for an answer without a body. Raises KeyError for one that is not described."""
    response = http()["paths"][path][method]["responses"][status]
    if "content" not in response:
        return None
    if "text/plain" in response["content"]:
        return TEXTS
    schema = response["content"]["application/json"]["schema"]
    return validator(schema, http()["components"]["schemas"])


@cache
def patterns() -> list[tuple[re.Pattern[str], str]]:
    """Fixed addresses first: they win over those with variable parts."""
    paths = sorted(http()["paths"], key=lambda path: ("{" in path, path))
    return [(re.compile(VARIABLE.sub(_any, path)), path) for path in paths]


def _any(variable: re.Match[str]) -> str:
    return ".+" if variable[1] == "agent_id" else "[^/]+"


def assert_described(answer: httpx.Response) -> None:
    """An answer of the hub has a status and a body that the schema has for its call. Addresses and
    methods that the hub does not have are left out."""
    address, method = answer.request.url.path, answer.request.method.lower()
    path = next((path for pattern, path in patterns() if pattern.fullmatch(address)), None)
    if path is None or method not in http()["paths"][path] or answer.status_code == 405:
        return
    found = answer_validator(path, method, str(answer.status_code))
    if found is None:
        assert answer.content == b""
        return
    is_text = answer.headers["Content-Type"].startswith("text/plain")
    said = answer.text if is_text else answer.json()
    wrong = [f"{error.instance_path}: {error.message}" for error in found.iter_errors(said)]
    assert wrong == [], f"{method} {path} {answer.status_code}"


# --- Frames


@cache
def sockets() -> Json:
    return asyncapi.document()


@cache
def message_validator(channel: str, type: str) -> jsonschema_rs.Validator:
    """Raises KeyError for a type that is not described."""
    message = sockets()["channels"][channel]["messages"][type]
    return validator(message["payload"], sockets()["components"]["schemas"])


def assert_frames_described(channel: str, frames: Iterable[Json]) -> None:
    """Each frame that a socket sent has the fields that the schema has for its type."""
    for frame in frames:
        errors = message_validator(channel, frame["type"]).iter_errors(frame)
        wrong = [f"{error.instance_path}: {error.message}" for error in errors]
        assert wrong == [], frame
