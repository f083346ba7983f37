"""The page at `/dashboard/submit`: a form, and what becomes of what is typed into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods

from agentcom import actors
from agentcom.access import SESSION_ENDED, Forbidden, actor_of
from agentcom.addresses import address_of
from agentcom.audit import acting
from agentcom.audit.entries import Act, Entry, What
from agentcom.audit.gathered import gathered
from agentcom.clock import clock
from agentcom.database import millis, viewers
from agentcom.errors import Refused, Unavailable
from agentcom.models import Outcome
from agentcom.redaction import MASK
from dashboard import submission
from dashboard.submission import NotATask, Typed
from dashboard.views import draw, not_now, refused_entry
from tasks.queue import Submit

PERMISSION = "tasks.add_task"
SECRETS_LEFT_OUT = f"Secrets of the task were not copied: write them where {MASK} stands."
MAX_NAME = 128  # characters of `submitted_by`


@require_http_methods(["GET", "HEAD", "POST"])
async def page(request: HttpRequest) -> HttpResponse:
    return await (_post(request) if request.method == "POST" else _get(request))


async def _get(request: HttpRequest) -> HttpResponse:
    try:
        if refusal := await refused_entry(request):
            return refusal
        await actor_of(request.COOKIES, PERMISSION)
        typed, told = await _first_typed(request.GET.get("copy"))
    except Unavailable as unavailable:
        return not_now(unavailable)
    except Refused:
        return await draw(request, "dashboard/no_submit.html", {}, status=403)
    return await _form(request, typed, submission.new_key(), told=told)


async def _first_typed(task_id: str | None) -> tuple[Typed, str]:
    """What the form begins with: nothing, or a copy of a task. And what is to be said of it."""
    if not task_id:
        return submission.UNTOUCHED, ""
    typed = await viewers.run(submission.typed_as, task_id)
    if typed is None:
        return submission.UNTOUCHED, "The hub does not know the task that was to be copied."
    has_masks = any(MASK in text for text in typed.values())
    return typed, SECRETS_LEFT_OUT if has_masks else ""


async def _post(request: HttpRequest) -> HttpResponse:
    typed, key = submission.read_typed(request.POST), submission.read_key(request.POST)
    try:
        task_id = await _submit(request.COOKIES, address_of(request), typed, key)
    except NotATask as error:
        return await _form(request, typed, key, faults=error.faults, status=400)
    except Unavailable as unavailable:
        told = f"The hub cannot take it now: {unavailable.detail}. Submit it again in a moment."
        return await _form(request, typed, key, told=told, status=503)
    except Refused as refused:
        if refused.code == SESSION_ENDED:
            told = "Your login has ended, and nothing was submitted. Copy what you wrote first."
            return await _form(request, typed, key, told=told, login=_login(), status=403)
        return await draw(request, "dashboard/no_submit.html", {}, status=403)
    address = f"{reverse('dashboard')}?{urlencode({'task': task_id})}"
    return HttpResponse(status=303, headers={"Location": address})


async def _submit(cookies: Mapping[str, str], address: str, typed: Typed, key: str) -> str:
    """The id of the new task; of the first one, if this form was already sent. Raises `NotATask`,
    `Refused` and `Unavailable`."""
    actor = await _actor(cookies, address)
    task = submission.task_of(typed)
    command = Submit(
        [task],
        submitted_by=actor[:MAX_NAME],
        idempotency_key=submission.once(key, actor, typed),
        person=actor,
    )
    [receipt] = await acting.do(command, address)
    return str(receipt["task_id"])


async def _actor(cookies: Mapping[str, str], address: str) -> str:
    """As `actor_of`; a refusal goes to the audit trail."""
    try:
        return await actor_of(cookies, PERMISSION)
    except Unavailable:
        raise
    except Refused as refused:
        actor = refused.actor if isinstance(refused, Forbidden) else actors.ANYONE
        act = Act(What.TASK_SUBMIT)
        gathered.note(Entry(act, actor, address, Outcome.REFUSED, refused.code))
        raise


def _login() -> str:
    query = urlencode({"next": reverse("dashboard-submit")})
    return f"{resolve_url(settings.LOGIN_URL)}?{query}"


async def _form(
    request: HttpRequest,
    typed: Typed,
    key: str,
    *,
    faults: Mapping[str, str] | None = None,
    told: str = "",
    login: str = "",
    status: int = 200,
) -> HttpResponse:
    wrong = faults or {}
    if wrong:
        count = "one field is" if len(wrong) == 1 else f"{len(wrong)} fields are"
        told = f"Not submitted: {count} wrong."
    first = next((field.name for field in submission.ALL if field.name in wrong), "description")

    def row(field: submission.Field) -> dict[str, Any]:
        name = field.name
        return {
            "field": field,
            "value": typed.get(name, ""),
            "fault": wrong.get(name, ""),
            "is_focused": name == first,
        }

    rare = [row(field) for field in submission.RARE]
    context = {
        "key": key,
        "told": told,
        "login": login,
        "now": millis(clock.now()),
        "rows": [row(field) for field in submission.FIELDS],
        "rare": rare,
        "is_rare": any(
            r["fault"] or r["value"] != submission.UNTOUCHED.get(r["field"].name, "") for r in rare
        ),
    }
    return await draw(request, "dashboard/submit.html", context, status=status)
