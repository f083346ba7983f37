"""Tokens over HTTP: `Authorization: Bearer TOKEN`."""

from __future__ import annotations

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from agentcom.addresses import client_address
from agentcom.limits import failures
from agentcom.rights import Caller
from fleet.token_uses import token_uses
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
        address = client_address(request.scope)
        caller = await token_check.caller(token, address)
        if caller is not None:
            token_uses.note(caller.token_hash, address)
            return caller
        failures.add(address)
        await failures.slow_down(address)
        return None
