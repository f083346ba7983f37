"""Connect agents and programs to an AgentCom hub."""

from agentcom_client.agent import Agent
from agentcom_client.config import ConfigError
from agentcom_client.errors import (
    Cancelled,
    HubError,
    NoRetry,
    Refused,
    Reject,
    RetryAfter,
    Unavailable,
)
from agentcom_client.slot import Cancel, Task
from agentcom_client.threads import ThreadTask

__version__ = "0.2.0"

__all__ = [
    "Agent",
    "Cancel",
    "Cancelled",
    "ConfigError",
    "HubError",
    "NoRetry",
    "Refused",
    "Reject",
    "RetryAfter",
    "Task",
    "ThreadTask",
    "Unavailable",
]
