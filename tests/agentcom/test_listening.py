"""An open dashboard is for this machine, unless a setting says otherwise."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from agentcom.listening import is_this_machine, open_fault
from lab.harness.hub import free_port
from lab.harness.store import ROOT, environment

BOUND_S = 60
ANYWHERE = "0.0.0.0"
DAPHNE, UVICORN = ["-m", "daphne", "-v", "0"], ["-m", "uvicorn"]
APPLICATION = "agentcom.asgi:application"
HUB = ["manage.py", "hub"]


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "::ffff:127.0.0.1"]
)
def test_what_is_this_machine(address: str):
    assert is_this_machine(address)


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "::", "", "192.0.2.7", "fe80::1%1", "::ffff:192.0.2.7", "nowhere.invalid"],
)
def test_what_is_not(address: str):
    assert not is_this_machine(address)


def test_all_addresses_count(settings):
    settings.AGENTCOM_DASHBOARD_ACCESS = "open"
    assert open_fault(["127.0.0.1", "::1"]) is None
    assert open_fault([]) is None  # sockets of the file system
    assert "192.0.2.7" in str(open_fault(["127.0.0.1", "192.0.2.7"]))
    settings.AGENTCOM_OPEN_TO_NETWORK = True
    assert open_fault([ANYWHERE]) is None


def test_staff_may_be_anywhere(settings):
    settings.AGENTCOM_DASHBOARD_ACCESS = "staff"
    assert open_fault([ANYWHERE]) is None


def commands(port: int, host: str) -> dict[str, Sequence[str]]:
    number = str(port)
    return {
        "hub": HUB,
        "hub-uvicorn": [*HUB, "--server", "uvicorn"],
        "daphne": [*DAPHNE, "-b", host, "-p", number, APPLICATION],
        "daphne-endpoint": [*DAPHNE, "-e", f"tcp:port={number}:interface={host}", APPLICATION],
        "uvicorn": [*UVICORN, "--host", host, "--port", number, APPLICATION],
    }


WAYS = [*commands(0, "")]


@contextmanager
def running(
    way: str, folder: Path, port: int, host: str, **more: str
) -> Iterator[subprocess.Popen[str]]:
    place = {"AGENTCOM_DATA_DIR": str(folder), "AGENTCOM_PORT": str(port), "AGENTCOM_HOST": host}
    process = subprocess.Popen(
        [sys.executable, *commands(port, host)[way]],
        cwd=ROOT,
        env=environment(**place, **more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.sqlite_only
@pytest.mark.parametrize("way", WAYS)
def test_it_is_refused_at_the_start(way: str, tmp_path: Path):
    with running(way, tmp_path, free_port(), ANYWHERE) as process:
        _, said = process.communicate(timeout=BOUND_S)
        assert process.returncode in (1, 3)
    assert "Traceback" not in said
    assert f"listen on {ANYWHERE}" in said
    for setting in ("AGENTCOM_DASHBOARD_ACCESS=staff", "AGENTCOM_OPEN_TO_NETWORK=true"):
        assert setting in said
    if way.startswith("hub"):
        with closing(sqlite3.connect(tmp_path / "agentcom.sqlite3")) as database:
            assert database.execute("SELECT * FROM sqlite_master").fetchall() == []


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "more",
    [{"AGENTCOM_OPEN_TO_NETWORK": "true"}, {"AGENTCOM_DASHBOARD_ACCESS": "staff"}],
    ids=["meant", "staff"],
)
@pytest.mark.parametrize("way", WAYS)
def test_it_is_served_where_that_is_meant(way: str, tmp_path: Path, more: dict[str, str]):
    port = free_port()
    with running(way, tmp_path, port, ANYWHERE, **more) as process:
        assert answers(process, port)


def answers(process: subprocess.Popen[str], port: int) -> bool:
    until = time.monotonic() + BOUND_S
    while process.poll() is None and time.monotonic() < until:
        with suppress(URLError, ConnectionError), urlopen(f"http://127.0.0.1:{port}/health/live"):
            return True
        time.sleep(0.05)
    return False
