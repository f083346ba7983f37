"""Somebody who submits tasks and makes sure that none is lost."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from typing import Any

import httpx

PAUSE_S = 0.05


class Submitter:
    """As a careful client does it: on a 503 or a lost connection the same again, with the same
    key, at the next of its addresses. Until `stop`, or until `limit` tasks are acked.

    Each task has another description. `fields` are what all tasks have beside it.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        token: str,
        batch: int = 1,
        limit: int | None = None,
        **fields: Any,
    ) -> None:
        self.acked: list[str] = []  # task ids
        self.refused: list[httpx.Response] = []
        self._urls = cycle([urls] if isinstance(urls, str) else urls)
        self._url = next(self._urls)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._batch = batch
        self._limit = limit
        self._fields = fields
        self._enough = asyncio.Event()
        self.finished = asyncio.Event()

    async def run(self) -> None:
        async with httpx.AsyncClient(headers=self._headers, timeout=30) as http:
            while size := self._next_size():
                await self._submit(http, size, key=secrets.token_hex(8))
                await asyncio.sleep(PAUSE_S)
        self.finished.set()

    async def stop(self) -> None:
        """Return once what was begun is acked."""
        self._enough.set()
        await self.finished.wait()

    def _next_size(self) -> int:
        if self._enough.is_set():
            return 0
        if self._limit is None:
            return self._batch
        return min(self._batch, self._limit - len(self.acked))

    async def _submit(self, http: httpx.AsyncClient, size: int, key: str) -> None:
        tasks = [{"description": f"{key}/{number}", **self._fields} for number in range(size)]
        while not await self._post(http, tasks, key):
            self._url = next(self._urls)
            await asyncio.sleep(PAUSE_S)

    async def _post(self, http: httpx.AsyncClient, tasks: list[dict[str, Any]], key: str) -> bool:
        """Give whether it was acked."""
        headers = {"Idempotency-Key": key}
        with suppress(httpx.TransportError):
            answer = await http.post(f"{self._url}/api/tasks", json=tasks, headers=headers)
            if answer.status_code == 201:
                self.acked += [receipt["task_id"] for receipt in answer.json()["tasks"]]
                return True
            assert answer.status_code == 503, answer.text
            self.refused.append(answer)
        return False
