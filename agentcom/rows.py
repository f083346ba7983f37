"""Bulk reads and writes built from a model's `_meta`.

On SQLite, prepared statements with `executemany` write two to seven times as many rows as Django's
bulk methods. On PostgreSQL round trips cost most, so a commit's statements are sent as one text
(both measured, see docs/benchmarks.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.models import CharField, DateTimeField, Field, Model, TextField

from agentcom.database import composed, execute_all

M = TypeVar("M", bound=Model)
Step = tuple[Mapping[str, Any], dict[str, int]]
Fields = tuple["Field[Any, Any]", ...]
Raw = tuple[Any, ...]  # a row as the driver gives it

# The maximum of a counter: less than its column can hold, so that no intermediate sum overflows and
# thousands of rows can be added up.
COUNTER_MAX = {"IntegerField": 2_000_000_000, "BigIntegerField": 2**53 - 1}


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL to be executed for each row of parameters.

    `part` is what is repeated when many rows become one text: the row after VALUES, or else the
    whole statement.
    """

    sql: str
    rows: list[list[Any]]
    part: str


@cache
def columns(model: type[Model]) -> tuple[str, ...]:
    """The attribute names of all columns, primary key first."""
    fields = model._meta.concrete_fields
    return tuple(f.attname for f in sorted(fields, key=lambda f: not f.primary_key))


@cache
def places(model: type[Model]) -> list[str]:
    """The attribute names of all columns, in the order of a `Raw` row."""
    return [field.attname for field in model._meta.concrete_fields]


def read(wanted: Iterable[tuple[type[Model], str, Sequence[Any]]]) -> list[Model]:
    """For each model the rows whose named column is one of the values, in no order.

    Like `model.objects.filter(key__in=values)`, with cached statements and converters.
    """
    asked = [(model, key, values) for model, key, values in wanted if values]
    if not asked:
        return []
    found = execute_all([(_selection(m, key, len(values)), values) for m, key, values in asked])
    return [
        as_model(model, row) for (model, *_), rows in zip(asked, found, strict=True) for row in rows
    ]


def as_model(model: type[M], row: Raw) -> M:
    values, vendor = list(row), connections[DEFAULT_DB_ALIAS]
    for place, convert, column in _converters(model):
        values[place] = convert(values[place], column, vendor)
    return model.from_db(DEFAULT_DB_ALIAS, places(model), values)


def insert(model: type[Model], rows: Sequence[Model]) -> Statement:
    fields, sql, values = _insertion(model, bool(rows[0].pk))
    names = [f.attname for f in fields]
    found = ([getattr(row, name) for name in names] for row in rows)
    return Statement(sql, _prepared(fields, found), part=values)


@cache
def _insertion(model: type[Model], with_pk: bool) -> tuple[Fields, str, str]:
    """The columns, the statement, and what stands for a row in it."""
    fields = tuple(f for f in model._meta.concrete_fields if with_pk or not f.primary_key)
    names, values = ", ".join(_quote(f) for f in fields), f"({_marks(fields)})"
    return fields, f"INSERT INTO {_table(model)} ({names}) VALUES {values}", values


def update(model: type[Model], rows: Iterable[Model], names: Sequence[str]) -> Statement:
    """Set the named columns of each row, found by its primary key."""
    fields = tuple(_field(model, name) for name in names)
    sets = ", ".join(f"{_quote(f)} = %s" for f in fields)
    pk = model._meta.pk
    sql = f"UPDATE {_table(model)} SET {sets} WHERE {_quote(pk)} = %s"
    found = (*fields, pk)
    values = ([getattr(row, f.attname) for f in found] for row in rows)
    return Statement(sql, _prepared(found, values), part=sql)


def delete(model: type[Model], rows: Iterable[Model]) -> Statement:
    pk = model._meta.pk
    sql = f"DELETE FROM {_table(model)} WHERE {_quote(pk)} = %s"
    return Statement(sql, _prepared((pk,), ([row.pk] for row in rows)), part=sql)


def increment(model: type[Model], steps: Iterable[Step]) -> Statement:
    """Add to counters, inserting missing rows.

    Each step is ``(the row's unique columns, {counter column: amount})``; steps of one row are
    added up first. A counter stays at its maximum: an overflow would fail the commit of the whole
    group, or make SQLite store a floating point number.
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
    most = {name: _max_count(_field(model, name)) for name in counters}
    adds = ", ".join(_add(table, _q(c), most[c]) for c in counters)
    zeros = tuple(f for f in model._meta.concrete_fields if f not in fields and not f.primary_key)
    values = f"({_marks((*fields, *zeros))})"
    return Statement(
        f"INSERT INTO {table} ({', '.join(_quote(f) for f in (*fields, *zeros))}) VALUES {values} "
        f"ON CONFLICT ({', '.join(_q(k) for k in keys)}) DO UPDATE SET {adds}",
        _prepared(
            (*fields, *zeros),
            (
                [value for _, value in key]
                + [min(row.get(c, 0), most[c]) for c in counters]
                + [f.get_default() for f in zeros]
                for key, row in sums.items()
            ),
        ),
        part=values,
    )


def _add(table: str, column: str, most: int) -> str:
    kept, more = f"{table}.{column}", f"excluded.{column}"
    return f"{column} = CASE WHEN {kept} > {most} - {more} THEN {most} ELSE {kept} + {more} END"


def _max_count(counter: Field[Any, Any]) -> int:
    return COUNTER_MAX[counter.get_internal_type()]


def run(statements: Iterable[Statement]) -> None:
    """Execute each statement for all its rows, in order; on PostgreSQL all in one round trip."""
    prepared = list(statements)
    if not prepared:
        return
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(";".join(_one_text(statement) for statement in prepared))
        else:
            for statement in prepared:
                cursor.executemany(statement.sql, statement.rows)


def _one_text(statement: Statement) -> str:
    """The statement for all its rows, with their values: planned once instead of once a row."""
    before, part, after = statement.sql.partition(statement.part)
    joint = ", " if before else "; "
    return before + joint.join(composed((part, row) for row in statement.rows)) + after


def _prepared(fields: Fields, rows: Iterable[list[Any]]) -> list[list[Any]]:
    prepare = [_preparer(field) for field in fields]
    # what is not there needs no preparation, and most columns of a task are empty
    return [
        [None if v is None else p(v) for p, v in zip(prepare, row, strict=True)] for row in rows
    ]


@cache
def _preparer(field: Field[Any, Any]) -> Callable[[Any], Any]:
    """From Python to the database. Cached for times: most times of one commit are the same."""
    if isinstance(field, CharField | TextField):
        return _unchanged
    prepare = partial(field.get_db_prep_save, connection=connections[DEFAULT_DB_ALIAS])
    return lru_cache(maxsize=8)(prepare) if isinstance(field, DateTimeField) else prepare


def _unchanged(value: Any) -> Any:
    return value


@lru_cache(maxsize=512)
def _selection(model: type[Model], key: str, count: int) -> str:
    names = ", ".join(_quote(f) for f in model._meta.concrete_fields)
    where = f"{_quote(_field(model, key))} IN ({_marks(range(count))})"
    return f"SELECT {names} FROM {_table(model)} WHERE {where}"


@cache
def _converters(model: type[Model]) -> list[tuple[int, Any, Any]]:
    """For each column that needs conversion: its position, the function, and the column."""
    vendor = connections[DEFAULT_DB_ALIAS]
    found = []
    for place, field in enumerate(model._meta.concrete_fields):
        column = field.get_col(model._meta.db_table)
        for convert in vendor.ops.get_db_converters(column) + field.get_db_converters(vendor):
            found.append((place, convert, column))
    return found


def _field(model: type[Model], name: str) -> Field[Any, Any]:
    return model._meta.get_field(name)  # type: ignore[return-value]


@cache
def _q(name: str) -> str:
    return connection.ops.quote_name(name)


def _quote(field: Field[Any, Any]) -> str:
    return _q(field.column or "")


def _table(model: type[Model]) -> str:
    return _q(model._meta.db_table)


def _marks(fields: Sequence[object]) -> str:
    return ", ".join(["%s"] * len(fields))
