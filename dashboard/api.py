"""The page's HTTP API: snapshot, history, queue, dead letters, and one task."""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpResponse, HttpResponseNotModified
from django.utils.http import parse_etags, quote_etag
from rest_framework.request import Request

from agentcom.api import ApiView, MaySeeDashboard, read_query
from agentcom.calls import Answer, call
from agentcom.database import MAX_VIEWER_READS, Reader, viewers
from agentcom.fields import Check, number, takes
from agentcom.rights import Right
from agentcom.shapes import TEXT, shown
from dashboard import dead_letters, shapes
from dashboard.asking import check_agents
from dashboard.history import MAX_MINUTES, history
from dashboard.live import live
from dashboard.queued import queued_page
from fleet import waiting
from fleet.api import one_task
from fleet.shapes import FULL_TASK
from tasks.api import TASK_NOT_FOUND, cursor, page_size
from tasks.listing import without_secrets
from tasks.shapes import TASK_ID

DEFAULT_PAGE = 50
DEFAULT_MINUTES = 60
# A day of charts or a hundred thousand dead letters take a while, and must not delay other pages.
wide_queries = Reader("wide-queries", timeout_factor=3, capacity=MAX_VIEWER_READS)
GROUP_KEY = re.compile(r"[0-9a-f]{16}")


@takes(shapes.GROUP)
def check_group(value: str) -> str:
    if not GROUP_KEY.fullmatch(value):
        raise ValueError("must be the key of a group")
    return value


@takes(shown(TEXT, 'W/"0123456789abcdef0123456789abcdef"'))
def check_tags(value: str) -> str:
    return value


PAGE: dict[str, Check] = {"limit": page_size(DEFAULT_PAGE), "cursor": cursor(parts=2)}
GROUP: dict[str, Check] = {**PAGE, "group": check_group}
STATE: dict[str, Check] = {"agents": check_agents}
MINUTES: dict[str, Check] = {"minutes": number(MAX_MINUTES, 1, DEFAULT_MINUTES)}
TAG = {"ETag": "Changes with everything but `uptime_ms` and `timestamp`."}


class ViewersView(ApiView):
    """For everyone who may see the dashboard, by a login or by the token of a viewer."""

    permission_classes = [MaySeeDashboard]


class DashboardState(ViewersView):
    @call(
        "read_state",
        Right.LOOK,
        {
            200: Answer("The state of the fleet.", shapes.SNAPSHOT, TAG),
            304: Answer("Nothing has changed since the version in `If-None-Match`.", None, TAG),
        },
        query=STATE,
        headers={"If-None-Match": check_tags},
    )
    async def get(self, request: Request) -> HttpResponse:
        """Read the state of the fleet, with all agents or those in a window."""
        given = read_query(request.query_params, STATE)
        snapshot = await live.current()
        if (wanted := given.get("agents")) is not None:
            view = live.window(wanted, must=True)
            assert view is not None
            snapshot = snapshot.with_window(view)
        if matches(request.headers.get("If-None-Match", ""), snapshot.etag):
            response: HttpResponse = HttpResponseNotModified()
        else:
            response = HttpResponse(snapshot.encoded, content_type="application/json")
        response.headers["ETag"] = quote_etag(snapshot.etag)
        response.headers["Cache-Control"] = "private, no-cache"
        return response


class ShownTask(ViewersView):
    parts = {"task_id": TASK_ID}

    @call("show_task", Right.LOOK, {200: ("The task.", FULL_TASK)}, problems=[TASK_NOT_FOUND])
    async def get(self, request: Request, task_id: str) -> Any:
        """Read one task, with what happened to it and why it is not running."""
        return await one_task(task_id, viewers, _shown_task)


def _shown_task(task_id: str) -> dict[str, Any] | None:
    task = waiting.with_history(task_id)
    return None if task is None else without_secrets(task)


class History(ViewersView):
    @call(
        "read_history",
        Right.LOOK,
        {200: ("The points, oldest first.", shapes.HISTORY)},
        query=MINUTES,
    )
    async def get(self, request: Request) -> dict[str, Any]:
        """Read the data of the charts."""
        given = read_query(request.query_params, MINUTES)
        return await wide_queries.run(history, given["minutes"])


class Queue(ViewersView):
    @call("read_queue", Right.LOOK, {200: ("A page of queued tasks.", shapes.QUEUED)}, query=PAGE)
    async def get(self, request: Request) -> dict[str, Any]:
        """List the queued tasks in the order of dispatch, each with the reason why it waits."""
        given = read_query(request.query_params, PAGE)
        return await viewers.run(queued_page, given["limit"], given.get("cursor"))


class DeadLetters(ViewersView):
    @call(
        "read_causes",
        Right.LOOK,
        {200: ("The groups, or a page of one group.", shapes.CAUSES_OR_LETTERS)},
        query=GROUP,
    )
    async def get(self, request: Request) -> dict[str, Any]:
        """List the dead letters by the cause of failure, or the tasks of one such group."""
        given = read_query(request.query_params, GROUP)
        group = given.get("group")
        if group is None:
            return await wide_queries.run(dead_letters.groups)
        return await viewers.run(dead_letters.tasks_of, group, given["limit"], given.get("cursor"))


def matches(if_none_match: str, etag: str) -> bool:
    """Whether the client has this version: a weak comparison, as in RFC 9110 for If-None-Match."""
    known = {tag.removeprefix("W/") for tag in parse_etags(if_none_match)}
    return "*" in known or quote_etag(etag).removeprefix("W/") in known
