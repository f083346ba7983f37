"""A real hub as a process of its own, for tests that come in through its sockets."""

from __future__ import annotations

import atexit
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

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
ISSUE = """
import json, sys
from agents.tokens import issue
print(json.dumps(issue(json.load(sys.stdin))))
"""


class Hub:
    """`manage.py hub` on a free port, with its data in `data_dir`; a with-block starts and ends it.

    `settings` are environment variables, such as ``AGENTCOM_IDENTIFY_TIMEOUT_S="0.5"``. After
    `kill` or `terminate` it can be started again, on the same port and data.
    """

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not _is_setting(name)},
            "AGENTCOM_PORT": str(self.port),
            "AGENTCOM_DATA_DIR": str(data_dir),
            **settings,
        }
        self._log_file = data_dir / "hub.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def dashboard_url(self) -> str:
        return f"{self.ws_url}/dashboard"

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    def __enter__(self) -> Hub:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def start(self) -> None:
        """Return once it answers; raise with its log when it does not."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "hub"],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it can be ended with all its children
            )
        atexit.register(self.kill)
        self._wait_until_it_answers(self._process)

    def kill(self) -> None:
        """`kill -9`, as a power cut would do it."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """End it in good order, or raise when it does not end."""
        self._end(signal.SIGTERM)

    def token(self, agent_id: str) -> str:
        return self.manage("token", "create", agent_id).strip()

    def tokens(self, agent_ids: Iterable[str]) -> dict[str, str]:
        """Many tokens for the price of one process."""
        answer = self.manage("shell", "-v", "0", "-c", ISSUE, stdin=json.dumps(list(agent_ids)))
        tokens: dict[str, str] = json.loads(answer)
        return tokens

    def manage(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
        )
        assert done.returncode == 0, f"manage.py {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while not self._is_healthy():
            if process.poll() is not None or time.monotonic() > give_up_at:
                self.kill()
                raise AssertionError(f"The hub does not answer on {self.url}. Its log:\n{self.log}")
            time.sleep(0.05)

    def _is_healthy(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _end(self, signum: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.kill)
        try:
            os.killpg(process.pid, signum)
            process.wait(STOP_TIMEOUT_S)
        except ProcessLookupError:
            process.wait()
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(f"The hub ignored {signum.name}. Its log:\n{self.log}") from None


def _is_setting(name: str) -> bool:
    """The developer's own hub, with its database, is not the one under test."""
    return name.startswith("AGENTCOM_") or name in ("DATABASE_URL", "REDIS_URL")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
