"""The actor of every command and every journal entry: who did it.

- `agent:ID`: an agent over its socket
- `token:NAME`: a client over HTTP; NAME is the agent that its token belongs to
- `user:NAME`: a person with a login
- `anyone`: a person at an open dashboard without a login
- `worker`: the worker
- `hub`: a web process, when it assigns a task or detects a lost connection; or the command line
"""

from __future__ import annotations

from agentcom.texts import isolated, plain

WORKER = "worker"
HUB = "hub"
ANYONE = "anyone"

MAX_LENGTH = 160  # a user's name has at most 150


def agent(agent_id: str) -> str:
    return f"agent:{agent_id}"


def token(name: str) -> str:
    return f"token:{name}"


def user(name: str) -> str:
    return f"user:{name}"[:MAX_LENGTH]


def in_words(actor: str | None) -> str:
    """The actor for display; empty if unknown, as in entries of older versions."""
    kind, _, name = (actor or "").partition(":")
    name = isolated(plain(name))
    match kind:
        case "agent" | "user":
            return name
        case "token":
            return f"{name}, with its token"
        case "worker" | "hub":
            return f"the {kind}"
        case "anyone":
            return "somebody without a login"
    return ""
