"""Staff mode: dashboards are notified and closed when their session or permission ends."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import Protocol

from django.conf import settings

from agentcom.access import may_see_dashboard
from agentcom.errors import Unavailable

logger = logging.getLogger(__name__)

CHECK_S = 5.0  # the end of a session is noticed within twice that time

Cookies = Mapping[str, str]


class StaffSocket(Protocol):
    cookies: Cookies

    async def end_session(self) -> None: ...


class Sessions:
    """The sockets of this process that need a login. Lives on the event loop."""

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
        """Close the sockets whose session has ended. Each session is looked up once."""
        sockets_of: dict[str, list[StaffSocket]] = defaultdict(list)
        for socket in self._sockets:
            sockets_of[socket.cookies.get(settings.SESSION_COOKIE_NAME, "")].append(socket)
        for sockets in sockets_of.values():
            if await may_see_dashboard(sockets[0].cookies):
                continue
            for socket in sockets:
                self.leave(socket)
                await socket.end_session()


sessions = Sessions()
