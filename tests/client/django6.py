"""A Python with Django 6, for the tests of `agentcom_client.django`: the hub's own may be too old.

It is the one that AGENTCOM_DJANGO6_PYTHON names, or the one that runs the tests, or that of a
virtual environment which is made in .venv once a Python 3.12 or newer is found.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import django

from lab.harness.store import ROOT

NAMED = "AGENTCOM_DJANGO6_PYTHON"
VERSIONS = ("3.14", "3.13", "3.12")
NEEDED = ("django", "websockets", "httpx")  # by the project and by the client
MAKE_TIMEOUT_S = 300


@cache
def base() -> str | None:
    """The Python, or the one to make the environment with; None where there is none."""
    if named := os.environ.get(NAMED):
        return named
    if django.VERSION >= (6, 0):
        return sys.executable
    return next(filter(_is_new_enough, _candidates()), None)


def python() -> str:
    """With Django 6. Makes the environment the first time, which takes some seconds."""
    found = base()
    assert found is not None, "the tests that need it are left out where there is none"
    if found in (os.environ.get(NAMED), sys.executable):
        return found
    versions = _versions()
    key = hashlib.sha256("\n".join([found, *versions]).encode()).hexdigest()[:12]
    folder = ROOT / ".venv" / f"django6-{key}"
    made, executable = folder / "made", folder / "bin" / "python"
    if not made.exists():
        _run(found, "-m", "venv", "--clear", str(folder))
        _run(
            str(executable), "-m", "pip", "install", "-q", "--disable-pip-version-check", *versions
        )
        made.touch()
    return str(executable)


def _candidates() -> Iterator[str]:
    for version in VERSIONS:
        if found := shutil.which(f"python{version}"):
            yield found
        # pyenv's own `python3.12` works only where a project has chosen that version.
        versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        yield from map(str, sorted(versions.glob(f"{version}.*/bin/python"), reverse=True))


def _is_new_enough(candidate: str) -> bool:
    check = "import sys, venv, ensurepip, sqlite3; sys.exit(sys.version_info < (3, 12))"
    done = subprocess.run([candidate, "-c", check], capture_output=True, timeout=30)
    return done.returncode == 0


def _versions() -> list[str]:
    """As they are locked for Python 3.12 and newer."""
    lock = (ROOT / "requirements.txt").read_text()
    found = dict(
        re.findall(r"^([\w-]+)==(\S+)(?: ; python_full_version >= '3\.12')? \\$", lock, re.M)
    )
    return [f"{name}=={found[name]}" for name in NEEDED]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=MAKE_TIMEOUT_S)
