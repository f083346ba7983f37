"""Who did it: the actor that every command and every journal entry carries.

`agent:ID` over its socket, `token:NAME` over HTTP with a token (named by the agent that the token
belongs to), `user:NAME` with a login, `anyone` at an open dashboard without one, `worker`, and
`hub`: the web process itself, as it assigns or finds a connection gone, and the command line.
"""

from __future__ import annotations

from agentcom.texts import isolated, plain

WORKER = "worker"
HUB = "hub"
ANYONE = "anyone"

MAX_LENGTH = 160  # the longest name of a user has 150


def agent(agent_id: str) -> str:
    return f"agent:{agent_id}"


def token(name: str) -> str:
    return f"token:{name}"


def user(name: str) -> str:
    return f"user:{name}"[:MAX_LENGTH]


def in_words(actor: str | None) -> str:
    """As people read it; nothing where it is not known, as for entries of older versions."""
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
