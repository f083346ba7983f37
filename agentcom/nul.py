"""Refuses requests with a NUL character, which PostgreSQL does not accept in a query.

The API checks the form of all names before it queries them; only session cookies concern it too.
"""

from __future__ import annotations

from django.core.exceptions import BadRequest
from django.http import HttpRequest
from django.utils.deprecation import MiddlewareMixin

SENTENCE = "a request must not contain NUL characters"


def refuse_cookies(request: HttpRequest) -> None:
    """Sessions are queried by their cookie, by the API as well. Raises `BadRequest`."""
    if r"\000" in request.META.get("HTTP_COOKIE", ""):
        raise BadRequest(SENTENCE)


class NulMiddleware(MiddlewareMixin):
    """Checks the address, the cookies and forms."""

    def process_request(self, request: HttpRequest) -> None:
        refuse_cookies(request)
        if "\x00" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
            raise BadRequest(SENTENCE)
        for _, values in request.POST.lists():
            if any("\x00" in str(value) for value in values):
                raise BadRequest(SENTENCE)
