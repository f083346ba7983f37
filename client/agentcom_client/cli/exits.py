"""The exit codes; `agentcom-client --help` explains them."""

from __future__ import annotations

from agentcom_client.config import ConfigError
from agentcom_client.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Refused,
    RequestRefused,
    Unauthorized,
    Unavailable,
)
from agentcom_client.info import TaskInfo

OK, FAILED, USAGE, UNREACHABLE, NOT_ACCEPTED, NO_SUCH_TASK, CANCELLED, TOO_LONG = range(8)
INTERRUPTED = 130

# The first that fits counts.
BY_ERROR: dict[type[BaseException], int] = {
    Invalid: USAGE,
    Unauthorized: NOT_ACCEPTED,
    Forbidden: NOT_ACCEPTED,
    NotFound: NO_SUCH_TASK,
    Conflict: NO_SUCH_TASK,
    RequestRefused: UNREACHABLE,
    Refused: NOT_ACCEPTED,
    ConfigError: NOT_ACCEPTED,
    Unavailable: UNREACHABLE,
}


def of_task(task: TaskInfo) -> int:
    """For a task that has ended."""
    return {"completed": OK, "cancelled": CANCELLED}.get(task.status, FAILED)
