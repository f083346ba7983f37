"""A wire that can be cut: a TCP proxy between a hub and its PostgreSQL or Redis."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from lab.kit.sockets import HOST

CHUNK = 65_536
PORTS = {"postgres": 5432, "postgresql": 5432, "redis": 6379}  # where a URL names none


class Proxy:
    """Passes bytes to `host`:`port` until it is told otherwise, in a thread of its own.

    Its methods return once their effect is there, and may be called from any thread. A with-block
    ends it; so does `close`.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._flowing = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.port = 0
        self.restore()

    @classmethod
    def before(cls, url: str) -> Proxy:
        """A proxy to where the URL points."""
        parts = urlsplit(url)
        return cls(parts.hostname or HOST, parts.port or PORTS[parts.scheme])

    def through(self, url: str) -> str:
        """The URL with this proxy as its host and port."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}{HOST}:{self.port}"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cut(self) -> None:
        """Break all connections; new ones are welcome."""
        self._run(self._cut())

    def refuse(self) -> None:
        """Break all connections and let nobody connect, as when the server is down."""
        self._run(self._refuse())

    def stall(self) -> None:
        """Keep connections and take new ones, but let no byte pass, as when packets get lost."""
        self._run(self._stall())

    def restore(self) -> None:
        self._run(self._restore())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, act: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(act, self._loop).result()

    async def _cut(self) -> None:
        broken = list(self._connections)
        for connection in broken:
            connection.cancel()
        await asyncio.gather(*broken, return_exceptions=True)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _stall(self) -> None:
        await self._listen()
        self._flowing.clear()

    async def _restore(self) -> None:
        await self._listen()
        self._flowing.set()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, HOST, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        ends = [writer]
        try:
            await self._flowing.wait()
            back, onward = await asyncio.open_connection(*self._target)
            ends.append(onward)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, onward))
                both.create_task(self._pass(back, writer))
        except* (OSError, asyncio.CancelledError):
            pass  # it is over, for whatever reason
        finally:
            self._connections.discard(connection)
            for end in ends:
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError  # when one side ends, so does the other
