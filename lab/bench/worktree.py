"""Another commit of this repository, checked out for as long as it is measured."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.harness.store import ROOT
from lab.kit.sockets import Failed


def git(*arguments: str) -> str:
    """What it prints. Raises OSError without Git, CalledProcessError when it fails."""
    done = subprocess.run(  # noqa: S603
        ["git", *arguments],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """The checkout, in a new folder. Raises `Failed` if there is no such commit."""
    try:
        found = git("rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}")
    except (OSError, subprocess.CalledProcessError):
        raise Failed(f"{commit} is no commit of a Git checkout here") from None
    try:
        git("worktree", "add", "--quiet", "--detach", str(folder), found)
        yield folder
    finally:
        # Twice: Ctrl-C may have ended the line above while Git held the new worktree locked.
        git("worktree", "remove", "--force", "--force", str(folder))
