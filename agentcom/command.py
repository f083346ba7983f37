"""The command line, `agentcom` where it is installed and `manage.py` in a checkout."""

from __future__ import annotations

import os
import platform
import sys

from agentcom import __version__
from agentcom.signals import end_at_once

# What most people need; Django and its apps have more.
COMMANDS = {
    "hub": "run the hub: web server, sockets and worker, in one process",
    "token": "create, list and revoke the tokens of agents",
    "webhook": "add, list, test and remove webhooks",
    "createsuperuser": "create a login for the admin",
    "export": "write the tasks as JSON lines or CSV",
    "simulate": "run simulated agents and tasks on a hub that is running",
    "worker": "run the worker as a process of its own (also: runworker)",
    "migrate": "bring the database up to date; hub does so by itself",
    "check": "check the settings; --deploy also checks what matters on a server",
}
OVERVIEW = [[], ["help"], ["--help"], ["-h"]]
VERSION = [["version"], ["--version"]]
# They stop gracefully, and until they can, a signal ends them at once.
SERVERS = ["hub", "runworker", "worker"]


def main() -> None:
    """Run the command that `sys.argv` names. Ends the program if that fails, with code 1 or 2."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in SERVERS:
        end_at_once()
    program = _program()
    try:
        if arguments in OVERVIEW:
            print(overview(program))
        elif arguments in VERSION:
            print(version())
        else:
            _run([program, *arguments])
    except ModuleNotFoundError as error:
        if error.name != "django":
            raise
        sys.exit(
            "Django is not installed for this Python. `make run` installs everything it needs."
        )


def overview(program: str) -> str:
    """What can be done here, for `program --help`."""
    lines = [f"  {name:<{len('createsuperuser')}}  {does}" for name, does in COMMANDS.items()]
    return "\n".join(
        [
            f"AgentCom {__version__}: hands tasks to AI agents and shows the fleet live.",
            "",
            f"usage: {program} COMMAND [OPTIONS]",
            "",
            *lines,
            "",
            f"{program} COMMAND --help lists the options of a command,",
            f"{program} help --commands lists all commands, Django's too.",
            "Settings are environment variables, such as AGENTCOM_PORT.",
        ]
    )


def version() -> str:
    """The versions that matter in a report of a fault."""
    import django

    return (
        f"AgentCom {__version__} (Django {django.__version__}, Python {platform.python_version()})"
    )


def _program() -> str:
    """How this program was started: agentcom, manage.py, or python -m agentcom."""
    name = os.path.basename(sys.argv[0])
    return "python -m agentcom" if name == "__main__.py" else name


def _run(argv: list[str]) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentcom.settings")
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(argv)
    except Exception as error:
        from agentcom.config import stop
        from agentcom.faults import database_fault

        fault = database_fault(error)
        if fault is None or "--traceback" in argv:
            raise
        stop(fault)
