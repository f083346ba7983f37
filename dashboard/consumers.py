"""The dashboard's socket: `/ws/dashboard`. Messages that it does not understand are ignored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

import orjson
from django.conf import settings

from agentcom.access import FORBIDDEN, SESSION_ENDED, actor_of, may_see_dashboard
from agentcom.clock import clock
from agentcom.database import millis
from agentcom.errors import Refused
from agentcom.sockets import SocketConsumer
from agentcom.wire import fault
from agentcom.work import Command
from agentcom.writer import writer
from dashboard.group import Viewer, group
from dashboard.sessions import sessions
from fleet.presence import Forget
from tasks.steering import Retry

CLOSE_SESSION_ENDED = 4403


class DashboardConsumer(SocketConsumer):
    viewer: Viewer | None = None
    cookies: Mapping[str, str] = {}

    async def connect(self) -> None:
        self.cookies = _cookies(self.scope)
        if not await may_see_dashboard(self.cookies):
            await self.close()  # not accepted yet, so the client gets a 403
            return
        await self.accept()
        sessions.join(self)
        self.viewer = group.join(self)

    def gone(self) -> None:
        sessions.leave(self)
        if self.viewer is not None:
            group.leave(self.viewer)
            self.viewer = None

    async def end_session(self) -> None:
        """The login behind this socket has ended. From now on it receives and does nothing."""
        if self.viewer is not None:
            group.leave(self.viewer)
            self.viewer = None
        await self.send_json({"type": "session_ended"})
        await self.close(CLOSE_SESSION_ENDED)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.viewer is None:
            return
        match _parse(text_data or ""):
            case {"type": "ping"}:
                await self.send_json({"type": "pong", "timestamp": millis(clock.now())})
            case {"type": "request_snapshot"}:
                group.request_snapshot(self.viewer)
            case {"type": "subscribe", "patches": True}:
                group.subscribe(self.viewer)
            case {"type": "retry_task", "task_id": str(task_id)}:
                await self._act(
                    "tasks.change_task",
                    lambda actor: Retry(task_id, actor),
                    {"type": "retry_result", "task_id": task_id, "status": "requeued"},
                )
            case {"type": "forget_agent", "agent_id": str(agent_id)}:
                await self._act(
                    "agents.change_agent",
                    lambda actor: Forget(agent_id, actor),
                    {"type": "forget_result", "agent_id": agent_id, "status": "forgotten"},
                )

    async def _act(
        self, permission: str, command: Callable[[str], Command], done: dict[str, str]
    ) -> None:
        """Run the command as the viewer. The answer is `done`, or the code of the refusal.

        The permission is checked each time, so withdrawing it takes effect at once.
        """
        try:
            actor = await actor_of(self.cookies, permission)
            await writer.do(command(actor), settings.AGENTCOM_COMMIT_TIMEOUT_S)
        except Refused as refused:
            if refused.code == SESSION_ENDED:
                sessions.leave(self)
                await self.end_session()
                return
            done = {**done, "status": refused.code}
            if refused.code == FORBIDDEN:
                done["detail"] = refused.detail
        await self.send_json(done)


def _parse(text: str) -> Any:
    """None if it is not JSON, or contains what a database cannot store."""
    try:
        frame = orjson.loads(text)
    except ValueError:
        return None
    return frame if fault(frame) is None else None


def _cookies(scope: dict[str, Any]) -> dict[str, str]:
    cookies: SimpleCookie = SimpleCookie()
    for name, value in scope["headers"]:
        if name == b"cookie":
            try:
                cookies.load(value.decode("latin-1"))
            except CookieError:
                continue
    return {name: morsel.value for name, morsel in cookies.items()}
