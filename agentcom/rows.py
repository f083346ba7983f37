"""Bulk reads and writes built from a model's `_meta`.

On SQLite, prepared statements with `executemany` write two to seven times as many rows as Django's
bulk methods. On PostgreSQL round trips cost most, so a commit's statements are sent as one text
(both measured, see docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.models import (
    CharField,
    DateTimeField,
    Field,
    IntegerField,
    JSONField,
    Model,
    TextField,
)
from django.db.models.base import ModelState

from agentcom.database import execute_all, literals
from agentcom.wire import decode, encode

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
    found = _instance(model, zip(places(model), values, strict=True))
    found._state.adding, found._state.db = False, DEFAULT_DB_ALIAS
    return found


def new(model: type[M], **values: Any) -> M:
    """An instance with these values, and the defaults of the columns that are left out.

    Takes a fifth of the time of the model's constructor, which also looks for relations and
    listeners; the hub's models have none.
    """
    defaults, makers = _defaults(model)
    if unknown := values.keys() - defaults.keys():
        raise TypeError(f"{model.__name__} has no {', '.join(sorted(unknown))}")
    instance = _instance(model, defaults)
    instance.__dict__.update(values)
    for name, make in makers:
        if name not in values:
            instance.__dict__[name] = make()
    return instance


def _instance(model: type[M], values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> M:
    instance = model.__new__(model)
    instance._state = ModelState()
    instance.__dict__.update(values)
    return instance


@cache
def _defaults(
    model: type[Model],
) -> tuple[dict[str, Any], list[tuple[str, Callable[[], Any]]]]:
    """The default of each column, and what makes those that are not the same for all rows."""
    fields = model._meta.concrete_fields
    makers = [f for f in fields if f.has_default() and callable(f.default)]
    defaults = {f.attname: None if f in makers else f.get_default() for f in fields}
    return defaults, [(f.attname, f.default) for f in makers]


def insert(model: type[Model], rows: Sequence[Model]) -> Statement:
    fields, sql, values = _insertion(model, bool(rows[0].pk))
    return Statement(sql, _prepared(fields, _values(fields, rows)), part=values)


@cache
def _insertion(model: type[Model], with_pk: bool) -> tuple[Fields, str, str]:
    """The columns, the statement, and what stands for a row in it."""
    fields = tuple(f for f in model._meta.concrete_fields if with_pk or not f.primary_key)
    names, values = ", ".join(_quote(f) for f in fields), f"({_marks(fields)})"
    return fields, f"INSERT INTO {_table(model)} ({names}) VALUES {values}", values


def update(model: type[Model], rows: Iterable[Model], names: tuple[str, ...]) -> Statement:
    """Set the named columns of each row, found by its primary key."""
    fields, sql, part = _updating(model, names)
    return Statement(sql, _prepared(fields, _values(fields, rows)), part)


@lru_cache(maxsize=512)
def _updating(model: type[Model], names: tuple[str, ...]) -> tuple[Fields, str, str]:
    """The columns, the statement, and what is repeated in it for many rows."""
    pk = model._meta.pk
    fields = (*(_field(model, name) for name in names), pk)
    table, key = _table(model), _quote(pk)
    if connection.vendor != "postgresql":
        sets = ", ".join(f"{_quote(f)} = %s" for f in fields[:-1])
        sql = f"UPDATE {table} SET {sets} WHERE {key} = %s"
        return fields, sql, sql
    # one statement for all rows: a thousand of them take PostgreSQL twice as long to plan and run
    sets = ", ".join(f"{_quote(f)} = new.{_quote(f)}" for f in fields[:-1])
    part = f"({', '.join(f'%s::{_type(f)}' for f in fields)})"
    columns_ = ", ".join(map(_quote, fields))
    sql = (
        f"UPDATE {table} SET {sets} FROM (VALUES {part}) AS new({columns_}) "
        f"WHERE {table}.{key} = new.{key}"
    )
    return fields, sql, part


def _type(field: Field[Any, Any]) -> str:
    """For a cast. Without a length, to which PostgreSQL would cut texts without an error."""
    if isinstance(field, CharField):
        return "text"
    return field.db_type(connection) or "text"


def delete(model: type[Model], rows: Iterable[Model]) -> Statement:
    pk = model._meta.pk
    sql = f"DELETE FROM {_table(model)} WHERE {_quote(pk)} = %s"
    return Statement(sql, _prepared((pk,), ([row.pk] for row in rows)), part=sql)


def increment(model: type[Model], steps: Iterable[Step]) -> Statement:
    """Add to counters, inserting missing rows.

    Each step is ``(the row's unique columns, {counter column: amount})``; steps of one row are
    added up first, and a row whose sums are 0 is left as it is. A counter stays at its maximum: an
    overflow would fail the commit of the whole group, or make SQLite store a floating point number.
    """
    sums: dict[tuple[Any, ...], dict[str, int]] = {}
    names: tuple[str, ...] = ()
    for key, amounts in steps:
        names = names or tuple(key)
        row = sums.setdefault(tuple([key[name] for name in names]), {})
        for name, amount in amounts.items():
            row[name] = row.get(name, 0) + amount
    counted = {name for row in sums.values() for name in row}
    counters = tuple(name for name in columns(model) if name in counted)
    fields, sql, values, zeros = _upsert(model, names, counters)
    most = [_max_count(_field(model, name)) for name in counters]
    found = (
        [*key, *(min(row.get(c, 0), m) for c, m in zip(counters, most, strict=True)), *zeros]
        for key, row in sums.items()
        if any(row.values())
    )
    return Statement(sql, _prepared(fields, found), part=values)


@lru_cache(maxsize=128)
def _upsert(
    model: type[Model], keys: tuple[str, ...], counters: tuple[str, ...]
) -> tuple[Fields, str, str, tuple[Any, ...]]:
    """The columns, the statement, what stands for a row in it, and the values of the columns that
    are neither key nor counter."""
    table = _table(model)
    given = tuple(_field(model, name) for name in (*keys, *counters))
    others = tuple(f for f in model._meta.concrete_fields if f not in given and not f.primary_key)
    adds = ", ".join(_add(table, _q(c), _max_count(_field(model, c))) for c in counters)
    fields = (*given, *others)
    values = f"({_marks(fields)})"
    sql = (
        f"INSERT INTO {table} ({', '.join(_quote(f) for f in fields)}) VALUES {values} "
        f"ON CONFLICT ({', '.join(_q(k) for k in keys)}) DO UPDATE SET {adds}"
    )
    return fields, sql, values, tuple(f.get_default() for f in others)


def _add(table: str, column: str, most: int) -> str:
    kept, more = f"{table}.{column}", f"excluded.{column}"
    return f"{column} = CASE WHEN {kept} > {most} - {more} THEN {most} ELSE {kept} + {more} END"


def _max_count(counter: Field[Any, Any]) -> int:
    return COUNTER_MAX[counter.get_internal_type()]


def run(statements: Iterable[Statement]) -> bool:
    """Execute each statement for all its rows, in order; on PostgreSQL all in one round trip.
    Returns whether there was anything to do."""
    prepared = [statement for statement in statements if statement.rows]
    if not prepared:
        return False
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(";".join(_one_text(statement) for statement in prepared))
        else:
            for statement in prepared:
                cursor.executemany(statement.sql, statement.rows)
    return True


def _one_text(statement: Statement) -> str:
    """The statement for all its rows, with their values: planned once instead of once a row."""
    before, part, after = statement.sql.partition(statement.part)
    joint = ", " if before else "; "
    return before + joint.join([part % row for row in literals(statement.rows)]) + after


def _values(fields: Fields, rows: Iterable[Model]) -> Iterator[list[Any]]:
    names = [field.attname for field in fields]
    for row in rows:
        values = row.__dict__
        yield [values[name] for name in names]


def _prepared(fields: Fields, rows: Iterable[list[Any]]) -> list[list[Any]]:
    preparers, prepared = _preparers(fields), list(rows)
    for row in prepared:
        for place, prepare in preparers:
            # what is not there needs no preparation, and most columns of a task are empty
            if row[place] is not None:
                row[place] = prepare(row[place])
    return prepared


@lru_cache(maxsize=1024)
def _preparers(fields: Fields) -> list[tuple[int, Callable[[Any], Any]]]:
    """For each column whose values need preparation: its position, and the function."""
    found = ((place, _preparer(field)) for place, field in enumerate(fields))
    return [(place, prepare) for place, prepare in found if prepare is not None]


@cache
def _preparer(field: Field[Any, Any]) -> Callable[[Any], Any] | None:
    """From Python to the database; None: as it is. Cached for times: most of one commit are the
    same."""
    vendor = connections[DEFAULT_DB_ALIAS]
    if isinstance(field, CharField | TextField):
        return None
    if isinstance(field, IntegerField):
        return int if vendor.vendor == "postgresql" else None
    if isinstance(field, JSONField) and vendor.vendor == "sqlite":
        return _json_text
    prepare = partial(field.get_db_prep_save, connection=vendor)
    return lru_cache(maxsize=8)(prepare) if isinstance(field, DateTimeField) else prepare


def _json_text(value: Any) -> str:
    return encode(value).decode()


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
        for convert in _conversion(field, column, vendor):
            found.append((place, convert, column))
    return found


def _conversion(field: Field[Any, Any], column: Any, vendor: Any) -> list[Any]:
    """The functions that make a value of what the driver gives."""
    if isinstance(field, JSONField) and vendor.vendor == "sqlite":
        return [_from_json_text]
    converters = vendor.ops.get_db_converters(column) + field.get_db_converters(vendor)
    if isinstance(field, DateTimeField):
        # many rows have the time of one commit
        return [lru_cache(maxsize=256)(convert) for convert in converters]
    return list(converters)


def _from_json_text(value: str | None, column: Any, vendor: Any) -> Any:
    return None if value is None else decode(value)


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
