"""The HTTP API as an OpenAPI 3.1 document, made of what its views declare.

Every view that the URLs lead to is in it. Built with the first request for it, and kept.
"""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.request import Request

from agentcom import __version__, asyncapi
from agentcom.api import ApiView, NotASocket
from agentcom.calls import (
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    WITH_A_BODY,
    WITH_A_CHANGE,
    WITH_EVERY_CALL,
    Answer,
    Call,
    Problem,
    call,
    declared_at,
)
from agentcom.fields import or_empty
from agentcom.origins import CHANGES_NOTHING
from agentcom.rights import ANYONE
from agentcom.shapes import OBJECT, Components, Shape, example
from agentcom.wire import encode

METHODS = ("get", "post", "patch", "delete")
VARIABLE = re.compile(r"<(?:\w+:)?(\w+)>")
TAGS = {
    "tasks": "Submit, read, steer and retry tasks.",
    "holds": "Keep work from being handed out.",
    "agents": "Who is connected, and in which state.",
    "dashboard": "What viewers read.",
    "health": "For load balancers and supervisors.",
    "metrics": "For Prometheus.",
    "whoami": "Whose token it is.",
    "enrol": "How a host gets its token.",
    "schema": "The API about itself.",
}
ABOUT = """\
The HTTP API of a hub that hands tasks to AI agents and shows the fleet live.

- A time is a whole number of milliseconds since 1970-01-01 UTC. Names that end in `_s` are \
seconds, names that end in `_ms` are durations in milliseconds.
- Answers may have more keys than are listed here, and later versions may add more.
- In requests, `null` means the same as leaving the field out.
- Text and keys may not contain NUL, and values not more than 100 levels of objects and arrays.
- `HEAD` works wherever `GET` does. Other methods get 405, other addresses 404, both in JSON.
- The sockets are described at `/api/schema/sockets`.
"""


class SchemaView(ApiView):
    """About the software, not about the data, so anyone may read it."""

    authentication_classes = []
    permission_classes = []


class HttpSchema(SchemaView):
    @call("read_schema", ANYONE, {200: ("An OpenAPI 3.1 document.", OBJECT)})
    async def get(self, request: Request) -> HttpResponse:
        """Read the description of the HTTP API: this document."""
        return HttpResponse(_encoded_http(), content_type="application/json")


class SocketSchema(SchemaView):
    @call("read_socket_schema", ANYONE, {200: ("An AsyncAPI 3.0 document.", OBJECT)})
    async def get(self, request: Request) -> HttpResponse:
        """Read the description of the sockets."""
        return HttpResponse(_encoded_sockets(), content_type="application/json")


@cache
def _encoded_http() -> bytes:
    return encode(document())


@cache
def _encoded_sockets() -> bytes:
    return encode(asyncapi.document())


# --- The document


def document() -> dict[str, Any]:
    """Raises LookupError for a handler that declares nothing, ValueError where two calls or two
    shapes have one name."""
    components = Components()
    paths = {
        address: _path(address, view, components) for address, view in sorted(addresses().items())
    }
    _refuse_doubles(paths)
    for problem in (NOT_FOUND, METHOD_NOT_ALLOWED):  # of addresses and methods that are not here
        components.referring(problem.shape)
    return {
        "openapi": "3.1.0",
        "info": {"title": "AgentCom", "version": __version__, "description": ABOUT},
        **({"servers": [{"url": prefix}]} if (prefix := settings.AGENTCOM_PATH_PREFIX) else {}),
        "tags": [{"name": name, "description": about} for name, about in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.schemas.items())),
            "responses": {
                problem.name: _problems([problem], components)
                for problem in (NOT_FOUND, METHOD_NOT_ALLOWED)
            },
            "securitySchemes": _security_schemes(),
        },
    }


def addresses() -> dict[str, type[ApiView]]:
    """The view at each address. The addresses of the sockets are in the other document."""
    return {
        "/" + VARIABLE.sub(r"{\1}", route): view
        for route, view in _routes(get_resolver().url_patterns)
        if view is not NotASocket
    }


def _routes(patterns: Iterable[Any], before: str = "") -> Iterator[tuple[str, type[ApiView]]]:
    for found in patterns:
        route = before + str(found.pattern)
        if isinstance(found, URLResolver):
            yield from _routes(found.url_patterns, route)
        elif isinstance(found, URLPattern):
            view = getattr(found.callback, "view_class", None)
            if isinstance(view, type) and issubclass(view, ApiView):
                yield route, view


def _path(address: str, view: type[ApiView], components: Components) -> dict[str, Any]:
    return {
        method: _operation(address, view, getattr(view, method), components)
        for method in METHODS
        if hasattr(view, method)
    }


def _operation(
    address: str, view: type[ApiView], handler: Any, components: Components
) -> dict[str, Any]:
    declared = declared_at(handler)
    summary, _, more = (inspect.getdoc(handler) or "").partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": declared.name,
        "tags": [_tag(address)],
        "summary": " ".join(summary.split()),
    }
    if more:
        operation["description"] = more
    if parameters := [*_parameters(address, view, declared, components)]:
        operation["parameters"] = parameters
    if declared.body is not None:
        operation["requestBody"] = {
            "required": declared.body_needed,
            "content": _content(declared.body, components),
        }
    changes = handler.__name__.upper() not in CHANGES_NOTHING
    operation["responses"] = _responses(view, declared, components, changes)
    if security := _security(view):
        operation["security"] = security
    return operation


def _tag(address: str) -> str:
    """The first part of the address that says what it is about."""
    return address.removeprefix("/api").split("/")[1]


def _parameters(
    address: str, view: type[ApiView], declared: Call, components: Components
) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", address):
        yield _parameter("path", name, view.parts[name], components)
    for name, check in declared.query.items():
        yield _parameter("query", name, or_empty(check.shape), components)
    for name, check in declared.headers.items():
        yield _parameter("header", name, check.shape, components)


def _parameter(place: str, name: str, shape: Shape, components: Components) -> dict[str, Any]:
    parameter: dict[str, Any] = {"name": name, "in": place, "required": place == "path"}
    if encoded := shape.get("contentSchema"):  # a text that is JSON again
        content = {shape["contentMediaType"]: {"schema": components.referring(encoded)}}
        return {**parameter, "content": content}
    return {**parameter, "schema": components.referring(shape)}


def _responses(
    view: type[ApiView], declared: Call, components: Components, changes: bool
) -> dict[str, Any]:
    found = {
        status: _response(answer, components) for status, answer in sorted(declared.answers.items())
    }
    by_status = defaultdict[int, list[Problem]](list)
    for problem in _all_problems(view, declared, changes):
        if problem not in by_status[problem.status]:
            by_status[problem.status].append(problem)
    found |= {
        status: _problems(problems, components) for status, problems in sorted(by_status.items())
    }
    return {str(status): response for status, response in found.items()}


def _all_problems(view: type[ApiView], declared: Call, changes: bool) -> Iterator[Problem]:
    yield from declared.problems
    if view.parts:  # an address with such a part may be none at all
        yield NOT_FOUND
    for permission in view.permission_classes:
        yield from permission.problems
    if declared.body is not None:
        yield from WITH_A_BODY
    if changes:
        yield from WITH_A_CHANGE
    yield from WITH_EVERY_CALL


def _response(answer: Answer, components: Components) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.says}
    if answer.headers:
        found["headers"] = _headers(answer.headers)
    if answer.shape is not None:
        found["content"] = _content(answer.shape, components, answer.media_type)
    return found


def _problems(problems: Sequence[Problem], components: Components) -> dict[str, Any]:
    """The response of one status, whatever its reason."""
    headers = {name: says for problem in problems for name, says in problem.headers.items()}
    shapes = [components.referring(problem.shape) for problem in problems]
    content: dict[str, Any] = {"schema": shapes[0], "example": example(problems[0].shape)}
    if len(problems) > 1:
        examples = {
            problem.name: {"summary": problem.when, "value": example(problem.shape)}
            for problem in problems
        }
        content = {"schema": {"anyOf": shapes}, "examples": examples}
    return {
        "description": " ".join(problem.when for problem in problems),
        **({"headers": _headers(headers)} if headers else {}),
        "content": {"application/json": content},
    }


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {"description": says, "schema": {"type": "string"}} for name, says in headers.items()
    }


def _content(
    shape: Shape, components: Components, media_type: str = "application/json"
) -> dict[str, Any]:
    return {media_type: {"schema": components.referring(shape), "example": example(shape)}}


def _security(view: type[ApiView]) -> list[Mapping[str, Sequence[str]]]:
    return [way for permission in view.permission_classes for way in permission.security()]


def _security_schemes() -> dict[str, Any]:
    return {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token, from `manage.py token create`.",
        },
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": settings.SESSION_COOKIE_NAME,
            "description": "The session of a user who may see the dashboard.",
        },
    }


def _refuse_doubles(paths: Mapping[str, Mapping[str, Any]]) -> None:
    names = [operation["operationId"] for path in paths.values() for operation in path.values()]
    if doubles := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"several calls are named {sorted(doubles)}")
