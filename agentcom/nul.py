"""Pages asked for with a NUL character are refused: PostgreSQL cannot even look for one.

The API needs no such door: it looks for nothing that has not the form of a name.
"""

from __future__ import annotations

from collections.abc import Callable

from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse


def _refuse_nul(request: HttpRequest) -> None:
    if (
        "\x00" in request.path
        or "%00" in request.META.get("QUERY_STRING", "")
        or r"\000" in request.META.get("HTTP_COOKIE", "")
    ):
        raise BadRequest("a request must not contain NUL characters")


class NulMiddleware:
    """In the address, the cookies or a form."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        _refuse_nul(request)
        for _, values in request.POST.lists():
            if any("\x00" in str(value) for value in values):
                raise BadRequest("a form must not contain NUL characters")
        return self.get_response(request)
