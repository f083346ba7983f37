"""`manage.py export` as a process, on a database that a hub has filled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.harness.hub import Hub
from lab.harness.store import ROOT

COUNT = 3_000  # more than a pipe holds
FILL = f"""
from agentcom.writer import writer
from tasks.queue import NewTask, Submit
for start in range(0, {COUNT}, 1000):
    tasks = [NewTask(f"task {{start + n}} " + "x" * 100) for n in range(1000)]
    writer.commit([Submit(tasks, "boss")])
writer.stop()
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Not running."""
    hub = Hub(tmp_path_factory.mktemp("hub"))
    hub.manage("shell", "-v", "0", "-c", FILL)
    yield hub
    hub.terminate()


def export(hub: Hub, *options: str, **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "manage.py", "export", *options],
        cwd=ROOT,
        env=hub.environment,
        stdout=more.get("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
    )


def refused(hub: Hub, *options: str) -> str:
    process = export(hub, *options)
    out, error = process.communicate(timeout=60)
    assert process.returncode != 0
    assert out == b""
    assert b"Traceback" not in error
    return error.decode()


def numbers(text: bytes) -> list[int]:
    return [int(json.loads(line)["description"].split()[1]) for line in text.splitlines()]


def test_to_standard_output(hub: Hub):
    out, error = export(hub, "--history").communicate(timeout=60)
    assert numbers(out) == list(range(COUNT))
    assert json.loads(out.splitlines()[0])["history"][0]["event"] == "task_submitted"
    assert error == b""


def test_a_reader_that_has_read_enough_ends_it_quietly(hub: Hub):
    with export(hub) as process:
        assert process.stdout
        assert process.stderr
        assert json.loads(process.stdout.readline())["description"].startswith("task 0 ")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 128 + signal.SIGPIPE


def test_to_a_file_that_is_replaced_when_all_is_written(hub: Hub, tmp_path: Path):
    file, link = tmp_path / "tasks.csv", tmp_path / "link.csv"
    file.write_text("of last time")
    link.symlink_to(file)
    with export(hub, "--format", "csv", "--output", str(link)) as process:
        assert process.wait(60) == 0
    assert len(file.read_bytes().splitlines()) == COUNT + 1
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(tmp_path.iterdir()) == [link, file]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_an_export_that_is_ended_leaves_the_file_as_it_was(
    hub: Hub, tmp_path: Path, signum: signal.Signals
):
    file = tmp_path / "tasks.jsonl"
    file.write_text("of last time")
    with export(hub, "--history", "--output", str(file)) as process:
        while not any(tmp_path.glob(".tasks.jsonl.*.partial")):
            assert process.poll() is None
        process.send_signal(signum)
    assert process.returncode != 0
    assert file.read_text() == "of last time"
    left = [path for path in tmp_path.iterdir() if path != file]
    assert all(path.suffix == ".partial" for path in left)
    assert not left or signum == signal.SIGKILL


def test_says_what_it_cannot_do(hub: Hub, tmp_path: Path):
    assert "--history needs JSON" in refused(hub, "--history", "--format", "csv")
    assert "no time in ISO 8601" in refused(hub, "--since", "yesterday")
    assert "invalid choice" in refused(hub, "--status", "lost")
    assert "is not a file" in refused(hub, "--output", os.devnull)
    assert "cannot be written: No such" in refused(hub, "--output", str(tmp_path / "no" / "x"))


def test_a_full_disk_is_one_sentence(hub: Hub):
    with Path("/dev/full").open("wb") as full:
        process = export(hub, stdout=full)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.decode().strip() == (
        "CommandError: Standard output cannot be written: No space left on device."
    )


def test_times_choose(hub: Hub):
    out, _ = export(hub, "--until", "2001-01-31").communicate(timeout=60)
    assert out == b""
    out, _ = export(hub, "--since", "2001-01-31T12:00:00+02:00").communicate(timeout=60)
    assert len(out.splitlines()) == COUNT
