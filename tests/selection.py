"""Which tests run on PostgreSQL: those that use a database, found by what they use.

A test can get at a database in two ways only. pytest-django opens the process's own for tests with
the marker `django_db`. A `Store` (lab/harness) is one for other processes; who makes it has
something of lab.harness in their module, be it the test's or that of a fixture. Where neither is
so, `only_by_known_ways` lets the test make no `Store`, and pytest-django opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import pytest

from lab.harness.store import Store

# The page and the client see frames and answers, of which the flow tests hold that they are the
# same on both. The flow tests also run the client's library.
CLIENTS = {Path(__file__).parent / name for name in ("browser", "client")}
DJANGO_FIXTURES = {"db", "transactional_db", "django_db_setup"}


def uses_database(item: pytest.Item) -> bool:
    if item.get_closest_marker("django_db") or DJANGO_FIXTURES.intersection(_fixture_names(item)):
        return True
    return has_processes(item)


def has_processes(item: pytest.Item) -> bool:
    """Whether it may have hubs, or other processes that have a database."""
    return any(_knows_harness(names) for names in _namespaces(item))


def runs_on_postgresql(item: pytest.Item) -> bool:
    if item.get_closest_marker("sqlite_only") or CLIENTS.intersection(item.path.parents):
        return False
    return bool(item.get_closest_marker("postgresql")) or uses_database(item)


@contextmanager
def only_by_known_ways(item: pytest.Item) -> Iterator[None]:
    """A test that is left out on PostgreSQL by mistake fails on SQLite."""
    if uses_database(item):
        yield
        return
    with patch.object(Store, "__init__", _refuse):
        yield


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("This test has a database in a way that tests/selection.py does not see.")


def _fixture_names(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


def _namespaces(item: pytest.Item) -> Iterator[dict[str, Any]]:
    """Of the test's module, and of those of its fixtures."""
    if isinstance(item, pytest.Function):
        yield vars(item.module)
        for definitions in item._fixtureinfo.name2fixturedefs.values():
            for definition in definitions:
                yield getattr(definition.func, "__globals__", {})


def _knows_harness(names: dict[str, Any]) -> bool:
    return any(
        str(getattr(value, "__module__", "")).startswith("lab.harness") for value in names.values()
    )
