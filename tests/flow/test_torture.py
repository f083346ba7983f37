"""A short run of `manage.py torture`, on the database that the tests run on."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from lab.harness.store import ROOT, on_postgresql

# A seed that does much in little time, to all that there is.
SHORT = ("--minutes", "0.3", "--agents", "12", "--seed", "407")
BOUND_S = 200
HURT = (
    {"web": "kill", "worker": "kill", "postgresql": "stall", "redis": "cut"}
    if on_postgresql()
    else {"hub": "kill", "sqlite": "lock", "clock": "jump back"}
)


def test_a_short_torture_breaks_no_promise(tmp_path):
    done = subprocess.run(
        [sys.executable, "manage.py", "torture", *SHORT],
        cwd=ROOT,
        env={**os.environ, "AGENTCOM_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=BOUND_S,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "No promise was broken" in done.stdout
    processes = "2 web processes, 2 workers" if on_postgresql() else "one process"
    assert f"Seed 407: 0.3 min, {processes}" in done.stdout
    for part, blow in HURT.items():
        assert re.search(rf"^  {part} .*\b{blow}\b", done.stdout, re.M), done.stdout
    assert not list(tmp_path.glob("torture-*")), "nothing is left behind"
