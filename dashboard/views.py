"""The pages for people: `/dashboard`, rendered with the first snapshot, and an agent's page."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from agentcom import layout
from agentcom.access import Entry, entry, may_use_admin
from agentcom.database import viewers
from agentcom.errors import Unavailable
from dashboard.live import live
from dashboard.profile import profile_of
from dashboard.state.windows import Wanted

NOT_PERMITTED = (
    "Your account lacks the permissions to view tasks and agents. Whoever runs this hub can give "
    "them in the admin."
)
FIRST_AGENTS = Wanted(count=60)  # of the first paint, so that it does not delay the hub
LIGHTS = ("ok", "warning", "critical")
WORKER_SCRIPT = Path(__file__).parent / "static/dashboard/sw.js"


async def page(request: HttpRequest) -> HttpResponse:
    try:
        if refusal := await refused_entry(request):
            return refusal
        snapshot = await live.current()
        agents = live.window(FIRST_AGENTS, must=True)
    except Unavailable as unavailable:
        return not_now(unavailable)
    rows = map(orjson.loads, agents.rows.values() if agents else ())
    return await draw(request, "dashboard/page.html", shown(snapshot.page, list(rows)))


def shown(snapshot: dict[str, Any], agents: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page is drawn from. `agents`: the first ones, as in a window of them."""
    return {
        "snapshot": snapshot,
        "agents": [as_listed(agent) for agent in agents],
        "command": layout.TYPED_COMMAND,
        "client": layout.TYPED_CLIENT,
        "installed": layout.INSTALLED,
        "cancel_timeout_s": f"{settings.AGENTCOM_CANCEL_TIMEOUT_S:g}",
    }


def as_listed(agent: dict[str, Any]) -> dict[str, Any]:
    """One that is offline has no state of its own."""
    seen = agent.get("last_seen")
    return {"fsm_state": "offline", "last_state_change": seen, **agent}


@require_safe
async def agent_page(request: HttpRequest, agent_id: str) -> HttpResponse:
    """All about one agent, as it is now; nothing on it moves."""
    try:
        if refusal := await refused_entry(request):
            return refusal
        profile = await viewers.run(profile_of, agent_id) if agent_id.isprintable() else None
        may_administer = await may_use_admin(request.COOKIES)
    except Unavailable as unavailable:
        return not_now(unavailable)
    if profile is None:
        return await draw(request, "dashboard/no_agent.html", {"agent_id": agent_id}, status=404)
    context = {**profile, "may_administer": may_administer}
    return await draw(request, "dashboard/agent.html", context)


# --- What the pages share


async def refused_entry(request: HttpRequest) -> HttpResponse | None:
    """The answer to those who may not look; None for the others. Raises `Unavailable`."""
    admitted = await entry(request.COOKIES)
    if admitted is Entry.ALLOWED:
        return None
    if admitted is Entry.NOT_PERMITTED:  # the login page would only redirect them
        return HttpResponse(NOT_PERMITTED, status=403, content_type="text/plain")
    return redirect_to_login(request.get_full_path(), settings.LOGIN_URL)


def not_now(unavailable: Unavailable) -> HttpResponse:
    return HttpResponse(
        f"The hub cannot show this now: {unavailable.detail}. Reload in a moment.",
        status=503,
        content_type="text/plain",
        headers={"Retry-After": "1"},
    )


async def draw(
    request: HttpRequest, template: str, context: dict[str, Any], status: int = 200
) -> HttpResponse:
    # in a thread: rendering a large fleet takes long enough to delay the sockets; sync_to_async
    # carries the path prefix over
    rendered = sync_to_async(render, thread_sensitive=False)
    response = await rendered(request, template, context, status=status)
    response["Cache-Control"] = "no-store"
    return response


# --- What belongs to the page at `/dashboard`


async def icon(request: HttpRequest) -> HttpResponse:
    """The tab's icon: the health light as a shape, and what needs attention (1 to 9)."""
    light, number = request.GET.get("light", ""), request.GET.get("number", "")
    shown = {
        "light": light if light in LIGHTS else "unknown",
        "number": number if number in tuple("123456789") else "",
    }
    response = render(request, "dashboard/icon.svg", shown, content_type="image/svg+xml")
    response["Cache-Control"] = "max-age=86400"
    return response


async def worker_script(request: HttpRequest) -> HttpResponse:
    """The service worker; served from `/static/` it could not control the page."""
    script = await asyncio.to_thread(WORKER_SCRIPT.read_bytes)
    headers = {"Service-Worker-Allowed": reverse("dashboard"), "Cache-Control": "no-cache"}
    return HttpResponse(script, content_type="text/javascript", headers=headers)


async def home(request: HttpRequest) -> HttpResponse:
    return redirect("dashboard")
