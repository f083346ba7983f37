"""The web process: HTTP, both sockets, and what runs beside them. The composition root.

Served by Daphne: `daphne agentcom.asgi:application`, or with a worker inside by `manage.py hub`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentcom.settings")

from django.core.asgi import get_asgi_application

pages = get_asgi_application()  # Django is set up from here on

from agentcom.checks import refuse_bad_settings

refuse_bad_settings()

from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path

from agentcom.api import ApiHandler
from agentcom.database import missing_migrations, queries
from agentcom.errors import Unavailable
from agentcom.journal import journal
from agentcom.nodes import Depart, beat
from agentcom.sockets import CLOSE_RESTART, SocketConsumer, check_origin
from agentcom.writer import writer
from agents.consumers import AgentConsumer, departures, follow_journal
from agents.dispatcher import dispatcher
from dashboard.consumers import DashboardConsumer
from dashboard.group import group
from dashboard.sessions import sessions

logger = logging.getLogger(__name__)

RETRY_S = 1.0
# Allocations until Python looks for cycles among the young objects; how many such looks to one
# among the middle-aged; and to one among all. The last stops the process for 0.12 s with 1,000
# agents, and with Python's own figures (700, 10, 10) came every few seconds.
GC_THRESHOLDS = (10_000, 20, 100)
FAREWELL_S = 8.0  # how long a stopping process may take to say good-bye

api = ApiHandler()


async def http(scope: dict[str, Any], receive: Any, send: Any) -> None:
    is_api = scope["path"].startswith("/api/") or scope["path"] in ("/api", "/health")
    await (api if is_api else pages)(scope, receive, send)


class Process:
    """What runs beside the connections, from the first of them on (ASGI servers vary in offering
    a start-up hook; Daphne has none)."""

    def __init__(self) -> None:
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._running is None:
            gc.set_threshold(*GC_THRESHOLDS)
            self._running = asyncio.get_running_loop().create_task(self._run())
            _before_shutdown(self.stop)

    async def _run(self) -> None:
        journal.listen(follow_journal)
        journal.listen(group.on_events)
        await self._get_ready()
        parts = (journal.run, dispatcher.run, group.run, sessions.run, beat)
        await asyncio.gather(*(_keep_running(part) for part in parts))

    async def _get_ready(self) -> None:
        while True:
            try:
                missing = await queries.run(missing_migrations)
                if not missing:
                    return await journal.start()
                logger.error("The database lacks %d migrations: run `manage.py migrate`", missing)
            except Unavailable:
                logger.warning("Waiting for the database")
            await asyncio.sleep(RETRY_S)

    async def stop(self, sockets: list[SocketConsumer]) -> None:
        """Send everybody away with a hint to come back, commit what waits, and be gone."""
        for socket in sockets:
            await socket.close(CLOSE_RESTART)
        try:
            async with asyncio.timeout(FAREWELL_S):
                await asyncio.gather(*(socket.ended.wait() for socket in sockets))
                await departures.all_recorded()
                await writer.do(Depart())
        except (TimeoutError, Unavailable):
            logger.warning("Stopped before everything was said; the workers will notice")
        if self._running is not None:
            self._running.cancel()


async def _keep_running(part: Callable[[], Awaitable[None]]) -> None:
    """What serves everybody must not end because of somebody."""
    while True:
        try:
            await part()
        except Exception:
            logger.exception("%s failed; it starts again", part.__qualname__)
            await asyncio.sleep(RETRY_S)


process = Process()
routes = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": check_origin(
            URLRouter(
                [
                    path("ws", AgentConsumer.as_asgi()),
                    path("ws/dashboard", DashboardConsumer.as_asgi()),
                ]
            )
        ),
    }
)


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    process.start()
    await routes(scope, receive, send)


def _before_shutdown(stop: Any) -> None:
    """Daphne runs on Twisted's reactor, which waits for the Deferred that a trigger gives."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    def trigger() -> Deferred[None]:
        # the list now: Daphne has just told all applications to end
        return Deferred.fromFuture(asyncio.ensure_future(stop(list(SocketConsumer.open_sockets))))

    reactor.addSystemEventTrigger("before", "shutdown", trigger)
