"""`manage.py hub`: the whole of AgentCom in one process."""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Callable
from io import StringIO
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError, CommandParser, call_command
from django.utils import timezone

from agentcom.layout import TYPED_COMMAND
from agentcom.listening import open_fault

SERVERS = ("daphne", "uvicorn")


class Command(BaseCommand):
    help = (
        "Run the hub: web server, agent and dashboard sockets, and the worker, in one process. "
        "Settings are environment variables, such as AGENTCOM_PORT=8080."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--login",
            nargs="?",
            const="my-agent",
            metavar="NAME",
            help="make an operator's token for NAME (my-agent), with which one may be the agent of"
            " that name too, and keep it for agentcom-client, unless that has a valid one for this"
            " hub",
        )
        parser.add_argument(
            "--server",
            choices=SERVERS,
            default=SERVERS[0],
            help="which server runs the hub (%(default)s); uvicorn needs the extra of its name",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        serve = _serve_with(options["server"])
        _refuse_taken_port()
        if fault := open_fault([settings.AGENTCOM_HOST]):  # before the data is touched
            raise CommandError(fault)
        call_command("migrate", verbosity=0, interactive=False)
        if options["login"]:
            self._log_in(options["login"])

        from agentcom.asgi import application
        from worker.tick import Worker

        worker = Worker()
        worker.next_tick()  # so that the first viewer finds a report
        ended = threading.Event()
        ticking = threading.Thread(target=worker.run, args=[ended], name="worker")
        ticking.start()
        try:
            host, port = settings.AGENTCOM_HOST, settings.AGENTCOM_PORT
            serve(application, host, port, self._say_hello)
        finally:
            ended.set()
            ticking.join()

    def _log_in(self, name: str) -> None:
        """The client of this user speaks for `name` from now on: as an operator, which may also be
        the agent of that name."""
        from agentcom_client import config
        from fleet.models import AgentToken
        from fleet.presence import hash_of

        try:
            saved = config.load()
            if saved is not None and saved.url == _address():
                token = AgentToken.objects.filter(token_hash=hash_of(saved.token)).first()
                if token is not None and token.is_valid(timezone.now()):
                    return
            created = StringIO()
            call_command(
                *("token", "create", name, "--kind", "operator"), stdout=created, stderr=StringIO()
            )
            file = config.save(config.Login(_address(), created.getvalue().strip()))
        except config.ConfigError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"agentcom-client is {name} from now on ({file}).")

    def _say_hello(self) -> None:
        address = _address()
        self.stdout.write(
            f"AgentCom is running on {address}\n"
            f"  Dashboard    {address}/dashboard\n"
            f"  Agents       {address.replace('http', 'ws', 1)}/ws\n"
            f"  Data         {_data()}\n"
            f"  Agent token  {TYPED_COMMAND} token create my-agent\n"
            f"  Admin login  {TYPED_COMMAND} createsuperuser, then {address}/admin/\n"
            "Ctrl-C ends it."
        )
        self.stdout.flush()


def _serve_with(server: str) -> Callable[..., None]:
    """How to run the application, which may be imported once this has returned."""
    if server == "daphne":
        importlib.import_module("daphne.server")  # installs Twisted's reactor, so first
    else:
        _require("uvicorn", "httptools", "websockets")
    serve: Callable[..., None] = importlib.import_module(f"agentcom.servers.{server}").serve
    return serve


def _require(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise CommandError(
                f"{module} is not installed: install the hub with its extra `uvicorn`."
            )


def _address() -> str:
    host = settings.AGENTCOM_HOST
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.AGENTCOM_PORT}"
    return address + settings.AGENTCOM_PATH_PREFIX


def _refuse_taken_port() -> None:
    """Before the data is touched, because another hub may be using it."""
    host, port = settings.AGENTCOM_HOST, settings.AGENTCOM_PORT
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise CommandError(f"AGENTCOM_HOST: {host} is not an address of this machine.") from None
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise CommandError(
                f"The hub cannot listen on {host}, port {port} ({error.strerror}). Is another "
                "hub running? Set AGENTCOM_PORT or AGENTCOM_HOST to use another address."
            ) from None


def _data() -> str:
    """Where the data is: the database's file, or its server, without the password."""
    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        return str(database["NAME"])
    return f"PostgreSQL, database {database['NAME']} on {database['HOST'] or 'this machine'}"
