"""`run-django`: run the tasks of a Django project."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from agentcom_client import config
from agentcom_client.agent import Agent
from agentcom_client.cli import exits
from agentcom_client.cli.output import DIM, complain, paint

HEARTBEAT_S = 60.0


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "run-django",
        help="run the tasks of a Django project",
        description="Connects as an agent, and runs the project's @task functions that are enqueued"
        " with agentcom_client.django.AgentComBackend. Each process needs a token of its own.",
    )
    parser.add_argument("--settings", metavar="MODULE", help="instead of DJANGO_SETTINGS_MODULE")
    parser.add_argument(
        "--backend", default="default", metavar="ALIAS", help="in TASKS (%(default)s)"
    )
    parser.add_argument(
        "--queue",
        action="append",
        dest="queues",
        metavar="NAME",
        help="serve this queue; may be repeated. Without it: all QUEUES of the backend",
    )
    parser.add_argument(
        "--capability",
        action="append",
        default=[],
        metavar="WORD",
        help="what it can do, for tasks that need it; may be repeated",
    )
    parser.add_argument(
        "--concurrency", type=int, default=1, metavar="N", help="so many tasks at once, in threads"
    )
    parser.add_argument("--name", help="for display")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.settings:
        os.environ["DJANGO_SETTINGS_MODULE"] = options.settings
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        complain("Say which project: --settings MODULE, or set DJANGO_SETTINGS_MODULE.")
        return exits.USAGE
    sys.path.insert(0, os.getcwd())  # as manage.py has it
    try:
        import django

        if django.VERSION < (6, 0):
            raise ModuleNotFoundError(name="django")
    except ModuleNotFoundError:
        complain(
            "run-django needs Django 6.0 or newer, and so Python 3.12: pip install"
            ' "agentcom-client[django]"'
        )
        return exits.USAGE
    return _serve(options)


def _serve(options: argparse.Namespace) -> int:
    import django
    from django.core.exceptions import ImproperlyConfigured

    try:
        django.setup()
        agent = _agent(options)
    except (ImproperlyConfigured, ImportError, ValueError) as error:
        complain(str(error))
        return exits.USAGE
    agent.serve(drain=True)  # a function in a thread cannot be stopped, so it is let end
    return exits.OK


def _agent(options: argparse.Namespace) -> Agent:
    """Raises ValueError with a sentence."""
    from django.tasks import task_backends

    from agentcom_client.django import AgentComBackend
    from agentcom_client.django_worker import work

    if options.backend not in task_backends:
        raise ValueError(f"TASKS has no {options.backend!r}.")
    backend = task_backends[options.backend]
    if not isinstance(backend, AgentComBackend):
        raise ValueError(f"TASKS[{options.backend!r}] is not an AgentComBackend.")
    queues = options.queues or sorted(backend.queues)
    if not queues:
        raise ValueError("This backend takes any queue: say with --queue which to serve.")

    def observe(message: dict[str, Any]) -> None:
        if message["type"] == "identified":
            said = f"{message['agent_id']} is connected and waits for tasks of {backend.project}"
            said += f" (queue {', '.join(queues)}). Ctrl-C ends it."
            print(paint(said, DIM, sys.stderr), file=sys.stderr, flush=True)

    return Agent(
        backend.options.get("URL"),
        # A worker has a name of its own on the hub; the settings may have the web server's.
        os.environ.get(config.TOKEN) or backend.options.get("TOKEN"),
        work,
        name=options.name,
        capabilities=[*backend.served(queues), *options.capability],
        concurrency=options.concurrency,
        heartbeat_s=HEARTBEAT_S,  # a function may well say nothing for long
        observe=observe,
    )
