"""What each call of the HTTP API takes and answers, declared at its handler.

`agentcom.openapi` makes the document of it. Nothing here runs while a request is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from agentcom.fields import Check
from agentcom.rights import Right
from agentcom.shapes import COUNT, TEXT, Named, Shape, always, record, shown

Handler = TypeVar("Handler", bound=Callable[..., Any])

# Ways to say who calls, by their names in the document; an empty one: nobody has to.
Security = Sequence[Mapping[str, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Problem:
    """An error that a call may answer with."""

    status: int
    name: str
    when: str
    shape: Shape
    headers: Mapping[str, str] = field(default_factory=dict)  # what each says


@dataclass(frozen=True, slots=True)
class Answer:
    says: str
    shape: Shape | None  # None: no body
    headers: Mapping[str, str] = field(default_factory=dict)  # what each says
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    needs: Right | None  # of a token; None: whatever its kind
    answers: Mapping[int, Answer]
    problems: Sequence[Problem] = ()
    query: Mapping[str, Check] = field(default_factory=dict)
    headers: Mapping[str, Check] = field(default_factory=dict)
    body: Shape | None = None
    body_needed: bool = True


def call(
    name: str,
    needs: Right | None,
    answers: Mapping[int, tuple[str, Shape] | Answer],
    *,
    problems: Sequence[Problem] = (),
    query: Mapping[str, Check] | None = None,
    headers: Mapping[str, Check] | None = None,
    body: Shape | None = None,
    body_needed: bool = True,
) -> Callable[[Handler], Handler]:
    """Declares a handler of an `ApiView`. `name` is unique among all calls; the handler's docstring
    says what it does. `needs`: the right that a token must give; None where its kind does not
    matter, or nobody has to say who calls (see `ApiView.permission_classes`)."""
    told = {
        status: answer if isinstance(answer, Answer) else Answer(*answer)
        for status, answer in answers.items()
    }
    declared = Call(name, needs, told, problems, query or {}, headers or {}, body, body_needed)

    def mark(handler: Handler) -> Handler:
        handler.__dict__["call"] = declared
        return handler

    return mark


def declared_at(handler: Any) -> Call:
    """Raises LookupError for a handler that declares nothing."""
    found = getattr(handler, "call", None)
    if not isinstance(found, Call):
        raise LookupError(f"{handler.__qualname__} does not say what it takes and answers")
    return found


# --- Problems that any call may have


def problem(
    status: int,
    name: str,
    when: str,
    code: str,
    more: Mapping[str, Shape] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Problem:
    """One with a fixed code."""
    shape = record({"error": always(code), **(more or {})})
    return Problem(status, name, when, Named(name, shape), headers or {})


RETRY_AFTER = {"Retry-After": "Seconds to wait before the next try."}

INVALID_VALUE = Problem(
    400,
    "InvalidValue",
    "A field, a query parameter or a header is missing, wrong or not known.",
    Named(
        "InvalidValue",
        record(
            {
                "error": shown(TEXT, "priority: must be urgent, high, normal, low or 0 to 3"),
                "field": shown(TEXT, "priority"),
            },
            {"index": shown(COUNT, 0, description="Of the task, in an array of tasks.")},
        ),
    ),
)
INVALID_JSON = problem(
    400,
    "InvalidJson",
    "The body is not JSON.",
    "invalid_json",
    {"detail": shown(TEXT, "not valid JSON: unexpected end of data")},
)
BAD_REQUEST = problem(
    400,
    "BadRequest",
    "A malformed request, or one with a NUL in its address.",
    "bad_request",
    {"detail": shown(TEXT, "the query is not UTF-8")},
)
NO_TOKEN = problem(
    401,
    "TokenNeeded",
    "No token, or one that is unknown, revoked or expired.",
    "unauthorized",
    {"hint": shown(TEXT, "provide Authorization: Bearer <token>")},
    {"WWW-Authenticate": "Bearer"},
)
NO_LOGIN = problem(
    401,
    "LoginNeeded",
    "A viewer without a login, where one is required.",
    "unauthorized",
    {"hint": shown(TEXT, "log in as staff at /admin/login/")},
)
FORBIDDEN = problem(
    403,
    "Forbidden",
    "A viewer whose login is not staff, or lacks the permissions to view tasks and agents.",
    "forbidden",
    {"hint": shown(TEXT, "a staff account is needed")},
)
NOT_ALLOWED = replace(FORBIDDEN, when="A token that does not allow this.")
FOREIGN_PAGE = problem(
    403,
    "ForeignPage",
    "A browser sent it for a page of another site, whose origin the hub does not trust.",
    "foreign_page",
    {"hint": shown(TEXT, "a page of another site sent this; AGENTCOM_TRUSTED_ORIGINS lists …")},
)
NOT_FOUND = problem(404, "NotFound", "No such address.", "not_found")
METHOD_NOT_ALLOWED = problem(
    405,
    "MethodNotAllowed",
    "The address does not have this method.",
    "method_not_allowed",
    {"detail": shown(TEXT, 'Method "PUT" not allowed.')},
    {"Allow": "The methods that it has."},
)
TIMED_OUT = problem(
    408, "RequestTimeout", "The request did not arrive completely in time.", "request_timeout"
)
BODY_TOO_LARGE = problem(
    413,
    "BodyTooLarge",
    "More than 1 MiB, or 8 MiB for an array.",
    "body_too_large",
    {"limit": shown(COUNT, 1048576, description="In bytes.")},
)
NOT_JSON = problem(
    415,
    "UnsupportedMediaType",
    "A content type that is not JSON.",
    "unsupported_media_type",
    {"hint": shown(TEXT, "send JSON with Content-Type: application/json")},
)
TOO_MANY_REQUESTS = Problem(
    429,
    "TooManyRequests",
    "The caller asks for too much at once.",
    Named(
        "TooManyRequests",
        record(
            {
                "error": always("throttled"),
                "detail": shown(TEXT, "at most 20 tasks a second with this token"),
            }
        ),
    ),
    RETRY_AFTER,
)
INTERNAL_ERROR = problem(
    500, "InternalError", "A bug in the hub; its log has the traceback.", "internal_error"
)
UNAVAILABLE = problem(
    503,
    "Unavailable",
    "The database does not answer, too many changes wait for it, or the commit took too long. "
    "The change may have been committed all the same.",
    "unavailable",
    {"detail": shown(TEXT, "the database does not answer")},
    RETRY_AFTER,
)

WITH_EVERY_CALL = (
    *(INVALID_VALUE, BAD_REQUEST, TIMED_OUT, BODY_TOO_LARGE, TOO_MANY_REQUESTS, INTERNAL_ERROR),
)
WITH_A_BODY = (INVALID_JSON, NOT_JSON)
WITH_A_CHANGE = (FOREIGN_PAGE,)
WITH_THE_DATABASE = (UNAVAILABLE,)
