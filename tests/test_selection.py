"""Which tests run on PostgreSQL. Over tests/selection.py every run on SQLite is a test, too."""

from __future__ import annotations

from pathlib import Path
from types import FunctionType

import pytest

from lab.harness import store
from tests import selection


def this_test(request: pytest.FixtureRequest) -> pytest.Function:
    assert isinstance(request.node, pytest.Function)
    return request.node


def test_without_a_database_it_is_left_out(request: pytest.FixtureRequest):
    assert not selection.uses_database(this_test(request))
    assert not selection.runs_on_postgresql(this_test(request))


def test_without_a_database_it_gets_none(tmp_path: Path):
    with pytest.raises(AssertionError, match=r"in a way that .* does not see"):
        store.Store(tmp_path)


def test_with_the_fixture_it_is_run(request: pytest.FixtureRequest, db: None):
    assert selection.runs_on_postgresql(this_test(request))


@pytest.mark.django_db
def test_with_the_marker_it_is_run(request: pytest.FixtureRequest):
    assert selection.runs_on_postgresql(this_test(request))


def test_with_something_of_the_harness_it_is_run(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    """Such as a class of it, under whatever name."""
    monkeypatch.setitem(globals(), "Place", store.Store)
    assert selection.has_processes(this_test(request))


@pytest.fixture
def made_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for a fixture of a conftest.py that has a hub."""


def test_with_a_fixture_that_has_something_of_the_harness_it_is_run(
    request: pytest.FixtureRequest, made_elsewhere: None, monkeypatch: pytest.MonkeyPatch
):
    definitions = this_test(request)._fixtureinfo.name2fixturedefs["made_elsewhere"]
    namespace = {**globals(), "Place": store.Store}
    monkeypatch.setattr(definitions[0], "func", FunctionType(made.__code__, namespace))
    assert selection.has_processes(this_test(request))


def made() -> None:
    """What a fixture of another module would run."""


@pytest.mark.sqlite_only
@pytest.mark.django_db
def test_what_is_about_sqlite_is_left_out(request: pytest.FixtureRequest):
    assert selection.uses_database(this_test(request))
    assert not selection.runs_on_postgresql(this_test(request))
