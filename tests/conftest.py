"""What all tests share, and what is run on PostgreSQL (`make test` with TEST_DATABASE_URL)."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from django.db import connection
from pytest_django import DjangoDbBlocker

from lab.harness.store import MIGRATE, Store, database_made_by, on_postgresql
from tests.client import django6
from tests.selection import has_processes, only_by_known_ways, runs_on_postgresql
from tests.upgrade import old

# Tests here wait for signals. One that never comes must not hold up the run: after so many seconds,
# or those of its marker `bound_s`, a test ends.
BOUNDS_S = {"flow": 30, "upgrade": 60, "cluster": 90, "faults": 120}

# How long an example takes says more about the machine than about what is tested.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

left_out = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips", action="store_true", help="a skipped test fails the run, as it does in CI"
    )
    parser.addoption(
        "--upgraded",
        action="store_true",
        help="each hub begins with the filled database of tests/upgrade, brought up to date",
    )
    parser.addoption(
        "--not-on-postgresql",
        action="store_true",
        help="on SQLite, only what a run on PostgreSQL leaves out",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--upgraded"):
        Store.made_by = old.command_for(old.minutes_since(), "--migrate")
    for line in (
        "postgresql: is about PostgreSQL or Redis; left out without",
        "empty_hub: counts all that its hub has; left out with --upgraded",
        "bound_s(seconds): ends the test, instead of the bound of its folder",
        "sqlite_only: is about SQLite, or about no database; left out on PostgreSQL",
    ):
        config.addinivalue_line("markers", line)


def pytest_report_header() -> list[str]:
    python = django6.base() or "no Python 3.12 or newer here, so test_django_backend.py is left out"
    return [f"database: {connection.vendor}", f"Django 6: {python}"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what says nothing about this database. Not skipped: nothing is missing."""
    foreign = [item for item in items if _is_foreign(item, config)]
    config.stash[left_out] = len(foreign)
    if foreign:
        config.hook.pytest_deselected(items=foreign)
        items[:] = [item for item in items if not _is_foreign(item, config)]
    # Tests with processes of their own take long and wait much: they begin, and what is over in
    # milliseconds fills the gaps at the end.
    slow = {item.path for item in items if has_processes(item)}
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        bound_s = BOUNDS_S.get(item.path.parent.name)
        if bound_s is not None and isinstance(item, pytest.Function):
            marker = item.get_closest_marker("bound_s")
            item.obj = _bounded(item.obj, marker.args[0] if marker else bound_s)


def _bounded(test: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    if not inspect.iscoroutinefunction(test):
        return test

    @functools.wraps(test)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(seconds):
            await test(*args, **kwargs)

    return bounded


def _is_foreign(item: pytest.Item, config: pytest.Config) -> bool:
    if config.getoption("--upgraded") and item.get_closest_marker("empty_hub"):
        return True
    if on_postgresql():
        return not runs_on_postgresql(item)
    if item.get_closest_marker("postgresql"):
        return True
    return bool(config.getoption("--not-on-postgresql")) and runs_on_postgresql(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with only_by_known_ways(item):
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """One of the processes side by side has ended; each has collected all tests.

    One that crashed says nothing more, and xdist reports it.
    """
    if hasattr(node, "workeroutput"):
        node.config.stash[left_out] = node.workeroutput["left_out"]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(left_out, 0)
    none_left = session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
    if none_left and session.config.stash.get(left_out, 0):
        session.exitstatus = pytest.ExitCode.OK
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not session.config.getoption("--no-skips"):
        return
    if reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line("Skipped tests count as failures here: their services must be there.")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """On PostgreSQL, the tests' own database is a copy of what each hub begins with."""
    if on_postgresql():
        connection.settings_dict["TEST"]["TEMPLATE"] = database_made_by(MIGRATE)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Readers and the Writer keep their connections; no database is dropped under them."""
    if not on_postgresql():  # Django empties the tables after a test, by DELETE
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER audit_no_delete")
    yield
    if on_postgresql():
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid != pg_backend_pid()"
            )
