"""Where a hub of the harness keeps its data: a folder, or a PostgreSQL database of its own."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import weakref
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

ROOT = Path(__file__).resolve().parents[2]
MIGRATE_TIMEOUT_S = 120
MIGRATE = ("manage.py", "migrate", "-v", "0")

Command = tuple[str, ...]  # the arguments of a Python


def environment(**more: str) -> dict[str, str]:
    """This process's, without what is set for a real hub."""
    kept = {name: value for name, value in os.environ.items() if not _is_setting(name)}
    return {**kept, **more}


def _is_setting(name: str) -> bool:
    return name.startswith("AGENTCOM_") or name in ("DATABASE_URL", "REDIS_URL")


def on_postgresql() -> bool:
    return os.environ.get("DATABASE_URL", "").startswith("postgres")


class Store:
    """`environment` leads processes to it. A database is dropped once nobody holds its store.

    It begins as a copy of what the command `made_by`, and then those of `filled_by`, make of an
    empty database, run by the checkout at `root`.
    """

    made_by: ClassVar[Command] = MIGRATE

    def __init__(self, data_dir: Path, *filled_by: Command, root: Path = ROOT) -> None:
        commands = (self.made_by, *filled_by)
        self.environment = {"AGENTCOM_DATA_DIR": str(data_dir)}
        if on_postgresql():
            database = _create("TEMPLATE {}", database_made_by(*commands, root=root))
            weakref.finalize(self, _drop, database)
            self.environment["DATABASE_URL"] = _url(database)
            self.environment["AGENTCOM_REDIS_PREFIX"] = database
            if redis := os.environ.get("REDIS_URL"):
                self.environment["REDIS_URL"] = redis
        else:
            data_dir.mkdir(parents=True, exist_ok=True)
            shutil.copy(_file_made_by(*commands, root=root), data_dir)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        if url := self.environment.get("DATABASE_URL"):
            with psycopg.connect(url) as postgresql:
                return postgresql.execute(query.encode()).fetchall()
        file = Path(self.environment["AGENTCOM_DATA_DIR"]) / "agentcom.sqlite3"
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as sqlite:
            return sqlite.execute(query).fetchall()


@cache
def database_made_by(*commands: Command, root: Path = ROOT) -> str:
    """The name of a database to be copied, which is quicker than making each."""
    name = _create("TEMPLATE {} LOCALE 'C' ENCODING 'UTF8'", "template0")  # see docs/operations.md
    atexit.register(_drop, name)
    for command in commands:
        _run(command, root, environment(DATABASE_URL=_url(name)))
    return name


@cache
def _file_made_by(*commands: Command, root: Path) -> Path:
    folder = tempfile.mkdtemp(prefix="agentcom-harness-")
    atexit.register(shutil.rmtree, folder)
    for command in commands:
        _run(command, root, environment(AGENTCOM_DATA_DIR=folder))
    return Path(folder) / "agentcom.sqlite3"


def _run(command: Command, root: Path, environment: dict[str, str]) -> None:
    subprocess.run(  # noqa: S603
        [sys.executable, *command],
        cwd=root,
        env=environment,
        check=True,
        timeout=MIGRATE_TIMEOUT_S,
    )


def _create(options: LiteralString, template: str) -> str:
    name = f"agentcom_harness_{secrets.token_hex(6)}"
    statement = sql.SQL("CREATE DATABASE {} " + options)
    _administer(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return name


def _drop(name: str) -> None:
    statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
    _administer(statement.format(sql.Identifier(name)))


def _administer(statement: sql.Composed) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(statement)


def _url(database: str) -> str:
    return urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{database}"))
