"""docs/webhooks.md is true: its receiver runs, its example and its types are those of the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from lab.harness.hub import Hub, free_port
from lab.harness.store import ROOT
from tests.test_docs import blocks, table_rows
from tests.webhooks.receiver import receiving
from webhooks.kinds import TYPES

pytestmark = pytest.mark.sqlite_only

PAGE = (ROOT / "docs/webhooks.md").read_text()
BOUND_S = 30.0


def test_every_type_is_named():
    rows = [row[0].strip("`") for row in table_rows(PAGE, "Types")]
    assert rows == list(TYPES.values())


def do_a_task(hub: Hub, token: str) -> None:
    with connect(hub.ws_url) as socket:
        socket.send(json.dumps({"type": "identify", "token": token}))
        while (frame := json.loads(socket.recv(BOUND_S)))["type"] != "task_assign":
            pass
        socket.send(json.dumps({**frame, "type": "task_complete", "result": {"heard": "hello"}}))
        while json.loads(socket.recv(BOUND_S))["type"] != "task_ack":
            pass


def test_the_receiver_and_the_example(tmp_path: Path):
    port = free_port()
    program = tmp_path / "receiver.py"
    program.write_text(blocks(PAGE, "python")[0].replace("8000", str(port)))
    with (
        receiving() as other,
        Hub(tmp_path / "hub", AGENTCOM_WEBHOOK_ALLOW_PRIVATE="true") as hub,
    ):
        added = hub.manage("webhook", "add", f"http://127.0.0.1:{port}/hook")
        hub.manage("webhook", "add", other.url)
        environment = {**os.environ, "WEBHOOK_SECRET": added.split()[1]}
        running = subprocess.Popen(
            [sys.executable, program], env=environment, stdout=subprocess.PIPE, text=True
        )
        try:
            until_it_listens(port)
            token = hub.token("a-1")
            task = {"description": "Say hello"}
            headers = {"Authorization": f"Bearer {token}"}
            answer = httpx.post(f"{hub.url}/api/tasks", json=task, headers=headers)
            task_id = answer.json()["task_id"]
            do_a_task(hub, token)
            assert running.stdout is not None
            assert running.stdout.readline() == f"{task_id} {{'heard': 'hello'}}\n"
            assert hub.manage("webhook", "test", added.split()[0]).startswith("Delivered")
        finally:
            running.terminate()
            running.communicate(timeout=BOUND_S)
        [told] = other.wait(1)
    example = json.loads(blocks(PAGE, "json")[0])
    assert told.json.keys() == example.keys()
    assert told.data.keys() == example["data"].keys()
    assert told.data["task"].keys() == example["data"]["task"].keys()


def until_it_listens(port: int) -> None:
    give_up_at = time.monotonic() + BOUND_S
    while True:
        try:
            answer = httpx.post(f"http://127.0.0.1:{port}/hook", json={}, timeout=5)
        except httpx.TransportError:
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
            continue
        assert answer.status_code == 401  # it is not signed
        return
