"""Programs that wait for the ends of tasks, and lose their sockets now and then."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

import orjson

from lab.kit.sockets import Message, WebSocket
from lab.torture.agents import LOSSES
from lab.torture.ledger import ANSWERS, TOLD, Ledger

LOST_EVERY_S = 12.0  # on average
LOOK_EVERY_S = 0.2  # for tasks that were submitted meanwhile
PAUSE_S = 0.5
AT_ONCE = 500
ENDS = ("completed", "cancelled", "dead_letter")


class ChaosWaiter:
    """Waits for every task that was acked, until it was told of its end."""

    _socket: WebSocket
    _is_known = False  # it has identified itself, and may watch

    def __init__(
        self,
        seed: int,
        name: str,
        token: str,
        next_port: Callable[[], int],
        ledger: Ledger,
        calmed: asyncio.Event,
    ) -> None:
        self.name = name
        self._token = token
        self._next_port = next_port
        self._ledger = ledger
        self._calmed = calmed
        self._chance = random.Random(f"{seed} {name}")
        self._waiting: set[str] = set()  # on the present socket
        self.told: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with suppress(*LOSSES):
                await self._wait()
            self._ledger.done["waiters came back"] += 1
            await asyncio.sleep(PAUSE_S)

    async def until_told(self) -> None:
        """Until it has been told of all that was acked."""
        while self.missing:  # noqa: ASYNC110 – it follows a socket
            await asyncio.sleep(LOOK_EVERY_S)

    @property
    def missing(self) -> set[str]:
        return {id_ for ids in self._ledger.keys.values() for id_ in ids} - self.told

    async def _wait(self) -> None:
        socket = await WebSocket.connect(self._next_port(), "/ws/tasks", self._on_text)
        self._socket = socket
        self._waiting, self._is_known = set(), False
        socket.send(type="identify", token=self._token)
        lost_at = asyncio.get_running_loop().time() + self._chance.expovariate(1 / LOST_EVERY_S)
        while not socket.closed.done():
            # Calm, it depends on what it is told: watching anew would find what had ended before.
            if asyncio.get_running_loop().time() > lost_at and not self._calmed.is_set():
                socket.close()
                return
            new = list(self.missing - self._waiting)[:AT_ONCE] if self._is_known else []
            if new:
                self._waiting.update(new)
                socket.send(type="watch", task_ids=new)
            await asyncio.wait([socket.closed], timeout=LOOK_EVERY_S)

    def _on_text(self, text: bytes) -> None:
        message: Message = orjson.loads(text)
        match message:
            case {"type": "task_ended", "task": {"id": task_id, "status": status}}:
                if status not in ENDS:
                    self._ledger.breaks(TOLD, f"{self.name} was told of {status}", task_id)
                if task_id not in self._waiting:
                    text_ = f"{self.name} was told of an end that it does not wait for"
                    self._ledger.breaks(TOLD, text_, task_id)
                self._waiting.discard(task_id)
                self.told.add(task_id)
                self._ledger.told.append((status, task_id))
            case {"type": "identified"}:
                self._is_known = True
            case {"type": "watching"}:
                pass
            case {"type": "error", "error": "unavailable"} if self._is_known:
                self._waiting.clear()  # the message is sent again
            case {"type": "error", "error": "unavailable"}:
                self._socket.close()  # the next one identifies itself
            case _:
                self._ledger.breaks(ANSWERS, f"{self.name} was told {message}")
