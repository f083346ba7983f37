"""The data folder and its files: readable by their owner only; clear errors if unusable."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import tempfile
import time
from contextlib import closing
from fnmatch import fnmatch
from pathlib import Path

from django.core.management.utils import get_random_secret_key

from agentcom.config import stop

# What the hub itself puts into its data folder.
OWN = ("secret_key", ".secret_key-*", "agentcom.sqlite3*", "test-*.sqlite3*")
SQLITE = b"SQLite format 3\0"
SQLITE_FAULTS = {
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_PERM: "cannot be opened",
    sqlite3.SQLITE_READONLY: "cannot be written",
    sqlite3.SQLITE_NOTADB: "is not a SQLite database",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore a backup",
    sqlite3.SQLITE_FULL: "cannot be written, because the disk is full",
    sqlite3.SQLITE_IOERR: "cannot be read or written, because the disk is full or broken",
    sqlite3.SQLITE_BUSY: "is locked by another program",
    sqlite3.SQLITE_LOCKED: "is locked by another program",
}
LOCK_TIMEOUT_S = 20
LOCK_PAUSE_S = 0.02  # between two attempts
SQLITE_SUFFIXES = ("", "-wal", "-shm", "-journal")
OTHERS = 0o077  # the permission bits of group and others


def make_folder(folder: Path) -> None:
    """Makes the data folder, which only its owner may read: it holds the key and the sessions."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        stop(f"AGENTCOM_DATA_DIR: the folder {folder} cannot be created{because(error, folder)}.")
    if _holds_nothing_else(folder):
        _close_to_others(folder)


def open_database(file: Path) -> None:
    """Ends the program if SQLite could not use the file. A missing file is created with rights for
    its owner only; SQLite gives the same rights to the files that it creates beside it.

    Only for the start, before this process uses SQLite: closing the file releases its locks.
    """
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            beginning = os.read(handle, len(SQLITE))
        finally:
            os.close(handle)
    except OSError as error:
        stop(f"The database {file} cannot be opened{because(error, file)}.")
    if beginning and beginning != SQLITE:
        stop(f"The database {file} is not a SQLite database; {owner(file)}. {_ELSEWHERE}")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        folder = file.parent
        stop(f"Nothing can be written next to the database, in {folder}; {owner(folder)}.")
    tables = _tables_of(file, is_new=not beginning)
    if tables and "django_migrations" not in tables:
        shown = ", ".join(sorted(tables)[:3])
        tables_found = f"it has the tables {shown}"
        stop(f"The database {file} belongs to another program: {tables_found}. {_ELSEWHERE}")
    if not tables or "tasks_task" in tables:
        for suffix in SQLITE_SUFFIXES:
            _close_to_others(file.with_name(file.name + suffix))


_ELSEWHERE = "Set AGENTCOM_DATA_DIR or DATABASE_URL to use another one."


def _tables_of(file: Path, is_new: bool) -> set[str]:
    """The names of the tables. A new file is written to, because a failure would show up late."""
    try:
        with closing(sqlite3.connect(file, timeout=LOCK_TIMEOUT_S)) as database:
            if is_new:
                _begin_log(database)
            return {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error as error:
        stop(sqlite_fault(error, file) or f"The database {file}: {error}; {owner(file)}.")


def _begin_log(database: sqlite3.Connection) -> None:
    """Processes that start at once do this at once, and SQLite does not wait for the lock that it
    takes: who comes second is told at once that the file is locked, so it tries again."""
    give_up_at = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            # runs only when the result is fetched
            database.execute("PRAGMA journal_mode=WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > give_up_at:
                raise
        time.sleep(LOCK_PAUSE_S)


def sqlite_fault(error: sqlite3.Error, file: Path) -> str | None:
    """What is wrong with the file or its disk; None for other errors."""
    fault = SQLITE_FAULTS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    return fault and f"The database {file} {fault}; {owner(file)}."


def open_to_others(path: Path) -> bool:
    """Whether other users of this machine have any rights to it."""
    return os.name == "posix" and path.exists() and bool(path.stat().st_mode & OTHERS)


def because(error: OSError, path: Path) -> str:
    return f" ({error.strerror}); {owner(path)}"


def owner(path: Path) -> str:
    """Who owns the path (or its nearest readable parent), and the user of this process."""
    for there in (path, *path.parents):
        try:
            found = there.stat()
        except OSError:
            continue
        if os.name != "posix":
            break
        rights = f"{stat.S_IMODE(found.st_mode):o}"
        return f"{there} is {_name(found.st_uid)}'s ({rights}), and this is {_name(os.geteuid())}"
    return f"{path} cannot be read"


def _name(uid: int) -> str:
    import pwd  # missing on platforms without such users, where this is not called

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _holds_nothing_else(folder: Path) -> bool:
    """Whether the folder has only files of the hub. A shared folder keeps its rights; the system
    checks warn about it."""
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return all(any(fnmatch(name, own) for own in OWN) for name in names)


def _close_to_others(path: Path) -> None:
    """Remove the rights of group and others, if the path is ours and its rights can be changed."""
    try:
        found = path.stat()
        if os.name != "posix" or found.st_uid != os.geteuid() or not found.st_mode & OTHERS:
            return
        if found.st_mode & stat.S_ISVTX:  # a shared folder such as /tmp
            return
        path.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)
    except OSError:
        return
    if not open_to_others(path):
        print(f"AgentCom removed the rights of other users to {path}.", file=sys.stderr)


# --- The secret key


def secret_key(folder: Path) -> str:
    """The key in `folder/secret_key`. If it is missing, processes that start at once create one."""
    path = folder / "secret_key"
    make_folder(folder)
    try:
        if not path.exists():
            _write_once(path, get_random_secret_key())
        key = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        stop(f"The secret key {path} cannot be created or read{because(error, path)}. {_OR_SET_IT}")
    except UnicodeDecodeError:
        stop(f"The secret key {path} is not a text file; {owner(path)}. {_OR_SET_IT}")
    if not key:
        stop(f"The secret key {path} is empty: delete the file to get a new key. {_OR_SET_IT}")
    return key


_OR_SET_IT = "Or set AGENTCOM_DATA_DIR to a writable folder, or set AGENTCOM_SECRET_KEY."


def _write_once(path: Path, text: str) -> None:
    """Creates a file atomically, unless another process was faster."""
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, never replaces what is already there.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(draft)
