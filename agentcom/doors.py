"""What every answer tells browsers, and which requests of browsers are not answered.

`closed_doors` is the middleware of the pages; `ApiHandler` calls the same functions. The rules are
explained in docs/security.md.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from agentcom.origins import foreign_change, foreign_host

logger = logging.getLogger(__name__)

# Scripts, styles, images, forms and sockets only from and to this hub, in nobody's frame.
PAGE_POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
# For what is no page: should a browser show it as one, it can do nothing.
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"

SAME_FOR_ALL = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FOR_PAGES = {
    **SAME_FOR_ALL,
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": PAGE_POLICY,
    "Cache-Control": "no-store",
}
FOR_DATA = {
    **SAME_FOR_ALL,
    "Content-Security-Policy": DATA_POLICY,
    "Cache-Control": "no-store",
}

NO_NAME_OF_THE_HUB = "This is no name of this hub. Its log says which setting has the names."
OF_ANOTHER_SITE = (
    "A page of another site has sent this, so nothing was changed. The hub's log says which "
    "setting has the origins that may."
)


def protect(response: HttpResponseBase, headers: Mapping[str, str]) -> None:
    """Add the headers that the response does not have yet."""
    for name, value in headers.items():
        response.headers.setdefault(name, value)


def refused(request: HttpRequest) -> HttpResponse | None:
    """The answer to a page that may not have this; None for the others."""
    if reason := foreign_host(request):
        log(reason)
        return HttpResponse(NO_NAME_OF_THE_HUB, status=400, content_type="text/plain")
    if reason := foreign_change(request):
        log(reason)
        return HttpResponse(OF_ANOTHER_SITE, status=403, content_type="text/plain")
    return None


@sync_and_async_middleware
def closed_doors(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    if iscoroutinefunction(get_response):

        async def answer_soon(request: HttpRequest) -> HttpResponseBase:
            return _closed(refused(request) or await get_response(request))

        return answer_soon

    def answer(request: HttpRequest) -> HttpResponseBase:
        return _closed(refused(request) or get_response(request))

    return answer


def _closed(response: HttpResponseBase) -> HttpResponseBase:
    if settings.DEBUG and response.status_code >= 400:  # Django's pages for developers need more
        response.headers.setdefault("Content-Security-Policy", "frame-ancestors 'none'")
    protect(response, FOR_PAGES)
    return response


# --- The log: who asks again and again must not fill it


class Throttle:
    """Lets through a few sentences a minute, and each of them once."""

    def __init__(self, limit: int = 10, period_s: float = 60.0) -> None:
        self._limit, self._period_s = limit, period_s
        self._until = 0.0
        self._said: set[str] = set()

    def lets(self, sentence: str, now: float) -> bool:
        """`now`: in seconds of a monotonic clock."""
        if now >= self._until:
            self._until = now + self._period_s
            self._said.clear()
        if sentence in self._said or len(self._said) >= self._limit:
            return False
        self._said.add(sentence)
        return True


throttle = Throttle()


def log(sentence: str) -> None:
    if throttle.lets(sentence, time.monotonic()):
        logger.warning("%s", sentence)
