from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings

from agentcom.checks import BOUNDS

pytestmark = pytest.mark.sqlite_only

DOC = (settings.BASE_DIR / "docs" / "configuration.md").read_text(encoding="utf-8")
ROWS = {name: row for row in DOC.splitlines() for name in re.findall(r"^\| `(\w+)` \|", row)}


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Runs settings.py as a new process would, with this environment and nothing else set."""

    def run(**environment: str) -> dict[str, Any]:
        for name in settings.ENVIRONMENT:
            monkeypatch.delenv(name, raising=False)
        for name, value in {"AGENTCOM_DATA_DIR": str(tmp_path / "data"), **environment}.items():
            monkeypatch.setenv(name, value)
        return runpy.run_path(str(settings.BASE_DIR / "agentcom" / "settings.py"))

    return run


class TestDocumentation:
    def test_has_a_row_for_every_variable_and_no_other(self):
        assert set(ROWS) == set(settings.ENVIRONMENT)

    @pytest.mark.parametrize(("id_", "name", "low", "high"), BOUNDS)
    def test_gives_range_and_default(self, id_, name, low, high):
        default, unit = (cell.strip() for cell in ROWS[name].split("|")[2:4])

        assert unit.replace(",", "").endswith(f"{low}–{high}")
        assert float(default.strip("`")) == settings.ENVIRONMENT[name]


def test_every_variable_is_the_setting_of_the_same_name():
    names = {name for name in dir(settings) if name.startswith("AGENTCOM_")}

    parts = {"AGENTCOM_KINDS", "AGENTCOM_PROJECTIONS", "AGENTCOM_SOCKETS"}
    parts |= {"AGENTCOM_VIEW_PERMISSIONS", "AGENTCOM_ROLES"}
    assert names - parts == settings.ENVIRONMENT.keys() - {
        "DATABASE_URL",
        "REDIS_URL",
    }


def test_seconds_may_have_fractions(load):
    assert load(AGENTCOM_WORKER_TICK_S="0.25")["AGENTCOM_WORKER_TICK_S"] == 0.25


def test_what_cannot_be_read_ends_the_start_in_words():
    start = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=settings.BASE_DIR,
        env=os.environ | {"AGENTCOM_PORT": "x", "DATABASE_URL": "mysql://me:hush@db/hub"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert start.returncode == 1
    assert "AGENTCOM_PORT: 'x' is not a whole number" in start.stderr
    assert "DATABASE_URL: its value is not sqlite:" in start.stderr
    assert "Traceback" not in start.stderr
    assert "hush" not in start.stderr


def test_a_bad_value_leaves_nothing_behind(load, tmp_path):
    with pytest.raises(SystemExit, match="AGENTCOM_PORT"):
        load(AGENTCOM_PORT="x")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("extra", "modules", "name", "url"),
    [
        ("postgres", ["psycopg"], "DATABASE_URL", "postgres://me:hush@db.example/hub"),
        ("postgres", ["psycopg_pool"], "DATABASE_URL", "postgres://me:hush@db.example/hub"),
        ("redis", ["channels_redis"], "REDIS_URL", "redis://:hush@r.example/0"),
    ],
)
def test_an_extra_that_is_missing_is_named(load, monkeypatch, extra, modules, name, url):
    monkeypatch.setattr(
        "agentcom.config.find_spec", lambda module: None if module in modules else object()
    )

    with pytest.raises(SystemExit) as stop:
        load(**{name: url})

    wanted = f'{name} needs {modules[0]}, which is not installed: pip install "agentcom[{extra}]".'
    assert wanted in str(stop.value)
    assert "hush" not in str(stop.value)


def test_no_extra_is_needed_for_sqlite_alone(load, monkeypatch):
    monkeypatch.setattr("agentcom.config.find_spec", lambda module: None)

    load()


class TestHosts:
    local = ("localhost", "127.0.0.1", "[::1]")

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0", "::"])
    def test_are_the_local_ones(self, load, host):
        assert load(AGENTCOM_HOST=host)["ALLOWED_HOSTS"] == [*self.local]

    def test_include_the_address_it_listens_on(self, load):
        assert load(AGENTCOM_HOST="192.0.2.7")["ALLOWED_HOSTS"] == [*self.local, "192.0.2.7"]
        assert load(AGENTCOM_HOST="2001:db8::7")["ALLOWED_HOSTS"] == [*self.local, "[2001:db8::7]"]

    def test_are_those_named_and_no_others(self, load):
        assert load(AGENTCOM_ALLOWED_HOSTS="a.example, b.example")["ALLOWED_HOSTS"] == [
            "a.example",
            "b.example",
        ]


class TestPathPrefix:
    def test_is_before_all_that_has_an_address(self, load):
        under = load(AGENTCOM_PATH_PREFIX="/tools/agentcom/")
        assert under["FORCE_SCRIPT_NAME"] == "/tools/agentcom"
        assert under["STATIC_URL"] == "/tools/agentcom/static/"
        assert under["SESSION_COOKIE_PATH"] == under["CSRF_COOKIE_PATH"] == "/tools/agentcom"

    def test_is_absent_by_default(self, load):
        assert load()["FORCE_SCRIPT_NAME"] is None
        assert load(AGENTCOM_PATH_PREFIX="/")["STATIC_URL"] == "/static/"

    @pytest.mark.parametrize(
        "value", ["agentcom", "//x", "/a/../b", "/a b", "/a?b", "/api", "/ws/x", "https://h/a"]
    )
    def test_that_is_no_path_of_its_own_ends_the_start(self, load, value):
        with pytest.raises(SystemExit, match="AGENTCOM_PATH_PREFIX"):
            load(AGENTCOM_PATH_PREFIX=value)


class TestSecretKey:
    def test_is_the_same_at_the_next_start(self, load, tmp_path):
        first = load()

        assert load()["SECRET_KEY"] == first["SECRET_KEY"]
        assert (tmp_path / "data" / "secret_key").read_text().strip() == first["SECRET_KEY"]

    def test_that_is_set_is_not_kept(self, load, tmp_path):
        assert load(AGENTCOM_SECRET_KEY="from-outside")["SECRET_KEY"] == "from-outside"
        assert not (tmp_path / "data" / "secret_key").exists()


class TestDatabase:
    def test_is_a_file_that_keeps_what_was_acked(self, load, tmp_path):
        database = load()["DATABASES"]["default"]

        assert database["NAME"] == tmp_path / "data" / "agentcom.sqlite3"
        assert database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
        assert "journal_mode=WAL" in database["OPTIONS"]["init_command"]
        assert "synchronous=FULL" in database["OPTIONS"]["init_command"]

    def test_on_postgresql_has_a_pool_and_takes_options_from_its_address(self, load, tmp_path):
        url = "postgres://me:secret@db.example/hub?connect_timeout=2&conn_max_age=60"

        database = load(DATABASE_URL=url, AGENTCOM_SECRET_KEY="k")["DATABASES"]["default"]

        assert database["ENGINE"] == "django.db.backends.postgresql"
        assert database["OPTIONS"]["connect_timeout"] == 2
        assert database["OPTIONS"]["application_name"] == "agentcom"
        kept = 2 + 6  # by the Writer, the worker and the readers, for as long as the process runs
        assert database["OPTIONS"]["pool"]["max_size"] >= kept + 4
        assert database["CONN_MAX_AGE"] == 0  # Django refuses anything else beside a pool
        assert not (tmp_path / "data").exists()


def test_redis_carries_hints_where_there_is_one(load):
    assert load()["CHANNEL_LAYERS"]["default"]["BACKEND"].endswith("InMemoryChannelLayer")

    layer = load(REDIS_URL="redis://r.example:6379/0")["CHANNEL_LAYERS"]["default"]
    assert layer["BACKEND"].endswith("RedisPubSubChannelLayer")
    [host] = layer["CONFIG"]["hosts"]
    assert host["address"] == "redis://r.example:6379/0"


def test_behind_tls_cookies_stay_on_https(load):
    assert "SESSION_COOKIE_SECURE" not in load()

    secure = load(AGENTCOM_SECURE="true")
    assert secure["SESSION_COOKIE_SECURE"] is True
    assert secure["CSRF_COOKIE_SECURE"] is True
    assert secure["SECURE_HSTS_SECONDS"] > 0
    assert secure["SECURE_PROXY_SSL_HEADER"] == ("HTTP_X_FORWARDED_PROTO", "https")


def test_the_server_logs_its_own_doings_only_for_developers(load):
    assert load()["LOGGING"]["loggers"]["daphne"]["level"] == "WARNING"
    assert load(AGENTCOM_LOG_LEVEL="debug")["LOGGING"]["loggers"]["daphne"]["level"] == "NOTSET"
