"""The page at `/api/docs`: the calls of the API, to read and to try out.

About the software and not about the data, so anyone may read it.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from dashboard.views import draw


@require_safe
async def page(request: HttpRequest) -> HttpResponse:
    return await draw(request, "dashboard/docs.html", {})
