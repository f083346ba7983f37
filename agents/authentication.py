"""Agent tokens over HTTP: `Authorization: Bearer TOKEN`."""

from __future__ import annotations

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from agents.presence import hash_of
from agents.tokens import token_check


class TokenAuthentication(BaseAuthentication):
    async def authenticate(self, request: Request) -> tuple[str, str] | None:  # type: ignore[override]
        """Give the agent's id and the token's hash, or None without a valid token."""
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return None
        agent_id = await token_check.owner(token)
        return None if agent_id is None else (agent_id, hash_of(token))

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
