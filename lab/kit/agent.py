"""An agent that costs little, for many of them in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from lab.kit.sockets import CONNECT_TIMEOUT_S, Failed, Message, WebSocket

Assigned = Callable[[Message, float], None]
Completed = Callable[[str, float], None]
Rejects = Callable[[Message], bool]


class RawAgent:
    """Accepts what it is given and completes it as soon as the hub has acked that.

    `assigned` gets each assignment, `completed` the id of each task whose end was acked; both with
    the time of arrival (s, of `time.perf_counter`). With `holds` it never completes, with `listens`
    it stops at once when a task is cancelled, and it hands back the tasks that it `rejects`.
    """

    def __init__(
        self,
        agent_id: str,
        token: str,
        capabilities: Sequence[str] = (),
        assigned: Assigned | None = None,
        completed: Completed | None = None,
        holds: bool = False,
        listens: bool = False,
        rejects: Rejects = lambda _: False,
    ) -> None:
        self.agent_id = agent_id
        self.token = token
        self.capabilities = list(capabilities)
        self.holds = holds
        self.listens = listens
        self.rejects = rejects
        self.heard = 0  # frames from the hub
        self._assigned = assigned
        self._completed = completed
        self._generation = 0
        self._identified: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def join(self, port: int) -> None:
        """Connect and identify. Raises `Failed`."""
        self.socket = await WebSocket.connect(port, "/ws", self._on_text)
        self.socket.send(
            type="identify",
            agent_id=self.agent_id,
            token=self.token,
            capabilities=self.capabilities,
            accepts=["cancel"] if self.listens else [],
        )
        await asyncio.wait_for(self._identified, CONNECT_TIMEOUT_S)

    def close(self) -> None:
        self.socket.close()

    def _on_text(self, text: bytes) -> None:
        message: Message = orjson.loads(text)
        self.heard += 1
        match message["type"]:
            case "task_assign":
                if self._assigned is not None:
                    self._assigned(message, time.perf_counter())
                self._generation = message["generation"]
                rejected = self.rejects(message)
                self._tell("task_rejected" if rejected else "task_accepted", message["task_id"])
            case "task_cancel":
                self._tell("task_cancelled", message["task_id"])
            case "task_ack" if message["status"] == "accepted":
                if not self.holds:
                    self._tell("task_complete", message["task_id"], result={"ok": True})
            case "task_ack" if message["status"] != "requeued":
                if self._completed is not None:
                    self._completed(message["task_id"], time.perf_counter())
            case "identified":
                self._identified.set_result(None)
            case "error":
                raise Failed(f"{self.agent_id}: {message}")

    def _tell(self, type: str, task_id: str, **more: Any) -> None:
        self.socket.send(type=type, task_id=task_id, generation=self._generation, **more)
