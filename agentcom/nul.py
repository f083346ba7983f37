"""Pages asked for with a NUL character are refused: PostgreSQL cannot even look for one.

The API looks for nothing that has not the form of a name; only sessions concern it too.
"""

from __future__ import annotations

from django.core.exceptions import BadRequest
from django.http import HttpRequest
from django.utils.deprecation import MiddlewareMixin

SENTENCE = "a request must not contain NUL characters"


def refuse_cookies(request: HttpRequest) -> None:
    """A session is looked for by its cookie, by the API as well. Raises `BadRequest`."""
    if r"\000" in request.META.get("HTTP_COOKIE", ""):
        raise BadRequest(SENTENCE)


class NulMiddleware(MiddlewareMixin):
    """In the address, the cookies or a form."""

    def process_request(self, request: HttpRequest) -> None:
        refuse_cookies(request)
        if "\x00" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
            raise BadRequest(SENTENCE)
        for _, values in request.POST.lists():
            if any("\x00" in str(value) for value in values):
                raise BadRequest(SENTENCE)
