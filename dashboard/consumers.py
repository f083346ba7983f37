"""The dashboard's socket: `/ws/dashboard`. What it does not understand it ignores in silence."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import Any

import orjson
from django.conf import settings

from agentcom.access import may_look
from agentcom.errors import Refused, Unavailable
from agentcom.sockets import SocketConsumer
from agentcom.writer import writer
from dashboard.group import Viewer, group
from tasks.queue import Retry


class DashboardConsumer(SocketConsumer):
    viewer: Viewer | None = None

    async def connect(self) -> None:
        if not await may_look(_cookies(self.scope)):
            await self.close()  # before it was accepted: 403
            return
        await self.accept()
        self.viewer = group.join(self)

    def gone(self) -> None:
        if self.viewer is not None:
            group.leave(self.viewer)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.viewer is None:
            return
        match _parse(text_data or ""):
            case {"type": "request_snapshot"}:
                group.request_snapshot(self.viewer)
            case {"type": "subscribe", "patches": True}:
                group.subscribe(self.viewer)
            case {"type": "retry_task", "task_id": str(task_id)}:
                await self._retry(task_id)

    async def _retry(self, task_id: str) -> None:
        try:
            await writer.do(Retry(task_id), settings.AGENTCOM_COMMIT_TIMEOUT_S)
            status = "requeued"
        except Unavailable:
            status = "unavailable"
        except Refused:
            status = "not_found"
        await self.send_json({"type": "retry_result", "task_id": task_id, "status": status})


def _parse(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def _cookies(scope: dict[str, Any]) -> dict[str, str]:
    cookies: SimpleCookie = SimpleCookie()
    for name, value in scope["headers"]:
        if name == b"cookie":
            try:
                cookies.load(value.decode("latin-1"))
            except CookieError:
                continue
    return {name: morsel.value for name, morsel in cookies.items()}
