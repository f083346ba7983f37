"""The command line as a person meets it first. tests/packaging has it as pip installs it."""

from __future__ import annotations

import subprocess
import sys

import django
import pytest
from django.core.management import get_commands, load_command_class

from agentcom import __version__
from agentcom.command import COMMANDS, OVERVIEW
from lab.harness.store import ROOT

pytestmark = pytest.mark.sqlite_only


def said(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_the_overview_names_commands_that_exist():
    assert COMMANDS.keys() <= get_commands().keys()


@pytest.mark.parametrize("arguments", OVERVIEW)
def test_the_overview_is_what_help_shows(arguments: list[str]):
    text = said("manage.py", *arguments)

    assert "usage: manage.py COMMAND [OPTIONS]" in text
    for name, does in COMMANDS.items():
        assert name in text
        assert does in text


def test_all_other_commands_are_there_too():
    assert get_commands().keys() <= set(said("manage.py", "help", "--commands").split())


@pytest.mark.parametrize("command", [["manage.py"], ["-m", "agentcom"]])
def test_it_says_its_version(command: list[str]):
    text = said(*command, "--version")

    assert text.startswith(f"AgentCom {__version__} (Django {django.__version__}, Python 3.")


def test_worker_is_runworker():
    worker, runworker = (load_command_class("worker", name) for name in ("worker", "runworker"))
    assert type(worker) is type(runworker)


def test_it_is_called_as_it_was_started():
    assert "usage: manage.py token" in said("manage.py", "token", "--help")
    assert "usage: python -m agentcom token" in said("-m", "agentcom", "token", "--help")
