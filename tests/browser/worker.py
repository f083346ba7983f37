"""An agent that does what the test tells it, step by step."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import httpx
from websockets.sync.client import connect

from lab.harness.hub import Hub

ANSWER_TIMEOUT_S = 20


class Worker:
    """Connected and identified inside its with-block; every call returns once the hub has acked."""

    def __init__(self, hub: Hub, agent_id: str, **about: Any) -> None:
        self.hub = hub
        self.agent_id = agent_id
        self.about = about
        self.token = hub.token(agent_id)

    def __enter__(self) -> Worker:
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect(self.hub.ws_url, compression=None))
        self._ask("identify", agent_id=self.agent_id, token=self.token, **self.about)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def submit(self, description: str, **fields: Any) -> str:
        """Put a task into the queue; its id."""
        answer = httpx.post(
            f"{self.hub.url}/api/tasks",
            json={"description": description, **fields},
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=ANSWER_TIMEOUT_S,
        )
        answer.raise_for_status()
        task_id: str = answer.json()["task_id"]
        return task_id

    def take(self) -> dict[str, Any]:
        """Accept the next task that the hub assigns."""
        task = self._receive("task_assign")
        self._ask("task_accepted", task_id=task["task_id"], generation=task["generation"])
        return task

    def complete(self, task: dict[str, Any], **result: Any) -> None:
        self._end("task_complete", task, result={"done": True}, **result)

    def fail(self, task: dict[str, Any], error: str) -> None:
        self._end("task_failed", task, error=error)

    def complete_too_late(self, task: dict[str, Any]) -> None:
        """The hub refuses it."""
        about = {"task_id": task["task_id"], "generation": task["generation"], "result": {}}
        self._socket.send(json.dumps({"type": "task_complete", **about}))
        while (answer := json.loads(self._socket.recv(ANSWER_TIMEOUT_S)))["type"] != "error":
            pass
        assert answer["error"] == "task_complete_failed: stale_generation"

    def _end(self, type: str, task: dict[str, Any], **outcome: Any) -> None:
        self._ask(type, task_id=task["task_id"], generation=task["generation"], **outcome)

    def _ask(self, type: str, **fields: Any) -> dict[str, Any]:
        self._socket.send(json.dumps({"type": type, **fields}))
        return self._receive("identified" if type == "identify" else "task_ack")

    def _receive(self, type: str) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(self._socket.recv(ANSWER_TIMEOUT_S))
            assert message["type"] != "error", message
            if message["type"] == type:
                return message
