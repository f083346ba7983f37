"""What may be wrong around a process as it starts: one sentence each, and no traceback."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from agentcom import asgi
from agentcom.database import queries, readiness
from agentcom.errors import Unavailable
from agentcom.journal import journal
from agentcom.writer import writer
from fleet.dispatcher import Poll
from lab.harness.hub import free_port
from lab.harness.store import ROOT, Store, environment

COMMANDS = {
    "hub": ["manage.py", "hub"],
    "runworker": ["manage.py", "runworker"],
    "migrate": ["manage.py", "migrate", "-v", "0"],
    "token": ["manage.py", "token", "list"],
}
DAPHNE = ["-m", "daphne", "-v", "0", "agentcom.asgi:application", "-p"]
BOUND_S = 60
LATER = "INSERT INTO django_migrations (app, name, applied) VALUES ('tasks', '9999_later', '{}')"
MOMENT = "2030-01-01 00:00:00"


def said_at_start(command: str, place: dict[str, str], room: int | None = None) -> str:
    """What a process that cannot start says before it ends, a line each."""

    def leave_room() -> None:
        if room is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    port = str(free_port())
    arguments = COMMANDS.get(command) or [*DAPHNE, port]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(**{"AGENTCOM_PORT": port, **place}),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        preexec_fn=leave_room,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


async def first_warning(place: dict[str, str]) -> str:
    """The first line that a web process logs which waits for its database."""
    async with waiting_web_process(place) as (_, line):
        return line


@asynccontextmanager
async def waiting_web_process(place: dict[str, str]) -> AsyncIterator[tuple[str, str]]:
    """Its address, and the first line that it logs."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *DAPHNE, str(port)),
        cwd=ROOT,
        env=environment(**place),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(BOUND_S):
            yield f"http://127.0.0.1:{port}", (await process.stderr.readline()).decode()
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.sqlite_only
class TestSqlite:
    @pytest.fixture
    def place(self, tmp_path: Path) -> dict[str, str]:
        return {"AGENTCOM_DATA_DIR": str(tmp_path)}

    @pytest.mark.parametrize("command", [*COMMANDS, "daphne"])
    def test_a_folder_where_the_file_should_be(self, command, place, tmp_path):
        (tmp_path / "agentcom.sqlite3").mkdir()

        said = said_at_start(command, place)

        assert f"{tmp_path}/agentcom.sqlite3 cannot be opened (Is a directory)" in said

    @pytest.mark.parametrize("command", COMMANDS)
    def test_a_full_disk(self, command, place, tmp_path):
        said = said_at_start(command, place, room=2048)

        assert f"{tmp_path}/agentcom.sqlite3 cannot be " in said
        assert "disk is full" in said

    @pytest.mark.parametrize("command", ["hub", "migrate"])
    def test_the_database_of_another_program_of_this_kind(self, command, place, tmp_path):
        file = tmp_path / "agentcom.sqlite3"
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("CREATE TABLE django_migrations (id INTEGER, app, name, applied)")
            database.execute(f"INSERT INTO django_migrations VALUES (1, 'blog', '1', '{MOMENT}')")

        assert "belongs to another program, with the apps blog" in said_at_start(command, place)

        with closing(sqlite3.connect(file)) as database:
            tables = database.execute("SELECT name FROM sqlite_master").fetchall()
            assert tables == [("django_migrations",)]

    def test_a_start_that_was_cut_short_goes_on(self, place):
        migrate(place, "contenttypes")

        migrate(place)

    @pytest.mark.parametrize("migrated", [[], ["agents"]])
    async def test_a_database_without_all_tables_for_a_web_process(self, place, migrated):
        for app in migrated:
            migrate(place, app)
        async with waiting_web_process(place) as (address, line):
            assert re.search("The database lacks [0-9]+ migrations: run", line)
            async with httpx.AsyncClient(base_url=address) as client:
                for path in (
                    *("/health", "/health/ready", "/api/dashboard/state", "/api/tasks"),
                    "/dashboard",
                ):
                    answer = await client.get(path, headers={"Authorization": "Bearer x"})
                    assert answer.status_code == 503, path
                    assert re.search(
                        "the database lacks [0-9]+ migrations: run `manage.py migrate` first",
                        answer.text,
                    )
                assert (await client.get("/health/live")).status_code == 200
                assert "\nagentcom_ready 0.0\n" in (await client.get("/metrics")).text
                migrate(place)
                while (await client.get("/health/ready")).status_code != 200:
                    pass
                assert (await client.get("/health")).status_code == 200
                assert (await client.get("/api/dashboard/state")).status_code == 200
                assert "\nagentcom_ready 1.0\n" in (await client.get("/metrics")).text

    def test_a_database_without_tables_for_those_who_need_them(self, place):
        assert "run `manage.py migrate` first" in said_at_start("token", place)


def migrate(place: dict[str, str], *which: str) -> None:
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v", "0", *which],
        cwd=ROOT,
        env=environment(**place),
        check=True,
        timeout=BOUND_S,
    )


class TestReadiness:
    """Of what is committed before the journal has begun, no socket would hear."""

    @pytest.fixture(autouse=True)
    def starting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(readiness, "is_starting", True)

    async def test_nobody_reads_or_writes_before_the_journal_has_begun(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        begun = asyncio.Event()
        monkeypatch.setattr(asgi, "schema_fault", lambda: None)
        monkeypatch.setattr(journal, "start", begun.wait)
        ready = asyncio.create_task(asgi.Process()._get_ready())
        await asyncio.sleep(0.05)

        for called in (queries.run(int), writer.do(Poll())):
            with pytest.raises(Unavailable, match="the hub is starting"):
                await called

        readiness.require_database()  # the worker in the same process goes on

        begun.set()
        await ready
        assert await queries.run(int) == 0

    def test_threads_neither_while_the_database_is_not_that_of_this_version(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(readiness, "fault", "the database lacks 2 migrations")

        for call in (lambda: writer.call(Poll()), lambda: writer.call_all([Poll()])):
            with pytest.raises(Unavailable, match="lacks 2 migrations"):
                call()


class TestLaterVersion:
    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, tmp_path_factory: pytest.TempPathFactory) -> Store:
        store = Store(tmp_path_factory.mktemp("later"))
        if url := store.environment.get("DATABASE_URL"):
            with psycopg.connect(url, autocommit=True) as database:
                database.execute(LATER.format(MOMENT).encode())
        else:
            file = Path(store.environment["AGENTCOM_DATA_DIR"], "agentcom.sqlite3")
            with closing(sqlite3.connect(file, isolation_level=None)) as database:
                database.execute(LATER.format(MOMENT))
        return store

    @pytest.mark.parametrize("command", COMMANDS)
    def test_is_the_one_to_run(self, command, store):
        said = said_at_start(command, store.environment)

        assert "made by a later version of AgentCom (tasks.9999_later is not known here)" in said

    async def test_is_the_one_to_run_for_a_web_process_too(self, store):
        assert "made by a later version of AgentCom" in await first_warning(store.environment)


@pytest.mark.postgresql
class TestPostgresql:
    @pytest.fixture
    def place(self, tmp_path: Path) -> dict[str, str]:
        address = urlsplit(os.environ["DATABASE_URL"])._replace(path="/no_such_database")
        return {"AGENTCOM_DATA_DIR": str(tmp_path), "DATABASE_URL": address.geturl()}

    @pytest.mark.parametrize("command", COMMANDS)
    def test_says_why_it_refuses(self, command, place):
        said = said_at_start(command, place)

        assert 'FATAL:  database "no_such_database" does not exist (see DATABASE_URL)' in said

    async def test_says_why_it_refuses_a_web_process_which_waits(self, place):
        said = await first_warning(place)

        assert "Waiting for the database. PostgreSQL cannot be used" in said
        assert '"no_such_database" does not exist' in said

    def test_that_is_not_there(self, place):
        nowhere = {**place, "DATABASE_URL": f"postgres://u:hush@127.0.0.1:{free_port()}/x"}

        said = said_at_start("token", nowhere)

        assert "Connection refused (see DATABASE_URL)" in said
        assert "hush" not in said


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("REDIS_URL", "redis://localhost:port/0", "REDIS_URL is not the address of a Redis."),
        ("AGENTCOM_HOST", "nowhere.invalid", "nowhere.invalid is not an address of this machine."),
    ],
)
def test_an_address_that_is_none(name, value, sentence, tmp_path):
    place = {"AGENTCOM_DATA_DIR": str(tmp_path), name: value}

    assert sentence in said_at_start("hub", place)
