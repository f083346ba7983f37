from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from agentcom.data_folder import make_folder, open_database, open_to_others, secret_key
from lab.harness.store import ROOT

NOBODY = 65_534
OPEN_AT = """
import sys, time
from pathlib import Path
from agentcom.data_folder import open_database
time.sleep(max(0, float(sys.argv[1]) - time.time()))
open_database(Path(sys.argv[2]))
"""
pytestmark = pytest.mark.sqlite_only


@pytest.fixture
def folder_of_another() -> Iterator[Path]:
    """One that this process cannot write, whoever runs it."""
    with TemporaryDirectory() as parent:
        folder = Path(parent) / "data"
        folder.mkdir()
        Path(parent).chmod(0o755)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestFolder:
    def test_that_is_the_hubs_own_is_closed_to_others(self, tmp_path, capfd):
        folder = tmp_path / "data"
        folder.mkdir()
        folder.chmod(0o755)
        for name in ("secret_key", "agentcom.sqlite3", "agentcom.sqlite3-wal"):
            (folder / name).touch()

        make_folder(folder)

        assert rights(folder) == 0o700
        assert str(folder) in capfd.readouterr().err
        make_folder(folder)
        assert capfd.readouterr().err == ""

    def test_that_holds_other_things_too_keeps_its_rights(self, tmp_path):
        folder = tmp_path / "shared"
        folder.mkdir()
        folder.chmod(0o755)
        (folder / "notes.txt").touch()

        make_folder(folder)

        assert rights(folder) == 0o755

    @pytest.mark.parametrize("mode", [0o1777, 0o1755])
    def test_for_everybodys_files_keeps_its_rights(self, tmp_path, mode):
        tmp_path.chmod(mode)

        make_folder(tmp_path)

        assert rights(tmp_path) == mode

    def test_that_is_a_file_ends_the_start_with_its_owner(self, tmp_path):
        (tmp_path / "file").touch()

        with pytest.raises(SystemExit, match=rf"{tmp_path}/file cannot be created \(.*\); .*'s \("):
            make_folder(tmp_path / "file")


class TestDatabase:
    def test_is_made_for_its_owner_alone(self, tmp_path):
        file = tmp_path / "hub.sqlite3"
        before = os.umask(0o022)
        try:
            open_database(file)
        finally:
            os.umask(before)

        assert rights(file) == 0o600

    def test_is_made_by_all_who_start_at_once(self, tmp_path):
        """As `make demo` does. Several times, because only chance makes them meet."""
        for number in range(5):
            file = tmp_path / f"{number}.sqlite3"
            start_at = str(time.time() + 0.7)
            command = [sys.executable, "-c", OPEN_AT, start_at, str(file)]
            processes = [
                subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(6)
            ]
            for process in processes:
                _, said = process.communicate(timeout=60)
                assert process.returncode == 0, said

    def test_is_closed_to_others_with_what_lies_beside_it(self, tmp_path):
        files = [tmp_path / f"hub.sqlite3{suffix}" for suffix in ("", "-wal", "-shm")]
        with closing(sqlite3.connect(files[0])) as database:
            database.execute("CREATE TABLE django_migrations (id)")
            database.execute("CREATE TABLE tasks_task (id)")
            for file in files:
                file.touch()
                file.chmod(0o644)

        open_database(files[0])

        assert [rights(file) for file in files] == [0o600] * 3
        assert not any(open_to_others(file) for file in files)

    def test_of_another_program_ends_the_start_and_keeps_its_rights(self, tmp_path):
        file = tmp_path / "hub.sqlite3"
        with closing(sqlite3.connect(file)) as database:
            database.execute("CREATE TABLE notes (text)")
        file.chmod(0o644)

        with pytest.raises(
            SystemExit, match=f"{file} belongs to another program: it has the tables notes"
        ):
            open_database(file)

        assert rights(file) == 0o644
        with closing(sqlite3.connect(file)) as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)

    @pytest.mark.parametrize("beginning", [b"# notes", b"SQLite format 2\0", b"\0" * 100])
    def test_that_is_something_else_ends_the_start_and_stays_as_it_is(self, tmp_path, beginning):
        file = tmp_path / "hub.sqlite3"
        file.write_bytes(beginning)
        file.chmod(0o640)

        with pytest.raises(SystemExit, match=f"{file} is not a SQLite database"):
            open_database(file)

        assert file.read_bytes() == beginning
        assert rights(file) == 0o640

    def test_in_whose_place_there_is_a_folder_ends_the_start(self, tmp_path):
        with pytest.raises(SystemExit, match=rf"{tmp_path} cannot be opened \(Is a directory\)"):
            open_database(tmp_path)

    def test_in_a_folder_that_is_not_there_ends_the_start(self, tmp_path):
        file = tmp_path / "nowhere" / "hub.sqlite3"

        with pytest.raises(SystemExit, match=rf"{file} cannot be opened .*; {tmp_path} is "):
            open_database(file)

    def test_that_cannot_be_made_ends_the_start_with_the_owner(self, folder_of_another):
        file = folder_of_another / "hub.sqlite3"
        said = rf"\(Permission denied\); {folder_of_another} is .+'s \(555\), and this is \w+"

        with pytest.raises(SystemExit, match=said):
            open_database(file)
        with pytest.raises(SystemExit, match=said):
            secret_key(folder_of_another)
        with pytest.raises(SystemExit, match=said):
            make_folder(folder_of_another / "data")


class TestSecretKey:
    def test_is_made_once_and_for_its_owner_only(self, tmp_path):
        folder = tmp_path / "data"

        key = secret_key(folder)

        assert len(key) >= 50
        assert secret_key(folder) == key
        assert stat.S_IMODE((folder / "secret_key").stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert [path.name for path in folder.iterdir()] == ["secret_key"]

    def test_is_the_same_for_all_who_start_at_once(self, tmp_path):
        gate, keys = threading.Barrier(16), []

        def start():
            gate.wait()
            keys.append(secret_key(tmp_path))

        threads = [threading.Thread(target=start) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(keys) == 16
        assert len(set(keys)) == 1

    def test_that_is_empty_ends_the_start(self, tmp_path):
        (tmp_path / "secret_key").touch()

        with pytest.raises(SystemExit, match="is empty"):
            secret_key(tmp_path)

    def test_that_cannot_be_kept_ends_the_start(self, tmp_path):
        (tmp_path / "file").touch()

        with pytest.raises(SystemExit, match="AGENTCOM_DATA_DIR"):
            secret_key(tmp_path / "file" / "folder")
