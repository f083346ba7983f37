"""The snapshot over HTTP, for whoever would rather ask than listen."""

from __future__ import annotations

from django.http import HttpResponse, HttpResponseNotModified
from django.utils.http import parse_etags, quote_etag
from rest_framework.request import Request

from agentcom.api import ApiView, MayLook
from dashboard.snapshot import snapshots


class DashboardState(ApiView):
    authentication_classes = []
    permission_classes = [MayLook]

    async def get(self, request: Request) -> HttpResponse:
        snapshot = await snapshots.current()
        if matches(request.headers.get("If-None-Match", ""), snapshot.etag):
            response: HttpResponse = HttpResponseNotModified()
        else:
            response = HttpResponse(snapshot.encoded, content_type="application/json")
        response.headers["ETag"] = quote_etag(snapshot.etag)
        response.headers["Cache-Control"] = "no-cache"
        return response


def matches(if_none_match: str, etag: str) -> bool:
    """Whether the client has it already: compared weakly, as RFC 9110 says for If-None-Match."""
    known = {tag.removeprefix("W/") for tag in parse_etags(if_none_match)}
    return "*" in known or quote_etag(etag).removeprefix("W/") in known
