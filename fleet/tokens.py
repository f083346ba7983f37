"""Agent tokens: shown once, stored as a hash, revocable."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agentcom import actors
from agentcom.database import checks
from agentcom.errors import Refused
from agentcom.work import Wanted, Work
from agentcom.writer import writer
from fleet.models import AgentToken
from fleet.names import check_new_names
from fleet.presence import hash_of

REMEMBER_S = 1.0  # for so long a checked token is not checked again


@dataclass(frozen=True, slots=True)
class CreateTokens:
    hashes: Mapping[str, str]  # token hash by agent id
    actor = actors.HUB  # tokens are only created on the command line

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> None:
        for agent_id, token_hash in self.hashes.items():
            work.add(AgentToken(token_hash=token_hash, agent_id=agent_id, created_at=work.now))
            work.emit("token_created", agent_id=agent_id)


@dataclass(frozen=True, slots=True)
class RevokeToken:
    """Gives whether the token was still valid. Raises `Refused` when it does not exist."""

    token_hash: str
    actor: str

    def rows(self) -> Wanted:
        return [(AgentToken, [self.token_hash])]

    def apply(self, work: Work) -> bool:
        token = work.get(AgentToken, self.token_hash)
        if token is None:
            raise Refused("token_not_found")
        if token.revoked_at is not None:
            return False
        token.revoked_at = work.now
        work.emit("token_revoked", agent_id=token.agent_id, token_hash=token.token_hash)
        return True


def issue(agent_ids: Iterable[str]) -> dict[str, str]:
    """Create a token for each agent. The tokens cannot be read again later.

    Raises ValueError for a new name that is not allowed, see `fleet.names`.
    """
    agent_ids = list(agent_ids)
    check_new_names(agent_ids)
    tokens = {agent_id: _new_token() for agent_id in agent_ids}
    writer.call(CreateTokens({agent_id: hash_of(token) for agent_id, token in tokens.items()}))
    return tokens


def _new_token() -> str:
    """Nearly 256 bits; never begins with a dash, which command lines would read as an option."""
    token = secrets.token_urlsafe(32)
    return token if token[0] != "-" else _new_token()


class TokenCheck:
    """Finds the owner of a token, with a short-lived cache for clients that call often."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, str]] = {}
        self._revoked: set[str] = set()  # hashes revoked since this process began

    def revoke(self, token_hash: str) -> None:
        """From now on the token is invalid, also for database reads already under way.

        Revoking is permanent, so this needs no `seq` and is never undone.
        """
        self._revoked.add(token_hash)

    def is_revoked(self, token_hash: str) -> bool:
        """As far as this process knows; it learns of other revocations from the journal."""
        return token_hash in self._revoked

    async def owner(self, token: str) -> str | None:
        """The agent's id, or None for a token that is unknown or revoked."""
        token_hash = hash_of(token)
        owner = await self._owner_of(token_hash)
        return None if token_hash in self._revoked else owner

    async def _owner_of(self, token_hash: str) -> str | None:
        until, agent_id = self._known.get(token_hash, (0.0, ""))
        if until > time.monotonic():
            return agent_id
        found = await checks.run(_owner, token_hash)
        if found is None:
            self._known.pop(token_hash, None)
        else:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[token_hash] = (time.monotonic() + REMEMBER_S, found)
        return found


def _owner(token_hash: str) -> str | None:
    valid = AgentToken.objects.filter(token_hash=token_hash, revoked_at=None)
    return valid.values_list("agent_id", flat=True).first()


token_check = TokenCheck()
