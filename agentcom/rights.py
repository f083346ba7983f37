"""What a token allows: the kinds of tokens, what each may do, and the scopes within a kind.

| right | agent | submitter | viewer | operator |
| --- | --- | --- | --- | --- |
| `WORK`: be an agent | yes | | | yes |
| `SUBMIT` | yes | yes | | yes |
| `READ`: tasks | its own | its own | all | all |
| `STEER`: cancel, retry, move tasks | its own | its own | | all |
| `READ_ALL`: whatever is no task of one's own | | | yes | yes |
| `LOOK`: what the dashboard shows | | | yes | yes |
| `OPERATE`: place and lift holds; and whatever the page lets people do | | | | yes |

A task is one's own that was submitted with a token of the same name; to read, also one that the
agent of that name has. With `all_tasks` an agent's or a submitter's token has `READ`, `STEER` and
`READ_ALL` for all tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from django.conf import settings
from django.db.models import TextChoices


class TokenKind(TextChoices):
    AGENT = "agent"
    SUBMITTER = "submitter"
    VIEWER = "viewer"
    OPERATOR = "operator"


class Right(StrEnum):
    """What a call needs. The values end the sentence "this token may not …"."""

    WORK = "be an agent"
    SUBMIT = "submit tasks"
    READ = "read tasks"
    STEER = "steer tasks"
    READ_ALL = "read what is not its own"
    LOOK = "see the dashboard"
    OPERATE = "operate the hub"


# What a call declares that needs no right: any token does, or nobody has to say who calls.
KNOWN = ANYONE = None

_OWN = frozenset({Right.SUBMIT, Right.READ, Right.STEER})
RIGHTS: dict[TokenKind, frozenset[Right]] = {
    TokenKind.AGENT: _OWN | {Right.WORK},
    TokenKind.SUBMITTER: _OWN,
    TokenKind.VIEWER: frozenset({Right.READ, Right.READ_ALL, Right.LOOK}),
    TokenKind.OPERATOR: frozenset(Right),
}
# What an agent's token could do before there were kinds of tokens.
FORMER = frozenset(Right) - {Right.LOOK}


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token was made for. Empty scopes do not limit."""

    kind: TokenKind = TokenKind.AGENT
    # it may submit only tasks that need some of these capabilities, and no others
    capabilities: tuple[str, ...] = ()
    lanes: tuple[int, ...] = ()  # the priorities of what it may submit
    all_tasks: bool = False  # those of others, too


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a token that came with a request, or over a socket."""

    name: str
    grant: Grant
    token_hash: str
    # the hash of the first token in a chain of rotated ones
    origin: str
    expires_at: datetime | None = None

    def may(self, right: Right | None) -> bool:
        if right is KNOWN or right in RIGHTS[self.grant.kind]:
            return True
        if right is Right.READ_ALL:
            return self.has_all_tasks
        return right in FORMER and self._is_as_before

    @property
    def has_all_tasks(self) -> bool:
        """Whether `READ` and `STEER` are for all tasks; else for its own."""
        return (
            self.grant.kind in (TokenKind.VIEWER, TokenKind.OPERATOR)
            or self.grant.all_tasks
            or self._is_as_before
        )

    @property
    def _is_as_before(self) -> bool:
        is_agent = self.grant.kind is TokenKind.AGENT
        return is_agent and bool(settings.AGENTCOM_AGENT_TOKENS == "all")

    @property
    def submits_like_an_agent(self) -> bool:
        """Whether the smaller limit holds for it."""
        return self.grant.kind is TokenKind.AGENT and not self._is_as_before

    def is_for(self, agent_id: str | None) -> bool:
        """Whether this is the agent of that name, or one of its slots (`NAME#2`)."""
        if not agent_id:
            return False
        name, _, slot = agent_id.rpartition("#")
        return agent_id == self.name or (name == self.name and slot.isdecimal())

    def owns(self, submitted_by: str, assigned_to: str | None) -> bool:
        """Whether a task is for it to read."""
        return self.has_all_tasks or submitted_by == self.name or self.is_for(assigned_to)

    def refusal_to_submit(self, capabilities: Iterable[str], lane: int) -> str | None:
        """Why it may not submit a task like this, as a sentence; None if it may."""
        allowed = self.grant.capabilities
        needed = list(capabilities)
        if allowed and not needed:
            return f"this token submits only tasks that need one of {', '.join(allowed)}"
        for capability in needed if allowed else ():
            if capability not in allowed:
                return f"this token may not submit tasks that need {capability}"
        return self.refusal_of_lane(lane)

    def refusal_of_lane(self, lane: int) -> str | None:
        """Why a task of its own may not be in this lane, as a sentence; None if it may."""
        lanes = self.grant.lanes
        return (
            f"this token's tasks may not be in lane {lane}" if lanes and lane not in lanes else None
        )

    def refusal_to(self, right: Right) -> str:
        """Why it may not do what needs this right, as a sentence."""
        able = " or ".join(kind.value for kind in TokenKind if right in RIGHTS[kind])
        kind = self.grant.kind.value
        return f"this token may not {right.value}: its kind is {kind}, and that takes {able}"
