"""The page's HTTP API: snapshot, history, queue, dead letters, and one task."""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpResponse, HttpResponseNotModified
from django.utils.http import parse_etags, quote_etag
from rest_framework.request import Request

from agentcom.api import ApiView, BadInput, MaySeeDashboard, refuse_misspelt
from agentcom.database import MAX_VIEWER_READS, Reader, viewers
from dashboard import dead_letters
from dashboard.history import MAX_MINUTES, history
from dashboard.queued import queued_page
from dashboard.snapshot import snapshots
from fleet.api import one_task
from tasks.api import read_cursor, read_limit, read_whole

DEFAULT_PAGE = 50
DEFAULT_MINUTES = 60
# A day of charts or a hundred thousand dead letters take a while, and must not delay other pages.
wide_queries = Reader("wide-queries", timeout_factor=3, capacity=MAX_VIEWER_READS)
GROUP = re.compile(r"[0-9a-f]{16}")


class ViewersView(ApiView):
    """For everyone who may see the dashboard. Agent tokens give no access here."""

    authentication_classes = []
    permission_classes = [MaySeeDashboard]


class DashboardState(ViewersView):
    async def get(self, request: Request) -> HttpResponse:
        snapshot = await snapshots.current()
        if matches(request.headers.get("If-None-Match", ""), snapshot.etag):
            response: HttpResponse = HttpResponseNotModified()
        else:
            response = HttpResponse(snapshot.encoded, content_type="application/json")
        response.headers["ETag"] = quote_etag(snapshot.etag)
        response.headers["Cache-Control"] = "no-cache"
        return response


class ShownTask(ViewersView):
    async def get(self, request: Request, task_id: str) -> Any:
        return await one_task(task_id, viewers)


class History(ViewersView):
    async def get(self, request: Request) -> dict[str, Any]:
        """The data of the charts."""
        query = request.query_params
        refuse_misspelt(query, ("minutes",))
        minutes = read_whole(query, "minutes", DEFAULT_MINUTES, MAX_MINUTES)
        return await wide_queries.run(history, minutes)


class Queue(ViewersView):
    async def get(self, request: Request) -> dict[str, Any]:
        """The queued tasks in the order of dispatch, each with the reason why it waits."""
        query = request.query_params
        refuse_misspelt(query, ("limit", "cursor"))
        return await viewers.run(
            queued_page, read_limit(query, DEFAULT_PAGE), read_cursor(query, parts=2)
        )


class DeadLetters(ViewersView):
    async def get(self, request: Request) -> dict[str, Any]:
        """Dead letters grouped by the cause of failure; with `group`, the tasks of one group."""
        query = request.query_params
        refuse_misspelt(query, ("group", "limit", "cursor"))
        limit, cursor = read_limit(query, DEFAULT_PAGE), read_cursor(query, parts=2)
        group = query.get("group")
        if not group:
            return await wide_queries.run(dead_letters.groups)
        if not GROUP.fullmatch(group):
            raise BadInput("group", "must be the key of a group")
        return await viewers.run(dead_letters.tasks_of, group, limit, cursor)


def matches(if_none_match: str, etag: str) -> bool:
    """Whether the client has this version: a weak comparison, as in RFC 9110 for If-None-Match."""
    known = {tag.removeprefix("W/") for tag in parse_etags(if_none_match)}
    return "*" in known or quote_etag(etag).removeprefix("W/") in known
