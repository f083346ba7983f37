"""An agent that is driven step by step."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from websockets.exceptions import ConnectionClosed

from agentcom_client import HubError
from agentcom_client.connection import Connection, Message


@dataclass
class Member:
    """It has identified, and does nothing by itself."""

    agent_id: str
    token: str
    skill: str
    connection: Connection
    seen: list[Message]  # every frame from the hub

    @classmethod
    async def join(cls, url: str, agent_id: str, token: str, skill: str, **about: Any) -> Member:
        """`about` is what `identify` takes. Raises `HubError` when the hub refuses it."""
        seen: list[Message] = []
        connection = await Connection.open(url, seen.append)
        member = cls(agent_id, token, skill, connection, seen)
        try:
            await connection.identify(agent_id, token, **{"capabilities": [skill], **about})
        except BaseException:
            await connection.close()
            raise
        return member

    async def leave(self) -> None:
        """Sign off, unless the connection is closed, and close it."""
        with suppress(ConnectionClosed, HubError):
            await self.connection.request("sign_off")
        await self.connection.close()

    async def __aenter__(self) -> Member:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def pushed(self, type: str) -> Message:
        """The next push of this type."""
        while (push := await self.connection.next_push())["type"] != type:
            pass
        return push

    async def assigned(self) -> Message:
        """The next task that the hub pushes."""
        return await self.pushed("task_assign")

    async def accepted(self) -> Message:
        """The next task, accepted."""
        task = await self.assigned()
        await self.say("task_accepted", task)
        return task

    async def say(self, type: str, task: Message, **fields: Any) -> Message:
        """Send a message about a task, with its generation, and give the answer."""
        about = {"task_id": task["task_id"], "generation": task["generation"]}
        return await self.connection.request(type, **{**about, **fields})

    async def say_raw(self, text: str) -> Message:
        """Send a frame as it is, and give the answer, an error too."""
        await self.connection.socket.send(text)
        return await self.connection.next_push()
