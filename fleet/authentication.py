"""Agent tokens over HTTP: `Authorization: Bearer TOKEN`."""

from __future__ import annotations

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from agentcom.access import Caller
from fleet.presence import hash_of
from fleet.tokens import token_check


def bearer(authorization: str) -> str:
    """The token in the header's value, or nothing."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


class TokenAuthentication(BaseAuthentication):
    """For `agentcom.api.ApiView`, which awaits it."""

    async def authenticate(self, request: Request) -> Caller | None:
        token = bearer(request.META.get("HTTP_AUTHORIZATION", ""))
        if not token:
            return None
        agent_id = await token_check.owner(token)
        return None if agent_id is None else Caller(agent_id, hash_of(token))
