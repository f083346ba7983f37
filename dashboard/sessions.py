"""Dashboards are notified and closed when their session, permission or token ends."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import Protocol

from django.conf import settings

from agentcom.access import may_see_dashboard
from agentcom.errors import Unavailable
from agentcom.rights import Caller
from fleet.tokens import token_check

logger = logging.getLogger(__name__)

CHECK_S = 5.0  # the end of a session is noticed within twice that time

Cookies = Mapping[str, str]


class StaffSocket(Protocol):
    cookies: Cookies
    caller: Caller | None  # with a token instead of a login

    async def end_session(self) -> None: ...


class Sessions:
    """The sockets of this process that need a login or a token. Lives on the event loop."""

    def __init__(self) -> None:
        self._sockets: set[StaffSocket] = set()

    def join(self, socket: StaffSocket) -> None:
        if settings.AGENTCOM_DASHBOARD_ACCESS != "open":
            self._sockets.add(socket)

    def leave(self, socket: StaffSocket) -> None:
        self._sockets.discard(socket)

    async def run(self) -> None:
        """Check periodically until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                await self.check()
            except Unavailable:
                logger.warning("Sessions cannot be checked: the database is unavailable")

    async def check(self) -> None:
        """Close the sockets whose session or token has ended. Each is looked up once."""
        sockets_of: dict[tuple[str, str], list[StaffSocket]] = defaultdict(list)
        for socket in self._sockets:
            session = socket.cookies.get(settings.SESSION_COOKIE_NAME, "")
            sockets_of[session, socket.caller.token_hash if socket.caller else ""].append(socket)
        for sockets in sockets_of.values():
            if await _may_stay(sockets[0]):
                continue
            for socket in sockets:
                self.leave(socket)
                await socket.end_session()


async def _may_stay(socket: StaffSocket) -> bool:
    if socket.caller is not None:
        return await token_check.caller_of(socket.caller.token_hash) is not None
    return await may_see_dashboard(socket.cookies)


sessions = Sessions()
