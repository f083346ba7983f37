"""`manage.py hub --login`: the client of the same user can connect at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentcom_client import Hub
from lab.harness.hub import free_port
from lab.harness.store import ROOT


@contextmanager
def started(folder: Path, port: int, *options: str) -> Iterator[str]:
    """Until it listens; gives what it has said."""
    hub = subprocess.Popen(
        [sys.executable, "manage.py", "hub", *options],
        cwd=ROOT,
        env={
            "AGENTCOM_DATA_DIR": str(folder / "data"),
            "AGENTCOM_PORT": str(port),
            "AGENTCOM_CONFIG": str(folder / "client.json"),
            "DATABASE_URL": "",
            "REDIS_URL": "",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert hub.stdout is not None
        said = ""
        while "Ctrl-C ends it" not in said:
            line = hub.stdout.readline()
            assert line, said
            said += line
        yield said
    finally:
        hub.send_signal(signal.SIGTERM)
        hub.communicate(timeout=20)
    assert hub.returncode == 0


def test_it_makes_a_token_once_and_keeps_it_for_the_client(tmp_path: Path):
    file, port = tmp_path / "client.json", free_port()
    with started(tmp_path, port, "--login", "first"):
        saved = json.loads(file.read_text())
        assert saved["url"] == f"http://127.0.0.1:{port}"
        with Hub(saved["url"], saved["token"]) as client:
            assert client.whoami()["name"] == "first"
    with started(tmp_path, port, "--login", "second") as said:
        assert "from now on" not in said
    assert json.loads(file.read_text()) == saved
    file.write_text(json.dumps({**saved, "token": "of another hub"}))
    with started(tmp_path, port, "--login") as said:
        assert "agentcom-client is my-agent from now on" in said
    assert json.loads(file.read_text())["token"] != "of another hub"


def test_without_it_nothing_is_kept(tmp_path: Path):
    with started(tmp_path, free_port()):
        pass
    assert not (tmp_path / "client.json").exists()
