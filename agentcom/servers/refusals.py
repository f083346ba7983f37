"""What a server answers by itself: errors in the hub's own form, and then the connection closes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from django.http import HttpResponse
from rest_framework.exceptions import NotAuthenticated

from agentcom import doors
from agentcom.api import TooLarge, error_answer, json_answer
from agentcom.servers.limits import FREE_BODY, MAX_BODY, MAX_HEAD

# Whether the headers `Authorization` and `Cookie` belong to a known caller. May raise
# `Unavailable`.
IsKnown = Callable[[str, str], Awaitable[bool]]


def bad_request(detail: str = "this is not an HTTP request") -> HttpResponse:
    return json_answer({"error": "bad_request", "detail": detail}, 400)


def head_too_large() -> HttpResponse:
    return json_answer({"error": "headers_too_large", "limit": MAX_HEAD}, 431)


def too_slow() -> HttpResponse:
    return json_answer({"error": "request_timeout"}, 408)


def failed(status: int = 500) -> HttpResponse:
    return json_answer({"error": "internal_error"}, status)


def forbidden() -> HttpResponse:
    return json_answer({"error": "forbidden"}, 403)


def unknown_caller() -> HttpResponse:
    return error_answer(NotAuthenticated())


def body_refusal(size: int, has_credentials: bool) -> HttpResponse | None:
    """Why not even the beginning of a body of so many bytes is read."""
    if size > FREE_BODY and not has_credentials:
        return unknown_caller()
    if size > MAX_BODY:
        return error_answer(TooLarge(MAX_BODY))
    return None


async def caller_refusal(is_known: IsKnown, authorization: str, cookie: str) -> HttpResponse | None:
    """Why a body of more than `FREE_BODY` is not read from this caller."""
    try:
        return None if await is_known(authorization, cookie) else unknown_caller()
    except Exception as error:
        return error_answer(error)


def as_bytes(response: HttpResponse) -> bytes:
    """The response as it is sent over a connection that is closed afterwards."""
    doors.protect(response, doors.FOR_DATA)
    head = [
        f"HTTP/1.1 {response.status_code} {response.reason_phrase}",
        *(f"{name}: {value}" for name, value in response.items()),
        f"Content-Length: {len(response.content)}",
        "Connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + response.content
