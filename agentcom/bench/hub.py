"""The hub under load, as a process of its own, and what it costs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self

from django.conf import settings

from agentcom.bench.clients import HOST, Failed

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
MANAGE_TIMEOUT_S = 900
ISSUE = """
import json, sys
from agents.tokens import issue
print(json.dumps(issue(json.load(sys.stdin))))
"""


class Hub:
    """`manage.py hub` on a free port; a with-block starts and ends it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self._environment = {
            **{name: value for name, value in os.environ.items() if not _is_setting(name)},
            "AGENTCOM_PORT": str(self.port),
            "AGENTCOM_DATA_DIR": str(data_dir),
        }
        self._log_file = data_dir / "hub.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "hub"],
                cwd=settings.BASE_DIR,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the bench, which ends the hub then
            )
        try:
            self._wait_until_it_answers(self._process)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    @property
    def cpu_s(self) -> float:
        """Processor time so far; 0 where the system has no /proc."""
        try:
            fields = self._proc("stat").rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_kb(self) -> int:
        """Raises `Failed` where the system has no /proc."""
        try:
            lines = self._proc("status").splitlines()
        except OSError:
            raise Failed("resident memory is read from /proc, which is not here") from None
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

    def tokens(self, agent_ids: Iterable[str]) -> dict[str, str]:
        """Agent id to token."""
        answer = self.manage("shell", "-v", "0", "-c", ISSUE, stdin=json.dumps(list(agent_ids)))
        tokens: dict[str, str] = json.loads(answer)
        return tokens

    def manage(self, *arguments: str, stdin: str = "") -> str:
        """What the management command prints."""
        return self._python("manage.py", *arguments, stdin=stdin)

    def fill(self, *arguments: str) -> None:
        """Put rows into the database of a hub that is not running, see `fill.py`."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.manage("migrate", "-v", "0")
        self._python("-m", "agentcom.bench.fill", *arguments)

    def _python(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(  # noqa: S603
            [sys.executable, *arguments],
            cwd=settings.BASE_DIR,
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=MANAGE_TIMEOUT_S,
        )
        if done.returncode != 0:
            raise Failed(f"{' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def _proc(self, name: str) -> str:
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/{name}").read_text()

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while not self._is_healthy():
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise Failed(f"The hub does not answer. Its log:\n{self.log}")
            time.sleep(0.05)

    def _is_healthy(self) -> bool:
        connection = HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


def _is_setting(name: str) -> bool:
    """Whoever measures has a hub of their own; its settings and its database are not for this."""
    return name.startswith("AGENTCOM_") or name in ("DATABASE_URL", "REDIS_URL")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
