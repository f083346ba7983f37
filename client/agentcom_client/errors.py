"""What can go wrong between a program and a hub, as exceptions; and what `work` may raise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentcom_client.info import TaskInfo


class HubError(Exception):
    """The hub answered a message with the error `code`; the socket stays open."""

    def __init__(self, code: str, detail: str | None = None) -> None:
        super().__init__(code if detail is None else f"{code} ({detail})")
        self.code = code
        self.detail = detail


class Unavailable(ConnectionError):
    """The hub cannot commit at the moment and has stored nothing; send the same message later."""


class Refused(Exception):
    """The hub refuses this agent: its token is wrong, or a newer socket uses its name."""


class RequestRefused(HubError):
    """The hub refused an HTTP request. `code` is its word for that, or "invalid"; `status` is
    HTTP's; `field` and `index` say which value of which task, where one is to blame.

    There is a subclass for each status: `Invalid` (400, 413, 415), `Unauthorized` (401),
    `Forbidden` (403), `NotFound` (404), `Conflict` (409).
    """

    def __init__(self, status: int, answer: dict[str, Any], attempt: int = 1) -> None:
        said = str(answer.get("error", f"HTTP {status}"))
        detail = answer.get("detail") or answer.get("hint")
        if " " in said:  # a sentence about a field
            super().__init__("invalid", said)
            self.args = (said,)
        else:
            super().__init__(said, None if detail is None else str(detail))
        self.status = status
        self.field: str | None = answer.get("field")
        self.index: int | None = answer.get("index")
        self.answer = answer
        self.attempt = attempt  # above 1, an earlier request may have been carried out
        self.submitted: list[str] = []  # ids that were queued before, by `submit_many`


class Invalid(RequestRefused):
    """A value that the hub does not take; nothing was changed."""


class Unauthorized(RequestRefused):
    """No token, or one that is unknown or revoked."""


class Forbidden(RequestRefused):
    """The token does not allow this."""


class NotFound(RequestRefused):
    """There is no such task, hold or agent; or not in a state in which this can be done."""


class Conflict(RequestRefused):
    """It is too late for this, or there are too many already."""


BY_STATUS: dict[int, type[RequestRefused]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    415: Invalid,
}


class NotCompleted(Exception):
    """The task has ended without a result: it was cancelled, or given up as a dead letter."""

    def __init__(self, task: TaskInfo) -> None:
        super().__init__(f"{task.id} is {task.status}: {task.last_error or task.cancel_reason}")
        self.task = task


# --- For `work`


class Reject(Exception):
    """Raise it in `work` to hand a task back. It is queued again and no attempt is spent."""


class NoRetry(Exception):
    """Raise it in `work` when another attempt is of no use: the task becomes a dead letter now."""


class RetryAfter(Exception):
    """Raise it in `work` when the next attempt should wait so long, as after a rate limit."""

    def __init__(self, error: str, seconds: float) -> None:
        super().__init__(error)
        self.seconds = seconds


class Cancelled(Exception):
    """Raised in a plain function by `ThreadTask.check` when its work is to stop."""
