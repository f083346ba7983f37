"""Connect agents and programs to an AgentCom hub."""

from agentcom_client.agent import Agent
from agentcom_client.config import ConfigError
from agentcom_client.errors import (
    Cancelled,
    Conflict,
    Forbidden,
    HubError,
    Invalid,
    NoRetry,
    NotCompleted,
    NotFound,
    Refused,
    Reject,
    RequestRefused,
    RetryAfter,
    Unauthorized,
    Unavailable,
)
from agentcom_client.hub import AsyncHub, Hub
from agentcom_client.info import TaskInfo
from agentcom_client.slot import Cancel, Task
from agentcom_client.threads import ThreadTask

__version__ = "0.2.0"

__all__ = [
    "Agent",
    "AsyncHub",
    "Cancel",
    "Cancelled",
    "ConfigError",
    "Conflict",
    "Forbidden",
    "Hub",
    "HubError",
    "Invalid",
    "NoRetry",
    "NotCompleted",
    "NotFound",
    "Refused",
    "Reject",
    "RequestRefused",
    "RetryAfter",
    "Task",
    "TaskInfo",
    "ThreadTask",
    "Unauthorized",
    "Unavailable",
]
