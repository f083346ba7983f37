"""What errors are reduced to, so that those of one cause form one group."""

from __future__ import annotations

import time
from datetime import datetime
from importlib import import_module
from uuid import UUID

import pytest
from django.apps import apps
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from fleet.models import Agent
from tasks.causes import CAUSE_MAX, NOTHING, cause_of, group_of
from tasks.models import Task
from tasks.queue import Fail
from tasks.steering import Retry
from tests.tasks.play import BOSS, again, assigned, claim, dead, do

COLOURLESS = "Error: model not found in registry"
SAID = [
    ("the model did not answer", "the model did not answer"),
    ("no answer within 30 s", "no answer within … s"),
    ("context too long (130,211 > 128,000.5 tokens)", "context too long (… > … tokens)"),
    ("task-0123456789abcdef is gone", "task-… is gone"),
    ("agent-7 hung up on req_8f3kd72x", "agent-… hung up on …"),
    ("7d444840-9dc0-11d1-b245-5ffdce74fad2 not found", "… not found"),
    ("segfault at 0x7ffe, commit 4f6e2a9", "segfault at …, commit …"),
    ("bad literal \"x y\" and 'z' and `w`", "bad literal … and … and …"),
    ("can't reach the model's host", "can't reach the model's host"),
    ("cannot open /var/lib/run-12/a.json: denied", "cannot open …: denied"),
    ("cannot open ~/notes or C:\\temp\\x.txt", "cannot open … or …"),
    ("GET https://api.example.com/v1/x?y=1 refused", "GET … refused"),
    ("mail to bob@example.com bounced", "mail to … bounced"),
    ("expired at 2026-11-25T02:59:33.120+01:00", "expired at …"),
    ("expired Wed, 25 Nov 2026 02:59:33 GMT", "expired … GMT"),
    ("Nov 25 02:59:33 worker 7 failed", "… worker … failed"),
    ("and/or 1, 2, 3 of   it\nagain", "and/or … of it again"),
    ("the face of a decade", "the face of a decade"),
    ("\x1b[31;1mError:\x1b[0m model not found in \x1b[36mregistry\x1b[0m", COLOURLESS),
    ("\x1b[2K\r\x1b[31mError:\x1b[39m model not found in registry", COLOURLESS),
    ("\x1b[38;5;196m" * 90 + "no " + "\x1b[1m" * 90 + "luck", "no luck"),
    ("\x1b[0m", NOTHING),
    ("", NOTHING),
    (" \n", NOTHING),
]


@pytest.mark.parametrize(("error", "cause"), SAID)
def test_what_differs_from_task_to_task_is_left_out(error: str, cause: str) -> None:
    assert cause_of(error) == cause


@pytest.mark.sqlite_only
@given(
    first=st.tuples(st.integers(0), st.uuids(), st.datetimes()),
    second=st.tuples(st.integers(0), st.uuids(), st.datetimes()),
)
def test_errors_that_differ_in_numbers_ids_and_dates_form_one_group(
    first: tuple[int, UUID, datetime], second: tuple[int, UUID, datetime]
) -> None:
    groups = set()
    for number, id_, moment in (first, second):
        error = f"attempt {number} of task {id_} ended at {moment.isoformat(sep=' ')}: no luck"
        groups.add(group_of(error))
    assert len(groups) == 1


@pytest.mark.sqlite_only
@given(error=st.text(max_size=2_000))
def test_any_error_has_a_short_cause_of_one_line(error: str) -> None:
    cause = cause_of(error)
    assert 1 <= len(cause) <= CAUSE_MAX
    assert "\n" not in cause
    assert not any("0" <= letter <= "9" for letter in cause)
    assert len(group_of(error)) == 16


@pytest.mark.parametrize("piece", ["/", "a", "1", "'", "a1", "-", "Mon ", "a.", "a-", "ab12cd-"])
def test_no_error_takes_long(piece: str) -> None:
    """The Writer waits for it; a pattern that backtracks would take minutes."""
    began = time.process_time()
    cause_of(piece * 16_384)
    assert time.process_time() - began < 0.2


@pytest.mark.django_db
class TestKept:
    def test_a_task_belongs_to_a_group_while_it_is_a_dead_letter(self) -> None:
        task = assigned(max_retries=2)
        do(Fail(task.task_id, "a-1", 1, error="a first time"))
        assert again(task).cause is None
        assert claim(Agent.objects.get()) == [("a-1", task.task_id)]
        do(Fail(task.task_id, "a-1", 3, error="once more"))
        assert again(task).cause == group_of("once more")
        do(Retry(task.task_id, BOSS))
        assert again(task).cause is None

    def test_those_that_died_before_join_the_group_without_colours(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        letters = [dead(f"a-{n}") for n in range(5)]
        alive = assigned("a-9")
        numbers = [task.number for task in letters[:3]]
        Task.objects.filter(number__in=numbers).update(last_error="\x1b[1mbroken", cause="f" * 16)
        migration = import_module("tasks.migrations.0005_plain_causes")
        monkeypatch.setattr(migration, "BATCH", 2)
        migration.fill(apps, connection.schema_editor())
        assert {again(task).cause for task in letters} == {group_of("broken")}
        assert again(letters[0]).last_error == "\x1b[1mbroken"
        assert again(alive).cause is None

    def test_the_migration_fills_it_for_those_that_died_before(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        letters = [dead(f"a-{n}") for n in range(3)]
        alive = assigned("a-9")
        Task.objects.update(cause=None)
        migration = import_module("tasks.migrations.0003_causes")
        monkeypatch.setattr(migration, "BATCH", 2)
        migration.fill(apps, connection.schema_editor())
        assert {again(task).cause for task in letters} == {group_of("broken")}
        assert again(alive).cause is None
