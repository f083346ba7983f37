"""A database as the code of a landed commit left it, from the rows that `make` has kept.

    python -m tests.upgrade.old COMMIT MINUTES [--migrate]

migrates the empty database that the environment leads to as far as that commit went, puts the rows
in with their times moved by so many minutes, and with `--migrate` goes on to today's tables.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COMMITS = ("9a846e8", "23798a4")  # version 0.1.0, and the last one with other tables than today's
commit = COMMITS[-1]
KEPT: dict[str, Any] = json.loads((HERE / f"{commit}.json").read_text())

Row = dict[str, Any]


def choose(chosen: str) -> None:
    """From now on it is about the database of this commit."""
    global commit
    commit = chosen
    KEPT.clear()
    KEPT.update(json.loads((HERE / f"{commit}.json").read_text()))
    minutes_since.cache_clear()


@cache  # the same for all who ask
def minutes_since() -> int:
    """Moved by so many minutes, the rows are those of a hub that was killed just before."""
    return int(time.time() - datetime.fromisoformat(KEPT["at"]).timestamp()) // 60


def command_for(minutes: int, *options: str) -> tuple[str, ...]:
    """For `Store.made_by`."""
    return ("-m", "tests.upgrade.old", commit, str(minutes), *options)


def rows(table: str, minutes: int) -> Iterator[Row]:
    """The kept rows, with times moved. JSON is text."""
    columns: dict[str, str] = KEPT["tables"][table]["columns"]
    for row in KEPT["tables"][table]["rows"]:
        yield {
            name: _moved(value, kind, name, minutes)
            for (name, kind), value in zip(columns.items(), row, strict=True)
        }


def _moved(value: Any, kind: str, name: str, minutes: int) -> Any:
    if value is None:
        return None
    if kind == "time":
        return datetime.fromisoformat(value) + timedelta(minutes=minutes)
    return value + minutes if name == "minute" else value  # of DurationCount, since the epoch


def main(minutes: int) -> None:
    from django.db import connection, transaction
    from django.db.migrations.executor import MigrationExecutor

    last = dict(KEPT["migrations"])  # of each app
    MigrationExecutor(connection).migrate(list(last.items()))
    _check_tables(connection)
    with transaction.atomic(), connection.cursor() as cursor:
        for table in KEPT["tables"]:
            cursor.execute(f"DELETE FROM {table}")
        for table in KEPT["tables"]:
            for row in rows(table, minutes):
                names = ", ".join(f'"{name}"' for name in row)
                places = ", ".join(["%s"] * len(row))
                values = [_adapted(connection, value) for value in row.values()]
                cursor.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", values)
        _advance_sequences(connection, cursor)


def _check_tables(connection: Any) -> None:
    """Raises AssertionError where a landed migration makes other tables than it did then."""
    from django.db.migrations.recorder import MigrationRecorder

    applied = MigrationRecorder(connection).applied_migrations().keys()
    assert applied == set(map(tuple, KEPT["migrations"])), applied
    with connection.cursor() as cursor:
        tables = set(connection.introspection.table_names(cursor)) - {"django_migrations"}
        assert tables == KEPT["tables"].keys(), tables
        indexes: set[str] = set()
        for table, kept in KEPT["tables"].items():
            described = connection.introspection.get_table_description(cursor, table)
            columns = {column.name for column in described}
            assert columns == kept["columns"].keys(), (table, columns)
            indexes |= connection.introspection.get_constraints(cursor, table).keys()
        assert set(KEPT["indexes"]) <= indexes, set(KEPT["indexes"]) - indexes


def _adapted(connection: Any, value: Any) -> Any:
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value


def _advance_sequences(connection: Any, cursor: Any) -> None:
    """As they are where the rows got their ids from them."""
    for table in KEPT["tables"]:
        if connection.vendor == "postgresql" and isinstance(next(rows(table, 0)).get("id"), int):
            cursor.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), MAX(id)) FROM {table}"
            )


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentcom.settings")
    import django
    from django.core.management import call_command

    django.setup()
    choose(sys.argv[1])
    main(int(sys.argv[2]))
    if "--migrate" in sys.argv[3:]:
        call_command("migrate", verbosity=0)
