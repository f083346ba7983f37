"""How HTTP requests to the API are served: a lean handler, and asynchronous REST framework views.

All responses are JSON, errors included. Nothing touches the database on the event loop.
"""

from __future__ import annotations

import difflib
import io
import logging
import math
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.exceptions import BadRequest, DisallowedHost, RequestAborted, SuspiciousOperation
from django.core.handlers.asgi import ASGIHandler
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch, get_resolver
from rest_framework import exceptions
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from agentcom import doors
from agentcom.access import FORBIDDEN as FORBIDDEN_CODE
from agentcom.access import Entry, entry, is_open
from agentcom.addresses import client_address
from agentcom.audit.entries import Act, What
from agentcom.audit.gathered import note_refusal
from agentcom.calls import (
    FORBIDDEN,
    NO_LOGIN,
    NO_TOKEN,
    NOT_ALLOWED,
    UNAVAILABLE,
    Problem,
    Security,
    declared_at,
)
from agentcom.errors import Refused, Unavailable
from agentcom.fields import Check
from agentcom.nul import refuse_cookies
from agentcom.origins import foreign_change, foreign_host
from agentcom.rights import Caller, Right
from agentcom.shapes import Shape
from agentcom.wire import decode, encode, fault

logger = logging.getLogger(__name__)

OBJECT_LIMIT = 1024 * 1024  # bytes of a body
ARRAY_LIMIT = 8 * 1024 * 1024  # bytes of a body that is an array
ARRAY = re.compile(rb"\s*\[")
RETRY_AFTER_S = 1
SOCKETS = ("/ws", "/ws/tasks", "/ws/dashboard")
DOCS = "/api/docs"  # a page for people

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


# --- Errors


class BadInput(exceptions.APIException):
    """An invalid value: 400 ``{"error": "field: sentence", "field", …}``."""

    status_code = 400

    def __init__(self, field: str, sentence: str, **more: Any) -> None:
        super().__init__(sentence)
        self.answer = {"error": f"{field}: {sentence}", "field": field, **more}


class TooLarge(exceptions.APIException):
    status_code = 413

    def __init__(self, limit: int) -> None:
        super().__init__("too large")
        self.answer = {"error": "body_too_large", "limit": limit}


class InvalidJson(exceptions.APIException):
    status_code = 400

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.answer = {"error": "invalid_json", "detail": detail}


class ForeignPage(exceptions.APIException):
    """A browser sends something that changes the hub for a page of another site."""

    status_code = 403
    answer = {
        "error": "foreign_page",
        "hint": "a page of another site sent this; AGENTCOM_TRUSTED_ORIGINS lists those that may",
    }


class LoginNeeded(exceptions.APIException):
    status_code = 401

    def __init__(self) -> None:
        super().__init__()
        hint = f"log in as staff at {settings.AGENTCOM_PATH_PREFIX}/admin/login/"
        self.answer = {"error": "unauthorized", "hint": hint}


class ViewNotPermitted(exceptions.PermissionDenied):
    answer = {"error": "forbidden", "hint": "the permissions to view tasks and agents are needed"}


class Throttled(exceptions.Throttled):
    """Too much at once: 429, with the seconds to wait as `Retry-After`."""

    def __init__(self, wait_s: float, detail: str) -> None:
        super().__init__(wait_s)
        self.wait = math.ceil(wait_s)
        self.answer = {"error": "throttled", "detail": detail}


class NotAllowed(exceptions.PermissionDenied):
    """A token that does not allow what was asked for."""

    def __init__(self, hint: str) -> None:
        super().__init__(hint)
        self.answer = {"error": "forbidden", "hint": hint}


def json_answer(answer: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(encode(answer), content_type="application/json", status=status)


def error_answer(error: Exception) -> HttpResponse:
    """The response to an exception: a logged 500 if the client did not cause it."""
    match error:
        case Unavailable():
            response = json_answer({"error": error.code, "detail": error.detail}, 503)
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
            return response
        case Refused():
            return json_answer({"error": error.code, "detail": error.detail}, 409)
        case exceptions.APIException():
            return _refusal(error)
        case DisallowedHost():
            return json_answer({"error": "host: is not one of this hub's", "field": "host"}, 400)
        case SuspiciousOperation() | BadRequest():
            return json_answer({"error": "bad_request", "detail": str(error)}, 400)
        case Http404():
            return json_answer({"error": "not_found"}, 404)
    logger.error("A request failed", exc_info=error)
    return json_answer({"error": "internal_error"}, 500)


def _refusal(error: exceptions.APIException) -> HttpResponse:
    answer = getattr(error, "answer", None) or _ANSWERS.get(type(error))
    response = json_answer(
        answer or {"error": error.default_code, "detail": str(error.detail)}, error.status_code
    )
    if isinstance(error, exceptions.NotAuthenticated):
        response.headers["WWW-Authenticate"] = "Bearer"
    wait = getattr(error, "wait", None)
    if wait is not None:
        response.headers["Retry-After"] = str(int(wait))
    return response


_ANSWERS: dict[type[Exception], dict[str, str]] = {
    exceptions.NotAuthenticated: {
        "error": "unauthorized",
        "hint": "provide Authorization: Bearer <token>",
    },
    exceptions.PermissionDenied: {"error": "forbidden", "hint": "a staff account is needed"},
    exceptions.UnsupportedMediaType: {
        "error": "unsupported_media_type",
        "hint": "send JSON with Content-Type: application/json",
    },
}


MAX_SHOWN = 64  # characters of an unknown name


def refuse_unknown(names: Iterable[str], known: Collection[str], **more: Any) -> None:
    """Refuse the first name that is not known, with the one that was probably meant."""
    for name in names:
        if name not in known:
            shown = name[:MAX_SHOWN]
            alike = difflib.get_close_matches(shown, known, n=1, cutoff=0.6)
            hint = f"; did you mean {alike[0]}?" if alike else ""
            raise BadInput(shown, f"is not known{hint}", **more)


def refuse_misspelt(names: Collection[str], known: Collection[str], **more: Any) -> None:
    """Refuse unknown names that nearly match a known one; other unknown names are ignored. For
    query parameters, which proxies and browsers may add."""
    unknown = [name for name in names if name not in known]
    for name in unknown[:20]:
        alike = difflib.get_close_matches(name[:MAX_SHOWN], known, n=1, cutoff=0.75)
        if alike and alike[0] not in names:
            raise BadInput(name, f"is not known; did you mean {alike[0]}?", **more)


def read_query(query: Mapping[str, str], checks: Mapping[str, Check]) -> dict[str, Any]:
    """The checked query parameters; one that is empty counts as absent. One that is absent has the
    default of its check, or is left out. Raises `BadInput`."""
    refuse_misspelt(query, checks)
    found = {}
    for name, check in checks.items():
        if given := query.get(name):
            try:
                found[name] = check(given)
            except ValueError as error:
                raise BadInput(name, str(error)) from None
        elif "default" in check.shape:
            found[name] = check.shape["default"]
    return found


def read_body(
    data: Any, checks: Mapping[str, Check], required: Iterable[str] = ()
) -> dict[str, Any]:
    """The checked fields of a small JSON object; a field that is null counts as absent, and so does
    a body. Raises `BadInput`, also for a field that is not in `checks`."""
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise BadInput("body", "must be an object")
    refuse_unknown(data, checks)
    if (wrong := fault(data)) is not None:
        raise BadInput("body", wrong)
    found = {}
    for name, check in checks.items():
        if data.get(name) is not None:
            try:
                found[name] = check(data[name])
            except ValueError as error:
                raise BadInput(name, str(error)) from None
    for name in required:
        if name not in found:
            raise BadInput(name, "is required")
    return found


# --- Views


class JsonParser(BaseParser):
    media_type = "application/json"

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        body = stream.read()
        limit = ARRAY_LIMIT if ARRAY.match(body) else OBJECT_LIMIT
        if len(body) > limit:
            raise TooLarge(limit)
        try:
            return decode(body)
        except ValueError as error:
            raise InvalidJson(str(error)) from None


class OnlyJson(BaseContentNegotiation):
    """JSON in, JSON out, whatever the client's Accept header says."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        content_type = request.content_type.partition(";")[0].strip().lower()
        is_json = content_type in ("", "application/json") or content_type.endswith("+json")
        return parsers[0] if is_json else None

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class HasToken(BasePermission):
    """A token that gives the right which the call needs."""

    problems: Sequence[Problem] = (NO_TOKEN, NOT_ALLOWED, UNAVAILABLE)

    @staticmethod
    def security() -> Security:
        return [{"token": []}]

    async def admit(self, view: ApiView, needs: Right | None) -> None:
        if view.caller is None:
            raise exceptions.NotAuthenticated
        if needs is not None and not view.caller.may(needs):
            raise NotAllowed(view.caller.refusal_to(needs))


class MaySeeDashboard(BasePermission):
    """Anybody who may see the dashboard, by a login or by a token."""

    problems: Sequence[Problem] = (NO_LOGIN, FORBIDDEN, UNAVAILABLE)

    @staticmethod
    def security() -> Security:
        return [*([{}] if is_open() else []), {"session": []}, {"token": []}]

    async def admit(self, view: ApiView, needs: Right | None) -> None:
        if view.caller is not None and view.caller.may(Right.LOOK):
            return
        match await entry(view.request.COOKIES):
            case Entry.LOGIN_NEEDED:
                raise LoginNeeded
            case Entry.NOT_STAFF:
                raise exceptions.PermissionDenied
            case Entry.NOT_PERMITTED:
                raise ViewNotPermitted


class MaySeeDashboardOrHasToken(MaySeeDashboard):
    async def admit(self, view: ApiView, needs: Right | None) -> None:
        if view.caller is None:
            await super().admit(view, needs)
        else:
            await HasToken().admit(view, needs)


class ApiView(APIView):
    """A REST framework view whose handlers, authenticators and permissions are coroutines.

    Handlers return the content of the response, or an `HttpResponse`. `caller` is the owner of the
    token that was sent, if any. `permission_classes` raise for callers without access. Each handler
    declares with `call` which right it needs, and what it takes and answers; `parts` has the shapes
    of the variable parts of the view's address.
    """

    parts: Mapping[str, Shape] = {}

    parser_classes = [JsonParser]
    renderer_classes = [JSONRenderer]
    content_negotiation_class = OnlyJson
    authentication_classes: Sequence[Any] = APIView.authentication_classes
    permission_classes: Sequence[Any] = [HasToken]
    http_method_names = ["get", "head", "post", "patch", "delete"]

    caller: Caller | None = None

    @property
    def known(self) -> Caller:
        """The caller of a view that only those with a token may use."""
        assert self.caller is not None
        return self.caller

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        self.args, self.kwargs = args, kwargs
        self.request = self.initialize_request(request, *args, **kwargs)
        try:
            handler = self._handler()
            await self._admit(handler)
            answer = await handler(self.request, *args, **kwargs)
            return answer if isinstance(answer, HttpResponse) else json_answer(answer)
        except exceptions.MethodNotAllowed as error:
            response = error_answer(error)
            response.headers["Allow"] = ", ".join(self.allowed_methods)
            return response
        except Exception as error:
            if isinstance(error, NotAllowed):
                self._note_refusal()
            return error_answer(error)

    def _note_refusal(self) -> None:
        act = Act(What.CALL, declared_at(self._handler()).name)
        address = client_address(self.request.scope)
        note_refusal(act, self.known, address, FORBIDDEN_CODE)

    async def _admit(self, handler: Any) -> None:
        authenticators: list[Any] = self.get_authenticators()
        for authenticator in authenticators:
            self.caller = self.caller or await authenticator.authenticate(self.request)
        permissions: Sequence[Any] = self.get_permissions()
        for permission in permissions:
            await permission.admit(self, declared_at(handler).needs)

    def _handler(self) -> Callable[..., Awaitable[Any]]:
        method = str(self.request.method).lower()
        if method not in self.http_method_names:
            raise exceptions.MethodNotAllowed(method.upper())
        handler: Callable[..., Awaitable[Any]] | None = getattr(self, method, None)
        if handler is None:
            raise exceptions.MethodNotAllowed(method.upper())
        return handler


class NotASocket(ApiView):
    """The response to plain HTTP at a WebSocket's address: mostly a handshake without Upgrade."""

    permission_classes = []
    authentication_classes = []

    async def get(self, request: Request) -> HttpResponse:
        hint = "this address speaks WebSocket; if that was asked for, a proxy took Upgrade out"
        response = json_answer({"error": "upgrade_required", "hint": hint}, 426)
        response.headers["Upgrade"] = "websocket"
        response.headers["Connection"] = "Upgrade"
        return response


# --- The handler


def is_probe(path: str) -> bool:
    """Load balancers, orchestrators and Prometheus may use the process's address, which is no
    allowed host."""
    return path in ("/health", "/metrics") or path.startswith("/health/")


def is_for_api(path: str) -> bool:
    """Whether `ApiHandler` serves this path, always in JSON, rather than Django's pages."""
    is_api = path in ("/api", *SOCKETS) or path.startswith("/api/") or is_probe(path)
    return is_api and path != DOCS


class ApiHandler(ASGIHandler):
    """Django's ASGI handler without what the API does not need.

    No middleware (the callers have tokens, not sessions), no thread for each request, no signals
    sent in that thread, no log line for each 4xx. If a client disconnects, its request is still
    carried out. Measured, this handles about twice as many requests.
    """

    def load_middleware(self, is_async: bool = False) -> None:
        """There is none."""

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not HTTP")
        try:
            response = await self._respond(scope, receive)
        except RequestAborted:
            return
        if response.status_code != 304:
            response.headers["Content-Length"] = str(len(response.content))
        await self.send_response(response, send)

    async def send_response(self, response: HttpResponseBase, send: Any) -> None:
        doors.protect(response, doors.FOR_DATA)
        await super().send_response(response, send)

    async def _respond(self, scope: Mapping[str, Any], receive: Receive) -> HttpResponse:
        try:
            request = self._request(scope, await read_limited(receive))
            _refuse_foreign(request)
            refuse_cookies(request)
            found = request.resolver_match = _resolved(request.path_info)
            response: HttpResponse = await found.func(request, *found.args, **found.kwargs)
            return response
        except RequestAborted:
            raise
        except Exception as error:
            return error_answer(error)

    def _request(self, scope: Mapping[str, Any], body: bytes) -> HttpRequest:
        try:
            request: HttpRequest = self.request_class(scope, io.BytesIO(body))
        except UnicodeDecodeError:
            raise SuspiciousOperation("the query is not UTF-8") from None
        # Needed for a chunked request, which REST framework would treat as one without a body.
        request.META["CONTENT_LENGTH"] = str(len(body))
        return request


def _refuse_foreign(request: HttpRequest) -> None:
    """Raises `DisallowedHost` and `ForeignPage`."""
    if not is_probe(request.path_info) and (reason := foreign_host(request)):
        doors.log(reason)
        raise DisallowedHost(reason)
    if reason := foreign_change(request):
        doors.log(reason)
        raise ForeignPage


@lru_cache(maxsize=1024)
def _resolved(path: str) -> ResolverMatch:
    """The view of an address. Remembered, because most calls are to few addresses, and Django
    tries one pattern after the other. Raises `Http404`."""
    return get_resolver().resolve(path)


async def read_limited(receive: Receive) -> bytes:
    """Raises `TooLarge` as soon as the limit is passed, `RequestAborted` on a disconnect."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestAborted
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > ARRAY_LIMIT:
            raise TooLarge(ARRAY_LIMIT)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
