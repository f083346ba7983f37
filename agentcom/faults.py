"""What is wrong with the database at the start, in a sentence that says where it is."""

from __future__ import annotations

import sqlite3
from functools import cache
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management import CommandError
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from agentcom import layout
from agentcom.data_folder import sqlite_fault

MIGRATE_FIRST = f"run `{layout.COMMAND} migrate` first"
PROBE_TIMEOUT_S = 2


def database_fault(error: BaseException | None) -> str | None:
    """The database problem behind `error`; None if there is none, such as a bug in the program."""
    if not isinstance(error, DatabaseError | InterfaceError):
        return None
    cause = _of_the_driver(error)
    if "no such table" in str(error) or getattr(cause, "sqlstate", None) == "42P01":
        return f"The database has no tables: {MIGRATE_FIRST}."
    if isinstance(cause, sqlite3.Error):
        return sqlite_fault(cause, Path(str(settings.DATABASES["default"]["NAME"])))
    if cause is not None and isinstance(cause, _driver().OperationalError):
        lines = (_refusal() or str(error)).splitlines()
        return f"PostgreSQL cannot be used: {lines[0]} (see DATABASE_URL)."
    return None


def _driver() -> Any:
    """The module of the database's driver: sqlite3, or psycopg, which is an extra."""
    return connection.Database  # type: ignore[attr-defined]


def _of_the_driver(error: BaseException | None) -> BaseException | None:
    driver = _driver()
    while error is not None and not isinstance(error, driver.Error):
        error = error.__cause__ or error.__context__
    return error


def _refusal() -> str | None:
    """Why PostgreSQL refuses connections; the pool itself only reports a timeout."""
    driver = _driver()
    try:
        address = {**connection.get_connection_params(), "connect_timeout": PROBE_TIMEOUT_S}
        address.pop("pool", None)
        driver.connect(**address).close()
    except driver.Error as error:
        return str(error).removeprefix("connection failed: ").strip().removesuffix(".")
    return None


def schema_fault() -> str | None:
    """Why this version cannot use the tables; None if it can. Raises `DatabaseError`."""
    if (fault := foreign_schema()) is not None:
        return fault
    executor = MigrationExecutor(connection)
    missing = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    return f"The database lacks {missing} migrations: {MIGRATE_FIRST}." if missing else None


def as_detail(fault: str) -> str:
    """The fault as the `detail` of a 503: without capital letter and full stop."""
    return fault[:1].lower() + fault[1:].removesuffix(".")


def refuse_schema() -> None:
    """For commands that need the tables of this version. Raises `CommandError`."""
    if fault := schema_fault():
        raise CommandError(fault)


def foreign_schema() -> str | None:
    """Why not to migrate this database: its tables are another program's or a later version's."""
    loader = MigrationLoader(connection)
    applied = set(loader.applied_migrations or ())
    later = sorted(
        f"{app}.{name}"
        for app, name in applied - set(loader.disk_migrations or ())
        if app in own_apps()
    )
    if later:
        return (
            f"The database was made by a later version of AgentCom ({', '.join(later)} is not "
            "known here): run that one, or restore the backup from before the upgrade."
        )
    labels = {app for app, _ in applied}
    if labels - set(apps.app_configs) and not labels & own_apps():
        names = ", ".join(sorted(labels))
        return f"The database belongs to another program, with the apps {names}."
    return None


@cache
def own_apps() -> frozenset[str]:
    """The labels of the apps that are part of AgentCom."""
    return frozenset(
        config.label
        for config in apps.get_app_configs()
        if Path(config.path) == layout.PACKAGE or Path(config.path).parent == layout.ROOMS
    )
