"""One open socket to a hub: messages and their answers, and what the hub pushes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from agentcom_client.errors import HubError, Unavailable

logger = logging.getLogger(__name__)

Message = dict[str, Any]
Observer = Callable[[Message], None]

PUSHES = frozenset({"task_assign", "task_cancel", "agent_joined", "agent_left", "status_changed"})


class Connection:
    """One open socket. `request` sends a message and waits for its answer; answers arrive in order.
    `next_push` waits for what the hub sends unasked. Once the socket is closed, all of these raise
    `ConnectionClosed`.
    """

    def __init__(self, socket: ClientConnection, observe: Observer | None = None) -> None:
        self.socket = socket
        self._observe = observe
        self._waiting: deque[asyncio.Future[Message]] = deque()
        self._pushes: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, url: str, observe: Observer | None = None) -> Connection:
        # Frames are small: compressing them costs more memory per agent than it saves.
        return cls(await connect(url, compression=None, open_timeout=30), observe)

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.socket.close()
        await self._reader

    def cut(self) -> None:
        """Drop the connection without a close frame, as a crash or a lost network does."""
        self.socket.transport.abort()

    async def identify(self, agent_id: str | None, token: str, **about: Any) -> Message:
        """Without `agent_id` the hub takes the agent whose token it is.

        `about`: slot, name, status, capabilities, presence, accepts. Raises `HubError` on a wrong
        token.
        """
        return await self.request("identify", agent_id=agent_id, token=token, **about)

    async def send(self, type: str, **fields: Any) -> None:
        await self.socket.send(_frame(type, fields))

    async def request(self, type: str, **fields: Any) -> Message:
        """Raises `HubError` when the answer is an error, `Unavailable` when a retry may succeed."""
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        frame = _frame(type, fields)
        self._waiting.append(answer)
        try:
            await self.socket.send(frame)
        except ConnectionClosed:
            answer.cancel()  # nobody will wait for it
            raise
        message = await answer
        if message["type"] == "error":
            code: str = message["error"]
            if code.endswith("unavailable"):
                raise Unavailable(code)
            raise HubError(code, message.get("detail"))
        if detail := message.get("detail"):  # what the hub cut or left out
            logger.warning("%s of %s: %s", type, fields.get("task_id"), detail)
        return message

    async def next_push(self) -> Message:
        push = await self._pushes.get()
        if isinstance(push, Exception):
            self._pushes.put_nowait(push)
            raise push
        return push

    async def _read(self) -> None:
        try:
            while True:
                self._deliver(json.loads(await self.socket.recv()))
        except Exception as gone:  # whatever the cause, no caller may be left waiting for an answer
            self._pushes.put_nowait(gone)
            for answer in self._waiting:
                if not answer.done():
                    answer.set_exception(gone)

    def _deliver(self, message: Message) -> None:
        if self._observe:
            self._observe(message)
        if not self._waiting or message["type"] in PUSHES or _is_about_progress(message):
            self._pushes.put_nowait(message)
        elif not (answer := self._waiting.popleft()).done():
            answer.set_result(message)


def encode(message: Message) -> str:
    return json.dumps(message, allow_nan=False, separators=(",", ":"))


def _frame(type: str, fields: Message) -> str:
    return encode(
        {"type": type, **{name: value for name, value in fields.items() if value is not None}}
    )


def _is_about_progress(message: Message) -> bool:
    """A progress report has no answer; its error must not be taken for another message's answer."""
    return message["type"] == "error" and str(message["error"]).startswith("task_progress_failed")
