"""Schemathesis calls a hub in every way that its schema allows or forbids, and finds nothing.

tests/fuzz has its configuration, and what it has to know besides the schema.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from lab.harness.hub import Hub
from lab.harness.store import ROOT

pytestmark = pytest.mark.bound_s(300)

CONFIG = ROOT / "tests/fuzz/schemathesis.toml"
KNOWN = "reviewer-1"  # the agent that the schema's examples name
# Prints the key of a session of somebody who may see everything.
ENROL = """
from agentcom.rights import Grant
from agentcom.writer import writer
from fleet.enrolment import issue_code
print(*(issue_code("enrolled", Grant(), 3600) for _ in range(100)))
writer.stop()
"""
LOG_IN = """
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
user = User.objects.create_superuser("viewer", password="correct horse")
session = import_module(settings.SESSION_ENGINE).SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
print(session.session_key)
"""


def fuzz(
    hub: Hub,
    folder: Path,
    *arguments: str,
    token: str,
    session: str = "none",
    codes: str = "",
) -> dict[str, Any]:
    """Schemathesis's own report of its run."""
    report = folder / "report.json"
    command = ("-m", "schemathesis.cli", "--config-file", str(CONFIG), "run")
    reporting = ("--report", "json", "--report-json-path", str(report), "--no-color")
    done = subprocess.run(
        [sys.executable, *command, f"{hub.url}/api/schema", *reporting, *arguments],
        cwd=folder,  # it keeps a folder of its own where it is run
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
            "TOKEN": token,
            "SESSION": session,
            "CODES": codes,
        },
        capture_output=True,
        text=True,
    )
    assert report.exists(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    assert done.returncode == 0, done.stdout
    return found


def assert_nothing_found(report: dict[str, Any], at_least: int) -> None:
    calls = report["test_cases"]["generated"]
    print(f"{calls} calls in {report['running_time']:.0f} s")
    assert report["complete"]
    assert (report["failures"], report["errors"]) == ([], [])
    ended = {name: phase["status"] for name, phase in report["phases"].items()}
    assert {ended.pop("examples"), ended.pop("coverage"), ended.pop("fuzzing")} == {"success"}
    assert ended["stateful"] in ("success", "skip")  # of calls that only read there is none
    assert calls >= at_least


def be_known(hub: Hub, token: str) -> None:
    with connect(hub.ws_url) as socket:
        for frame in (
            {"type": "identify", "agent_id": KNOWN, "token": token},
            {"type": "sign_off"},
        ):
            socket.send(json.dumps(frame))
            assert json.loads(socket.recv(20))["type"] != "error"


def test_every_call_with_a_token(hub: Hub, tmp_path: Path):
    token = hub.token(KNOWN)
    be_known(hub, token)
    report = fuzz(hub, tmp_path, token=token, codes=hub.manage("shell", "-v", "0", "-c", ENROL))
    assert_nothing_found(report, at_least=1_500)


@pytest.fixture(scope="module")
def staff_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("staff")
    with Hub(folder / "data", AGENTCOM_DASHBOARD_ACCESS="staff") as hub:
        yield hub


def test_what_viewers_call_with_a_session(staff_hub: Hub, tmp_path: Path):
    session = staff_hub.manage("shell", "-v", "0", "-c", LOG_IN).strip()
    # one of the calls is for a task, of which there is none here
    only = ("--include-tag", "dashboard", "--warnings", "missing_auth")
    report = fuzz(staff_hub, tmp_path, *only, token=staff_hub.token(KNOWN), session=session)
    assert_nothing_found(report, at_least=200)
