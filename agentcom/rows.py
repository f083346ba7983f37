"""Bulk writes built from a model's `_meta`.

Django's own bulk calls build one large statement a group; prepared statements run with
`executemany` carry two to seven times the rows (measured, see docs/benchmarks.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from django.db import connection
from django.db.models import Field, Model

Step = tuple[Mapping[str, Any], dict[str, int]]
Fields = tuple["Field[Any, Any]", ...]


@cache
def columns(model: type[Model]) -> tuple[str, ...]:
    """The attribute names of all columns, primary key first."""
    fields = model._meta.concrete_fields
    return tuple(f.attname for f in sorted(fields, key=lambda f: not f.primary_key))


def insert(model: type[Model], rows: Sequence[Model]) -> None:
    fields = tuple(f for f in model._meta.concrete_fields if rows[0].pk or not f.primary_key)
    names = ", ".join(_quote(f) for f in fields)
    _run(
        f"INSERT INTO {_table(model)} ({names}) VALUES ({_marks(fields)})",
        fields,
        ([getattr(row, f.attname) for f in fields] for row in rows),
    )


def update(model: type[Model], rows: Iterable[Model], names: Sequence[str]) -> None:
    """Write the named columns of each row, found by its primary key."""
    fields = tuple(_field(model, name) for name in names)
    sets = ", ".join(f"{_quote(f)} = %s" for f in fields)
    pk = model._meta.pk
    _run(
        f"UPDATE {_table(model)} SET {sets} WHERE {_quote(pk)} = %s",
        (*fields, pk),
        ([getattr(row, f.attname) for f in (*fields, pk)] for row in rows),
    )


def delete(model: type[Model], rows: Iterable[Model]) -> None:
    pk = model._meta.pk
    sql = f"DELETE FROM {_table(model)} WHERE {_quote(pk)} = %s"
    _run(sql, (pk,), ([row.pk] for row in rows))


def increment(model: type[Model], steps: Iterable[Step]) -> None:
    """Add to counters, making the row where there is none.

    Each step is ``(the row's unique columns, {counter column: amount})``; steps of one row are
    added up first.
    """
    sums: dict[tuple[Any, ...], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for key, amounts in steps:
        row = sums[tuple(sorted(key.items()))]
        for name, amount in amounts.items():
            row[name] += amount
    keys = tuple(name for name, _ in next(iter(sums)))
    counted = {name for row in sums.values() for name in row}
    counters = tuple(name for name in columns(model) if name in counted)
    table = _table(model)
    fields = tuple(_field(model, name) for name in (*keys, *counters))
    adds = ", ".join(f"{_q(c)} = {table}.{_q(c)} + excluded.{_q(c)}" for c in counters)
    zeros = tuple(f for f in model._meta.concrete_fields if f not in fields and not f.primary_key)
    _run(
        f"INSERT INTO {table} ({', '.join(_quote(f) for f in (*fields, *zeros))}) "
        f"VALUES ({_marks((*fields, *zeros))}) "
        f"ON CONFLICT ({', '.join(_q(k) for k in keys)}) DO UPDATE SET {adds}",
        (*fields, *zeros),
        (
            [value for _, value in key]
            + [row.get(c, 0) for c in counters]
            + [f.get_default() for f in zeros]
            for key, row in sums.items()
        ),
    )


def _run(sql: str, fields: Fields, rows: Iterable[list[Any]]) -> None:
    prepare = [f.get_db_prep_save for f in fields]
    with connection.cursor() as cursor:
        cursor.executemany(
            sql,
            [[p(value, connection) for p, value in zip(prepare, row, strict=True)] for row in rows],
        )


def _field(model: type[Model], name: str) -> Field[Any, Any]:
    return model._meta.get_field(name)  # type: ignore[return-value]


def _q(name: str) -> str:
    return connection.ops.quote_name(name)


def _quote(field: Field[Any, Any]) -> str:
    return _q(field.column or "")


def _table(model: type[Model]) -> str:
    return _q(model._meta.db_table)


def _marks(fields: Sequence[object]) -> str:
    return ", ".join(["%s"] * len(fields))
