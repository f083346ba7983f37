"""What can go wrong between a program and a hub, as exceptions; and what `work` may raise."""

from __future__ import annotations


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
