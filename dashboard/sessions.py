"""Staff mode: a dashboard whose session ended or lost its permissions gets word, and is closed."""

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

CHECK_S = 5.0  # a session that ends is noticed within twice that at the most

Cookies = Mapping[str, str]


class Guest(Protocol):
    cookies: Cookies

    async def send_away(self) -> None: ...


class Sessions:
    """The sockets of this process that came in with a login. Lives on the event loop."""

    def __init__(self) -> None:
        self._guests: set[Guest] = set()

    def join(self, guest: Guest) -> None:
        if settings.AGENTCOM_DASHBOARD_ACCESS != "open":
            self._guests.add(guest)

    def leave(self, guest: Guest) -> None:
        self._guests.discard(guest)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                await self.check()
            except Unavailable:
                logger.warning("Nobody knows who is still logged in: the database does not answer")

    async def check(self) -> None:
        """Send away those whose session has ended. Each session is looked up once."""
        guests_of: dict[str, list[Guest]] = defaultdict(list)
        for guest in self._guests:
            guests_of[guest.cookies.get(settings.SESSION_COOKIE_NAME, "")].append(guest)
        for guests in guests_of.values():
            if await may_see_dashboard(guests[0].cookies):
                continue
            for guest in guests:
                self.leave(guest)
                await guest.send_away()


sessions = Sessions()
