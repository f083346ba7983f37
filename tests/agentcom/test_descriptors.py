from __future__ import annotations

import pytest

from agentcom.descriptors import OpenFiles


def test_files_that_become_scarce_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    files = OpenFiles()
    for used in (921, 922, 1000, 1024):
        files.note(used, 1024)
    assert [record.getMessage() for record in caplog.records] == [
        "922 of 1,024 files are open, a socket each; at the limit, connections are reset. "
        "Raise it: LimitNOFILE in systemd, `ulimit -n` in a shell."
    ]
    assert files.scarce == 1024


def test_it_is_said_when_there_are_enough_again(caplog: pytest.LogCaptureFixture) -> None:
    files = OpenFiles()
    files.note(1000, 1024)
    files.note(500, 1024)
    assert caplog.records[-1].getMessage() == "There are enough files again: 500 of 1,024"
    assert files.scarce == 0


def test_without_a_limit_none_are_scarce() -> None:
    files = OpenFiles()
    files.note(1_000_000, -1)
    assert files.scarce == 0
