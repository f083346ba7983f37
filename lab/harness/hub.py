"""A hub as real processes: all in one, or web processes and workers that share a database."""

from __future__ import annotations

import atexit
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self

from lab.harness.proxy import Proxy
from lab.harness.store import ROOT, Command, Store, environment
from lab.kit.sockets import HOST, Failed

SERVERS = ("daphne", "uvicorn")
# Which server runs a hub that is not told otherwise: the tests run on both, see the Makefile.
SERVER = os.environ.get("AGENTCOM_TEST_SERVER") or SERVERS[0]
# as docs/operations.md gives them: between two pings, and until the answer to one
PING_S = (20, 30)
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
MANAGE_TIMEOUT_S = 900
PORTS = range(10_000, 30_000)
CHANCE = random.SystemRandom()  # another one than Hypothesis', which is the same in each process
# The room of the agents' tables had another name once, see `Hub`; and tokens had no kinds.
ISSUE = """
import json, sys
from importlib import import_module
from django.apps import apps
tokens = import_module(apps.get_app_config("agents").name + ".tokens")
names, kind = json.load(sys.stdin)
more = ()
if hasattr(tokens, "Grant"):
    more = (tokens.Grant(import_module("agentcom.rights").TokenKind(kind)),)
print(json.dumps(tokens.issue(names, *more)))
"""


class Silent(Failed):
    """A process that runs and does not answer."""


class Ended(Failed):
    """A process that is there no more."""


class Server:
    """One process of a hub. After `kill` or `terminate` it can be started again, on its port."""

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        log_file: Path,
        port: int = 0,
        root: Path = ROOT,
    ) -> None:
        self.port = port  # 0: it listens on none
        self._root = Path(root)
        self._command = command
        self._environment = environment
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None
        self._past_cpu_s = 0.0

    def reroute(self, **settings: str) -> None:
        """What is set for it from its next start on."""
        self._environment = {**self._environment, **settings}

    @property
    def name(self) -> str:
        return self._log_file.stem

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def cpu_s(self) -> float:
        """Processor time so far, of earlier runs too; 0 where the system has no /proc."""
        if self._process is None:
            return self._past_cpu_s
        try:
            fields = self._proc("stat").rpartition(")")[2].split()
        except OSError:
            return 0.0
        return self._past_cpu_s + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_kb(self) -> int:
        """Raises `Failed` where the system has no /proc, `Ended` when the process has."""
        try:
            lines = self._proc("status").splitlines()
        except OSError:
            raise Failed("resident memory is read from /proc, which is not here") from None
        for line in lines:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise Ended(f"{self.name} has no memory any more")

    @property
    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def start(self) -> None:
        """Return once it answers. Raises `Failed` with its log: `Silent` when it runs meanwhile."""
        self.launch()
        self.wait_until_it_answers()

    def launch(self) -> None:
        """Start it without waiting for it."""
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._command,
                cwd=self._root,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for whoever started it, and ends it then
            )
        atexit.register(self.kill)

    def wait_until_it_answers(self) -> None:
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while self.port and not self._is_healthy():
            if not self.is_running:
                self.kill()
                raise Failed(f"The hub ended as it began. Its log:\n{self.log}")
            if time.monotonic() > give_up_at:
                self.kill()
                raise Silent(f"The hub does not answer on port {self.port}. Its log:\n{self.log}")
            time.sleep(0.05)

    def kill(self) -> None:
        """`kill -9`, as a power cut would do it."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """End it in good order and give its exit code. Raises `Failed` when it does not end."""
        return self._end(signal.SIGTERM)

    def ended(self) -> int:
        """The exit code of one that was told to end before. Raises `Failed` when it does not."""
        return self._end(None)

    def send(self, signum: signal.Signals) -> None:
        """SIGSTOP and SIGCONT, for instance."""
        os.killpg(self.pid, signum)

    def _end(self, signum: signal.Signals | None) -> int:
        self._past_cpu_s = self.cpu_s
        process, self._process = self._process, None
        if process is None:
            return 0
        atexit.unregister(self.kill)
        try:
            if signum is not None:
                os.killpg(process.pid, signum)
            return process.wait(STOP_TIMEOUT_S)
        except ProcessLookupError:
            return process.wait()
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            told = signum.name if signum else "what it was told"
            raise Failed(f"The hub ignored {told}. Its log:\n{self.log}") from None

    def _is_healthy(self) -> bool:
        connection = HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text()


class Hub:
    """`manage.py hub` with its data in `data_dir` or in a database of its own.

    A with-block starts and ends it. Its database is migrated, and filled by the commands
    `filled_by`, if there are any. `settings` are environment variables, such as
    ``AGENTCOM_IDENTIFY_TIMEOUT_S="0.5"``. `server` is "daphne" or "uvicorn". Its processes and
    commands run the checkout at `root`, by default this one; any that has `manage.py hub` and
    `issue` for tokens will do.
    """

    def __init__(
        self,
        data_dir: Path,
        *filled_by: Command,
        server: str = "",
        root: Path | str = ROOT,
        **settings: str,
    ) -> None:
        self.data_dir = data_dir
        self.server = server or SERVER
        self._root = Path(root)
        self._store = Store(data_dir, *filled_by, root=self._root)
        self.environment = environment(**{**self._store.environment, **settings})
        self.webs: list[Server] = []
        self.workers: list[Server] = []
        self._turn = -1
        self._compose()

    def _compose(self) -> None:
        port = free_port()
        self.environment["AGENTCOM_PORT"] = str(port)
        which = () if self.server == "daphne" else ("--server", self.server)
        self.webs = [self._server("hub", port, "manage.py", "hub", *which)]

    @property
    def servers(self) -> list[Server]:
        return self.webs + self.workers

    @property
    def port(self) -> int:
        """Of the first web process."""
        return self.webs[0].port

    def next_port(self) -> int:
        """Of each web process in turn, as a load balancer would spread connections."""
        self._turn += 1
        return self.webs[self._turn % len(self.webs)].port

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://{HOST}:{self.port}/ws"

    @property
    def ws_urls(self) -> list[str]:
        """Of all web processes."""
        return [f"ws://{HOST}:{web.port}/ws" for web in self.webs]

    @property
    def dashboard_url(self) -> str:
        return f"{self.ws_url}/dashboard"

    @property
    def log(self) -> str:
        return "\n".join(server.log for server in self.servers)

    @property
    def cpu_s(self) -> float:
        return sum(server.cpu_s for server in self.servers)

    @property
    def resident_kb(self) -> int:
        return sum(server.resident_kb for server in self.servers)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def start(self) -> None:
        """Return once all web processes answer. Raises `Failed` with the log when one does not."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.wait_until_it_answers()

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def terminate(self) -> None:
        """End all in good order. Raises `Failed` when one does not end."""
        for server in self.servers:
            server.terminate()

    def wire(self, setting: str) -> Proxy:
        """A proxy between the processes and where `DATABASE_URL` or `REDIS_URL` leads.

        For those that start from now on; the commands of `manage` and `python` go directly.
        """
        url = self.environment[setting]
        proxy = Proxy.before(url)
        for server in self.servers:
            server.reroute(**{setting: proxy.through(url)})
        return proxy

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """From the database itself: what the hub shows may be counted wrong."""
        return self._store.rows(query)

    def token(self, name: str, kind: str = "operator") -> str:
        return self.tokens([name], kind)[name]

    def tokens(self, names: Iterable[str], kind: str = "operator") -> dict[str, str]:
        """Name to token; many for the price of one process. An operator's may be an agent too."""
        stdin = json.dumps([list(names), kind])
        answer = self.manage("shell", "-v", "0", "-c", ISSUE, stdin=stdin)
        tokens: dict[str, str] = json.loads(answer)
        return tokens

    def manage(self, *arguments: str, stdin: str = "") -> str:
        """What the management command prints. Raises `Failed` with what it complains of."""
        return self.python("manage.py", *arguments, stdin=stdin)

    def python(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(  # noqa: S603
            [sys.executable, *arguments],
            cwd=self._root,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=MANAGE_TIMEOUT_S,
        )
        if done.returncode != 0:
            raise Failed(f"{' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def _server(self, name: str, port: int, *command: str) -> Server:
        log_file = self.data_dir / f"{name}.log"
        return Server([sys.executable, *command], self.environment, log_file, port, self._root)


class Cluster(Hub):
    """Web processes and workers, as docs/operations.md has them."""

    def __init__(
        self,
        data_dir: Path,
        webs: int,
        workers: int,
        *filled_by: Command,
        server: str = "",
        root: Path | str = ROOT,
        **settings: str,
    ) -> None:
        self._size = (webs, workers)
        super().__init__(data_dir, *filled_by, server=server, root=root, **settings)

    def _compose(self) -> None:
        webs, workers = self._size
        self.webs = [self._web(number) for number in range(webs)]
        self.workers = [
            self._server(f"worker-{number}", 0, "manage.py", "runworker")
            for number in range(workers)
        ]

    def _web(self, number: int) -> Server:
        port = free_port()
        return self._server(f"web-{number}", port, *web_command(self.server, port))


def web_command(server: str, port: int) -> list[str]:
    """The arguments of Python for a web process, as docs/operations.md has them."""
    interval, timeout = map(str, PING_S)
    if server == "uvicorn":
        return [
            *("-m", "uvicorn", "--host", HOST, "--port", str(port), "--backlog", "4096"),
            *("--ws-ping-interval", interval, "--ws-ping-timeout", timeout),
            "agentcom.asgi:application",
        ]
    return [
        *("-m", "daphne", "-v", "0", "-e", f"tcp:port={port}:interface={HOST}:backlog=4096"),
        *("--websocket_timeout", "-1", "--websocket_connect_timeout", "60"),
        *("--ping-interval", interval, "--ping-timeout", timeout),
        "agentcom.asgi:application",
    ]


def free_port() -> int:
    """Below those that the system gives to connections: it would give one of them to somebody else
    before the hub listens."""
    while True:
        port = CHANCE.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
