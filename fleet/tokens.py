"""Tokens: shown once, stored as a hash, revocable. What each allows: `agentcom.rights`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agentcom import actors
from agentcom.audit import acting
from agentcom.audit.entries import Act, Entry, What
from agentcom.audit.gathered import gathered
from agentcom.clock import clock
from agentcom.database import checks
from agentcom.errors import Refused
from agentcom.models import Outcome
from agentcom.rights import Caller, Grant
from agentcom.texts import listed
from agentcom.work import Wanted, Work
from fleet.models import AgentToken
from fleet.names import check_new_names
from fleet.presence import hash_of
from tasks.models import Priority

REMEMBER_S = 1.0  # for so long a checked token is not checked again
PREFIX = "act_"  # by which programs that look for lost secrets can tell what it is
AGENTS = Grant()


@dataclass(frozen=True, slots=True)
class CreateTokens:
    hashes: Mapping[str, str]  # token hash by name
    grant: Grant = AGENTS
    expires_at: datetime | None = None
    actor = actors.HUB  # tokens are only created on the command line

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> None:
        for name, token_hash in self.hashes.items():
            add_token(work, name, token_hash, self.grant, self.expires_at)

    def act(self, result: Any = None) -> Act:
        return Act(
            What.TOKEN_CREATE, listed(list(self.hashes)), detail=f"kind {in_words(self.grant)}"
        )


def add_token(
    work: Work,
    name: str,
    token_hash: str,
    grant: Grant,
    expires_at: datetime | None,
    origin: str = "",
) -> None:
    token = AgentToken(
        token_hash=token_hash,
        name=name,
        origin=origin,
        created_at=work.now,
        expires_at=expires_at,
    )
    token.set_grant(grant)
    work.add(token)
    work.emit("token_created", agent_id=name)


@dataclass(frozen=True, slots=True)
class RevokeToken:
    """Gives whether the token was still valid. Raises `Refused` when it does not exist."""

    token_hash: str
    actor: str
    name: str = ""  # whose it is, for the audit trail

    def rows(self) -> Wanted:
        return [(AgentToken, [self.token_hash])]

    def apply(self, work: Work) -> bool:
        token = work.get(AgentToken, self.token_hash)
        if token is None:
            raise Refused("token_not_found")
        if token.revoked_at is not None:
            return False
        revoke(work, token)
        return True

    def act(self, result: Any = None) -> Act:
        before = ", revoked before" if result is False else ""
        return Act(What.TOKEN_REVOKE, self.name, detail=f"{_begins(self.token_hash)}{before}")


@dataclass(frozen=True, slots=True)
class ExpireToken:
    """Revoke a token whose time is over, so that its sockets close. Otherwise nothing."""

    token_hash: str
    actor = actors.WORKER

    def rows(self) -> Wanted:
        return [(AgentToken, [self.token_hash])]

    def apply(self, work: Work) -> None:
        token = work.get(AgentToken, self.token_hash)
        if token is not None and token.revoked_at is None and not token.is_valid(work.now):
            revoke(work, token)


def revoke(work: Work, token: AgentToken) -> None:
    token.revoked_at = work.now
    work.emit("token_revoked", agent_id=token.name, token_hash=token.token_hash)


@dataclass(frozen=True, slots=True)
class RotateToken:
    """Add a token that allows the same as an old one, which stays valid for `overlap_s`.

    Raises `Refused` when the old one does not exist or is not valid any more.
    """

    token_hash: str
    new_hash: str
    overlap_s: float
    actor: str
    name: str = ""  # whose it is, for the audit trail

    def rows(self) -> Wanted:
        return [(AgentToken, [self.token_hash])]

    def apply(self, work: Work) -> None:
        old = work.get(AgentToken, self.token_hash)
        if old is None or not old.is_valid(work.now):
            raise Refused("token_not_found")
        origin = old.origin or old.token_hash
        add_token(work, old.name, self.new_hash, old.grant, old.expires_at, origin)
        end = work.now + timedelta(seconds=self.overlap_s)
        old.expires_at = min(end, old.expires_at or end)
        if self.overlap_s == 0:
            revoke(work, old)

    def act(self, result: Any = None) -> Act:
        replaced = f"{_begins(self.token_hash)} by {_begins(self.new_hash)}"
        return Act(What.TOKEN_ROTATE, self.name, detail=replaced)


def _begins(token_hash: str) -> str:
    """What tells tokens apart, in `token list` and in the admin."""
    return f"hash {token_hash[:12]}"


def expired(now: datetime, limit: int) -> list[str]:
    """The hashes of tokens that `ExpireToken` would revoke, at most so many."""
    over = AgentToken.objects.filter(expires_at__lte=now, revoked_at=None)
    return list(over.order_by("expires_at").values_list("token_hash", flat=True)[:limit])


def issue(
    names: Iterable[str], grant: Grant = AGENTS, expires_at: datetime | None = None
) -> dict[str, str]:
    """Create a token for each name. The tokens cannot be read again later.

    Raises ValueError for a new name that is not allowed, see `fleet.names`.
    """
    names = list(names)
    check_new_names(names)
    tokens = {name: new_token() for name in names}
    hashes = {name: hash_of(token) for name, token in tokens.items()}
    acting.call(CreateTokens(hashes, grant, expires_at), note=acting.os_user())
    return tokens


def new_token() -> str:
    """Of nearly 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def in_words(grant: Grant) -> str:
    """The kind with its scopes: "submitter, all tasks, lanes normal and low, only for gpu"."""
    parts = [grant.kind.value]
    if grant.all_tasks:
        parts.append("all tasks")
    if grant.lanes:
        names = " and ".join(Priority(lane).name.lower() for lane in grant.lanes)
        parts.append(f"{'lane' if len(grant.lanes) == 1 else 'lanes'} {names}")
    if grant.capabilities:
        parts.append(f"only for {' and '.join(grant.capabilities)}")
    return ", ".join(parts)


class TokenCheck:
    """Finds the owner of a token, with a short-lived cache for clients that call often."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Caller]] = {}
        self._revoked: set[str] = set()  # hashes revoked since this process began

    def revoke(self, token_hash: str) -> None:
        """From now on the token is invalid, also for database reads already under way.

        Revoking is permanent, so this needs no `seq` and is never undone.
        """
        self._revoked.add(token_hash)

    def is_revoked(self, token_hash: str) -> bool:
        """As far as this process knows; it learns of other revocations from the journal."""
        return token_hash in self._revoked

    async def caller(self, token: str, address: str = "") -> Caller | None:
        """Whose token it is, or None for one that is unknown, revoked or expired: that goes to the
        audit trail, with the address of whoever came with it."""
        caller = await self.caller_of(hash_of(token))
        if caller is None:
            gathered.note(_wrong_token(address))
        return caller

    async def caller_of(self, token_hash: str) -> Caller | None:
        """The same by the token's hash."""
        caller = await self._find(token_hash)
        if caller is None or token_hash in self._revoked:
            return None
        end = caller.expires_at
        return caller if end is None or clock.now() < end else None

    async def _find(self, token_hash: str) -> Caller | None:
        until, caller = self._known.get(token_hash, (0.0, None))
        if until > time.monotonic():
            return caller
        found = await checks.run(_read, token_hash)
        if found is None:
            self._known.pop(token_hash, None)
        else:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[token_hash] = (time.monotonic() + REMEMBER_S, found)
        return found


def _wrong_token(address: str) -> Entry:
    return Entry(Act(What.TOKEN_WRONG), actors.ANYONE, address, Outcome.REFUSED)


def _read(token_hash: str) -> Caller | None:
    token = AgentToken.objects.filter(token_hash=token_hash, revoked_at=None).first()
    if token is None:
        return None
    origin = token.origin or token_hash
    return Caller(token.name, token.grant, token_hash, origin, token.expires_at)


token_check = TokenCheck()
