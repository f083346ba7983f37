"""The web process: HTTP, all sockets, and what runs beside them. The composition root.

Run by `daphne agentcom.asgi:application` or `uvicorn agentcom.asgi:application`, or with a worker
inside by `manage.py hub`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentcom.settings")

from agentcom import shutdown
from agentcom.signals import end_at_once, is_server_command

if is_server_command():
    end_at_once()

from django.core.asgi import get_asgi_application

pages = get_asgi_application()  # Django is set up from here on

from agentcom.checks import refuse_bad_settings

refuse_bad_settings()

from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.http import parse_cookie
from django.urls import path as at
from django.urls import re_path as anywhere

from agentcom import one_core
from agentcom.access import has_session
from agentcom.api import ApiHandler, Send, error_answer, is_for_api
from agentcom.audit.gathered import gathered
from agentcom.config import start_refusal
from agentcom.database import queries, readiness
from agentcom.descriptors import open_files
from agentcom.errors import Unavailable
from agentcom.faults import as_detail, database_fault, schema_fault
from agentcom.journal import journal
from agentcom.listening import open_fault
from agentcom.nodes import RemoveNode, send_heartbeats
from agentcom.servers import daphne, running, uvicorn
from agentcom.sockets import ClosedDoors, NoSuchSocket, SocketConsumer
from agentcom.writer import writer
from dashboard.consumers import DashboardConsumer
from dashboard.group import group
from dashboard.live import live
from dashboard.sessions import sessions
from fleet.api import unhealthy
from fleet.authentication import bearer
from fleet.consumers import AgentConsumer, departures, follow_journal
from fleet.dispatcher import Dispatch, dispatcher
from fleet.outcomes import OutcomeConsumer, watchers
from fleet.token_uses import token_uses
from fleet.tokens import token_check
from metrics.counted import followed, groups
from tasks import facts
from tasks.timer import timer

Scope = dict[str, Any]

logger = logging.getLogger(__name__)

RETRY_S = 1.0
# Thresholds of Python's garbage collector for its three generations. A full collection stops the
# process for 0.12 s with 1,000 agents; with Python's defaults (700, 10, 10) there was one every few
# seconds.
GC_THRESHOLDS = (10_000, 20, 100)
# Timeouts from SIGTERM on: for the requests that are being answered, and for the whole graceful
# stop. Shorter than `shutdown.FORCED_EXIT_S`.
FINISH_REQUESTS_S, GRACEFUL_STOP_S = 4.0, 6.0
TRAFFIC_PROBES = ("/health", "/health/ready")  # ask whether to send it traffic
NO_LIFESPAN = "the hub was started without its lifespan: uvicorn must not have `--lifespan off`"

api = ApiHandler()


class Process:
    """What runs beside the connections, from the start of a web process to its end.

    1. While it is loaded, SIGTERM, Ctrl-C and a hangup end it at once (signals.py).
    2. The server listens, and `start` is called. From here on these signals call `_begin_stop`
       (`on_stop_signal` in shutdown.py).
    3. `_get_ready` waits until the database answers and is migrated, and the journal has begun.
       Until then callers get 503.
    4. `send_heartbeats` (nodes.py) adds the process's row, a `Node`, and refreshes it every second.
       If the row is too old, a worker considers the process dead and marks its agents offline.
    5. `_begin_stop`: new connections are refused, the probes of load balancers and orchestrators
       get 503, and each socket is closed once its current message is answered.
    6. `_end`: pending requests are answered, all sockets are closed, and the disconnects are
       committed. Finally `RemoveNode` (nodes.py) deletes the row, so that no worker waits for it.
    7. The server ends. A second signal skips to this step, and `arm_forced_exit` ends a process
       that hangs.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._running: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        if self._running is None:
            _refuse_open_network()
            gc.set_threshold(*GC_THRESHOLDS)
            readiness.is_starting = True
            self._running = asyncio.get_running_loop().create_task(self._run())
            if running.server is not None:
                shutdown.on_stop_signal(self._begin_stop, running.server.end)

    async def http(self, scope: Scope, receive: Any, send: Send) -> None:
        """Answer a request. While the process stops, requests still arrive over existing
        connections; their clients are asked to close them."""

        async def send_last(message: Mapping[str, Any]) -> None:
            if self.stopping and message["type"] == "http.response.start":
                headers = (*message.get("headers", ()), (b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            path = own_path(scope["path"])
            if self.stopping and path in TRAFFIC_PROBES:
                await api.send_response(unhealthy("this process stops"), send_last)
            else:
                answer = api if is_for_api(path) else pages
                await answer(scope, receive, send_last)
        finally:
            self._answering.discard(task)

    async def _run(self) -> None:
        writer.end_groups_with(Dispatch(dispatcher), dispatcher.committed)
        journal.listen(follow_journal)
        journal.listen(watchers.on_events)
        journal.listen(timer.on_events)
        journal.complete_with(facts.complete)
        journal.listen(live.on_events)
        journal.listen(group.on_events)
        journal.listen(followed.on_events)
        writer.watch_groups(groups.on_group)
        await self._get_ready()
        parts = [
            journal.run,
            dispatcher.run,
            timer.run,
            live.run,
            group.run,
            sessions.run,
            token_uses.run,
            gathered.run,
            send_heartbeats,
            open_files.watch,
        ]
        if one_core.is_of_use():
            parts.append(one_core.OneCore(lambda: writer.thread_number).run)
        await asyncio.gather(*(_keep_running(part) for part in parts))

    async def _get_ready(self) -> None:
        while fault := await self._fault_at_start():
            readiness.fault = fault
            await asyncio.sleep(RETRY_S)
        readiness.fault, readiness.is_starting = "", False

    async def _fault_at_start(self) -> str | None:
        """None once the journal has begun."""
        try:
            fault = await queries.run_in_any_case(schema_fault)
            if fault is None:
                await journal.start()
                return None
            logger.error("%s", fault)
            return as_detail(fault)
        except Unavailable as error:
            reason = await asyncio.to_thread(database_fault, error.__cause__)
            logger.warning("Waiting for the database. %s", reason or "It does not answer.")
            return error.detail

    def _begin_stop(self) -> None:
        self.stopping = True
        shutdown.arm_forced_exit()
        server = running.server
        assert server is not None
        server.stop_listening()
        SocketConsumer.dismiss_all()
        self._ending = asyncio.get_running_loop().create_task(self._end())
        self._ending.add_done_callback(lambda _: server.end())

    async def _end(self) -> None:
        """Finish the requests, close the sockets, commit what is waiting."""
        try:
            async with asyncio.timeout(GRACEFUL_STOP_S):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._all_idle(), FINISH_REQUESTS_S)
                await SocketConsumer.close_all()
                await departures.all_recorded()
                await token_uses.commit()
                await gathered.commit()
                await writer.do(RemoveNode())
        except (TimeoutError, Unavailable):
            logger.warning("Stopped before everything was committed; the workers will clean up")
        if self._running is not None:
            self._running.cancel()

    async def _all_idle(self) -> None:
        while self._answering:
            await asyncio.wait(self._answering)
        await SocketConsumer.all_closed()


def _refuse_open_network() -> None:
    """End the process if it serves an open dashboard to other machines. Daphne listens already when
    it can be asked, but nobody was answered yet; with uvicorn this was checked before."""
    if running.server is None or not (fault := open_fault(running.server.addresses())):
        return
    print(start_refusal(fault), file=sys.stderr, flush=True)
    os._exit(1)  # not an exception: Twisted would log it and go on


async def _keep_running(part: Callable[[], Awaitable[None]]) -> None:
    """Restart the part whenever it fails: one client must not end what serves all of them."""
    while True:
        try:
            await part()
        except Exception:
            logger.exception("%s failed; it starts again", part.__qualname__)
            await asyncio.sleep(RETRY_S)


process = Process()
routes = ProtocolTypeRouter(
    {
        "http": process.http,
        "websocket": ClosedDoors(
            URLRouter(
                [
                    at("ws", AgentConsumer.as_asgi()),
                    at("ws/tasks", OutcomeConsumer.as_asgi()),
                    at("ws/dashboard", DashboardConsumer.as_asgi()),
                    anywhere("", NoSuchSocket.as_asgi()),
                ]
            )
        ),
    }
)


async def application(scope: Scope, receive: Any, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif "state" in scope:
        await _refuse(scope, receive, send)
    else:
        process.start()
        await routes(under_prefix(scope), receive, send)


async def _live(receive: Any, send: Send) -> None:
    """What uvicorn asks for before it listens, and when it ends; Daphne does not."""
    await receive()
    try:
        running.set_server(uvicorn.Uvicorn(application, is_known))
    except uvicorn.CannotServeError as error:
        return await send({"type": "lifespan.startup.failed", "message": str(error)})
    process.start()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
    return None


async def _refuse(scope: Scope, receive: Any, send: Send) -> None:
    """Of a connection that is uvicorn's own, without limits; only their scopes have a `state`."""
    if scope["type"] == "http":
        await api.send_response(error_answer(Unavailable(NO_LIFESPAN)), send)
    else:
        await receive()
        await send({"type": "websocket.close"})


def under_prefix(scope: Scope) -> Scope:
    """The scope with `root_path` as ASGI defines it, whether or not the proxy strips the prefix."""
    prefix = settings.AGENTCOM_PATH_PREFIX
    if not prefix or "path" not in scope:
        return scope
    return {**scope, "root_path": prefix, "path": prefix + own_path(scope["path"])}


def own_path(path: str) -> str:
    """The path without the prefix."""
    prefix = settings.AGENTCOM_PATH_PREFIX
    if prefix and (path + "/").startswith(prefix + "/"):
        return path[len(prefix) :] or "/"
    return path


async def is_known(authorization: str, cookie: str) -> bool:
    """Whether a request with these headers may send a large body. Raises `Unavailable`."""
    token = bearer(authorization)
    if token and await token_check.caller(token) is not None:
        return True
    return await has_session(parse_cookie(cookie))


if daphne.is_running():
    under_daphne = daphne.Daphne(is_known)
    running.set_server(under_daphne)
    under_daphne.call_soon(process.start)  # rather than with the first connection
