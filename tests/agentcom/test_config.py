from __future__ import annotations

import logging
from pathlib import Path

import pytest

from agentcom.config import Environment, WithoutTraceback

pytestmark = pytest.mark.sqlite_only


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        ("whole", " 4001 ", 4001),
        ("number", "0.5", 0.5),
        ("number", "3", 3.0),
        ("flag", "Yes", True),
        ("flag", "off", False),
        ("text", "$plain", "$plain"),
        ("time_zone", "Europe/Berlin", "Europe/Berlin"),
    ],
)
def test_reads_a_value(kind, raw, value):
    env = Environment({"X": raw})

    assert getattr(env, kind)("X", 1) == value
    assert env.problems == []


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("whole", "4000.5"),
        ("whole", "four"),
        ("number", "1,5"),
        ("number", "nan"),
        ("number", "inf"),
        ("flag", "maybe"),
        ("time_zone", "Mars/Olympus"),
        ("time_zone", "../etc/passwd"),
        ("time_zone", "/etc/passwd"),
    ],
)
def test_tells_of_a_value_it_cannot_read(kind, raw):
    env = Environment({"X": raw})

    getattr(env, kind)("X", 1)

    assert [problem.split(" is not ")[0] for problem in env.problems] == [f"X: {raw!r}"]


def test_an_empty_variable_counts_as_absent():
    assert Environment({"X": "  "}).whole("X", 7) == 7


def test_lists_lose_spaces_and_empty_words():
    assert Environment({"X": "a.example, b.example,,"}).words("X", []) == ["a.example", "b.example"]


def test_a_list_of_numbers():
    env = Environment({"X": "5, 0.5,", "Y": "5,x"})

    assert env.numbers("X", [1]) == [5.0, 0.5]
    assert env.numbers("Z", [1]) == [1.0]
    env.numbers("Y", [1])
    assert [problem.split(" is not ")[0] for problem in env.problems] == ["Y: '5,x'"]


def test_a_choice_is_spelt_as_the_code_knows_it():
    assert Environment({"X": "warning"}).choice("X", "INFO", ["INFO", "WARNING"]) == "WARNING"
    assert Environment({"X": "loud"}).choice("X", "INFO", ["INFO", "WARNING"]) == "INFO"


def test_a_relative_folder_starts_at_the_root():
    root = Path("/srv/hub")

    assert Environment({"X": "data"}).folder("X", "var", root) == Path("/srv/hub/data")
    assert Environment({"X": "/data"}).folder("X", "var", root) == Path("/data")
    assert Environment({}).folder("X", "var", root) == Path("/srv/hub/var")


def test_refuses_with_every_problem_at_once():
    env = Environment({"PORT": "x", "RATE": "y"})
    env.whole("PORT", 1)
    env.number("RATE", 1)

    with pytest.raises(SystemExit) as stopped:
        env.refuse()

    assert "PORT: 'x'" in str(stopped.value)
    assert "RATE: 'y'" in str(stopped.value)


class TestDatabase:
    default = Path("/srv/hub/var/agentcom.sqlite3")

    def test_is_sqlite_in_the_data_folder_by_default(self):
        assert Environment({}).database("X", self.default) == {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": "/srv/hub/var/agentcom.sqlite3",
        }

    def test_reads_an_address(self):
        url = "postgres://me:p%40ss@db.example:5433/hub?sslmode=require"

        database = Environment({"X": url}).database("X", self.default)

        assert database["ENGINE"] == "django.db.backends.postgresql"
        assert (database["USER"], database["PASSWORD"]) == ("me", "p@ss")
        assert (database["HOST"], database["PORT"], database["NAME"]) == ("db.example", 5433, "hub")
        assert database["OPTIONS"] == {"sslmode": "require"}

    @pytest.mark.parametrize(
        "url",
        [
            "mysql://me:hush@db/hub",
            "postgres://me:hush@db:port/hub",
            "postgres://me:hush@db",
            "sqlite://:memory:",
            "sqlite:///",
            "hush",
        ],
    )
    def test_refuses_what_the_hub_cannot_run_on_and_keeps_the_password_to_itself(self, url):
        env = Environment({"X": url})

        env.database("X", self.default)

        assert len(env.problems) == 1
        assert "hush" not in env.problems[0]


def test_what_a_client_sends_and_django_refuses_is_one_line(caplog):
    logger = logging.getLogger("django.security.DisallowedHost")
    caplog.handler.addFilter(WithoutTraceback())
    try:
        logger.error("Invalid host", exc_info=ValueError("x"))
        logging.getLogger("agentcom.api").error("A request failed", exc_info=ValueError("x"))
    finally:
        caplog.handler.filters.clear()

    assert [record.exc_info is None for record in caplog.records] == [True, False]
