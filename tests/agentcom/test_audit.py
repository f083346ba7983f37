"""The audit trail's commands and table: entries come with their change, once, and stay."""

from __future__ import annotations

import logging
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.utils import timezone

from agentcom import actors
from agentcom.audit import acting
from agentcom.audit.entries import Act, Audited, Entry, Record, Row, What
from agentcom.audit.gathered import ELSEWHERE, MAX_KEPT, Gathered
from agentcom.audit.lines import entry_json, matching
from agentcom.database import readiness
from agentcom.errors import Refused, Unavailable
from agentcom.models import AuditEntry, Outcome
from agentcom.work import Wanted, Work
from agentcom.writer import writer
from fleet.models import AgentToken
from fleet.tokens import CreateTokens, RevokeToken
from tasks.models import Task
from tasks.steering import Cancel, Retry
from tests.tasks.play import BOSS, again, do, submit
from worker import pruning

pytestmark = pytest.mark.django_db

ADDRESS = "192.0.2.7"


class Poison:
    actor = actors.HUB

    def rows(self) -> Wanted:
        return []

    def apply(self, work: Work) -> None:
        raise ZeroDivisionError


def only() -> AuditEntry:
    return AuditEntry.objects.get()


def old(days: float, **columns: Any) -> AuditEntry:
    entry = Row(Entry(Act(What.LOGIN), BOSS)).columns()
    return AuditEntry.objects.create(
        at=timezone.now() - timedelta(days=days), **{**entry, **columns}
    )


class TestWithItsChange:
    def test_an_entry_says_who_what_from_where_and_why(self):
        task = submit()
        do(Audited(Cancel(task.task_id, BOSS, "wrong customer"), ADDRESS))
        assert again(task).status == "cancelled"
        entry = only()
        said = (entry.actor, entry.what, entry.subject, entry.address, entry.reason, entry.outcome)
        assert said == (BOSS, "task.cancel", task.task_id, ADDRESS, "wrong customer", "done")
        assert (entry.detail, entry.count) == ("", 1)

    def test_a_refused_command_leaves_none_behind(self):
        [refused] = writer.commit([Audited(Retry("task-none", BOSS), ADDRESS)])
        assert isinstance(refused, Refused)
        assert not AuditEntry.objects.exists()

    def test_neither_is_committed_without_the_other(self):
        task = submit()
        with pytest.raises(ZeroDivisionError):
            writer.commit([Audited(Cancel(task.task_id, BOSS), ADDRESS), Poison()])
        assert again(task).status == "queued"
        assert not AuditEntry.objects.exists()

    def test_applied_again_it_is_one_entry(self):
        """As after a commit whose reply was lost, of a command without an event."""
        task = submit()
        do(Cancel(task.task_id, BOSS))
        audited = Audited(Cancel(task.task_id, BOSS), ADDRESS)
        do(audited)
        do(audited)
        assert only().what == "task.cancel"
        record = Record((Row(Entry(Act(What.LOGIN), BOSS)),))
        writer.commit([record, record])
        do(record)
        assert AuditEntry.objects.filter(what="login").count() == 1

    def test_what_changed_nothing_says_so(self):
        do(CreateTokens({"a-1": "ab" * 32}))
        for _ in range(2):
            do(Audited(RevokeToken("ab" * 32, BOSS, "a-1"), ADDRESS))
        details = AuditEntry.objects.order_by("id").values_list("detail", flat=True)
        assert list(details) == ["hash abababababab", "hash abababababab, revoked before"]

    def test_texts_are_bounded_and_storable(self):
        act = Act(What.LOGIN, "s" * 1000, "r" * 1000, "\x1b[31md\x00\udc80" + "d" * 1000)
        do(Record((Row(Entry(act, "user:" + "u" * 500, "a" * 500)),)))
        entry = only()
        lengths = [len(getattr(entry, name)) for name in ("subject", "reason", "detail", "address")]
        assert lengths == [200, 500, 500, 64]
        assert entry.detail.startswith("d?d")


class TestOnAThread:
    """As the admin and the command line do."""

    @pytest.fixture(autouse=True)
    def on_this_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The Writer's thread would not see what a test has not committed."""
        monkeypatch.setattr(
            writer, "call_all", lambda commands, timeout=None: writer.commit(commands)
        )

    def test_a_refusal_gets_an_entry_after_it(self):
        task = submit()
        outcomes = acting.call_all([Cancel(task.task_id, BOSS), Retry("task-none", BOSS)], ADDRESS)
        assert isinstance(outcomes[1], Refused)
        done, refused = AuditEntry.objects.order_by("id")
        assert (done.outcome, done.subject) == ("done", task.task_id)
        assert (refused.outcome, refused.subject) == ("refused", "task-none")
        assert (refused.detail, refused.address) == ("not_found", ADDRESS)

    def test_the_command_line_is_told_of_a_refusal(self):
        with pytest.raises(Refused, match="token_not_found"):
            acting.call(RevokeToken("none", actors.HUB, "a-1"), note="eve")
        assert only().detail == "token_not_found, hash none, eve"


async def test_while_nothing_can_be_committed_the_log_has_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    gathered = Gathered()
    monkeypatch.setattr("agentcom.audit.acting.gathered", gathered)
    monkeypatch.setattr(readiness, "fault", "the database does not answer")
    with pytest.raises(Unavailable):
        await acting.do(Retry("task-0123456789abcdef", BOSS), ADDRESS)
    await acting.record(Entry(Act(What.LOGIN, "eve"), "user:eve", ADDRESS))
    await gathered.commit()
    told = [record.getMessage() for record in caplog.records]
    about = f"task.retry task-0123456789abcdef failed (unavailable): {BOSS} from {ADDRESS}"
    assert about in told
    assert any("login eve done: user:eve" in line for line in told)
    assert [row.entry.code for row in gathered._left] == ["unavailable"]  # for the next time


class TestGathered:
    def test_equal_ones_are_counted_and_logged_once(self, caplog: pytest.LogCaptureFixture):
        gathered = Gathered()
        for _ in range(50):
            gathered.note(Entry(Act(What.TOKEN_WRONG), "anyone", ADDRESS, Outcome.REFUSED))
        assert len(caplog.records) == 1
        [row] = gathered._take()
        assert (row.entry.address, row.count) == (ADDRESS, 50)
        assert "50 times in a minute" in caplog.records[-1].getMessage()
        assert gathered._take() == []

    def test_of_many_addresses_there_are_few(self, caplog: pytest.LogCaptureFixture):
        gathered = Gathered()
        for number in range(15_000):
            gathered.note(Entry(Act(What.TOKEN_WRONG), "anyone", f"a{number}", Outcome.REFUSED))
        rows = gathered._take()
        assert len(rows) == MAX_KEPT + 1
        assert sum(row.count for row in rows) == 15_000
        assert (rows[-1].entry.address, rows[-1].entry.act.detail) == ("", ELSEWHERE)
        assert len(caplog.records) <= MAX_KEPT + 2


class TestAppendOnly:
    def test_no_row_can_be_changed(self):
        entry = old(days=100)
        with pytest.raises(DatabaseError, match="never changed"), transaction.atomic():
            AuditEntry.objects.filter(pk=entry.pk).update(actor="user:nobody")
        assert only().actor == BOSS

    def test_a_young_row_cannot_be_deleted_but_an_old_one(self):
        if connection.vendor == "sqlite":  # without it for other tests, see tests/conftest.py
            migration = import_module("agentcom.migrations.0004_audit")
            with connection.cursor() as cursor:
                cursor.execute(migration.ON_SQLITE[1])
        young = old(days=0.9)
        with pytest.raises(DatabaseError, match="kept for a day"), transaction.atomic():
            AuditEntry.objects.all().delete()
        old(days=1.1)
        AuditEntry.objects.exclude(pk=young.pk).delete()
        assert only() == young

    @pytest.mark.parametrize(
        ("days", "left"), [(400, [0.1, 399]), (0, [0.1, 399, 401]), (0.5, [0.1])]
    )
    def test_the_worker_drops_what_is_old(self, settings: Any, days: float, left: list[float]):
        settings.AGENTCOM_AUDIT_RETENTION_DAYS = days
        for age in (0.1, 399, 401):
            old(age, subject=str(age))
        writer.commit(pruning.steps(timezone.now()))
        kept = AuditEntry.objects.order_by("-at").values_list("subject", flat=True)
        assert [float(subject) for subject in kept] == left


class TestInTheAdmin:
    PAGE = "/admin/agentcom/auditentry/"

    @pytest.fixture
    def boss(self) -> Client:
        boss = Client()
        boss.force_login(User.objects.create_superuser("boss"))
        return boss

    def found(self, boss: Client, **query: str) -> list[str]:
        answer = boss.get(self.PAGE, query)
        assert answer.status_code == 200
        return [entry.subject for entry in answer.context["cl"].result_list]

    def test_the_newest_is_first_and_can_be_found(self, boss: Client):
        old(9, subject="task-0123456789abcdef", what="task.cancel", address=ADDRESS, actor="anyone")
        old(8, subject="hold-1", what="hold.lift", outcome="refused", actor="user:eve")
        old(7, subject="eve", count=50)
        assert self.found(boss) == ["eve", "hold-1", "task-0123456789abcdef"]
        assert self.found(boss, q="eve") == ["eve", "hold-1"]
        assert self.found(boss, q=ADDRESS) == ["task-0123456789abcdef"]
        assert self.found(boss, q="task-0123456789abcdef") == ["task-0123456789abcdef"]
        assert self.found(boss, what="hold.lift") == ["hold-1"]
        assert self.found(boss, outcome="refused") == ["hold-1"]
        day = timezone.localtime() - timedelta(days=9)
        dated = {"at__year": day.year, "at__month": day.month, "at__day": day.day}
        chosen = {name: str(part) for name, part in dated.items()}
        assert self.found(boss, **chosen) == ["task-0123456789abcdef"]
        assert "50 times" in boss.get(self.PAGE).content.decode()

    def test_nobody_changes_or_deletes_there(self, boss: Client):
        entry = old(9, reason="because")
        page = f"{self.PAGE}{entry.pk}/"
        assert "because" in boss.get(f"{page}change/").content.decode()
        for path in (f"{page}change/", f"{page}delete/", f"{self.PAGE}add/"):
            assert boss.post(path, {"reason": "another", "post": "yes"}).status_code == 403
        action = {"action": "delete_selected", "_selected_action": [entry.pk], "post": "yes"}
        boss.post(self.PAGE, action)
        assert only().reason == "because"


class TestExport:
    def test_is_in_order_and_by_time(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("agentcom.audit.lines.STEP", 2)
        entries = [old(days) for days in (5, 4, 3, 2, 1)]
        assert list(matching()) == entries
        assert list(matching(entries[1].at, entries[3].at)) == entries[1:3]

    def test_a_line_has_all_but_the_key(self):
        columns = {field.name for field in AuditEntry._meta.fields}
        assert entry_json(old(1)).keys() == columns - {"key"}


def test_no_entry_has_what_is_secret():
    """Of each command that takes a secret or a text."""
    task = submit(description="the secret plan")
    do(Audited(Cancel(task.task_id, BOSS, "a reason"), ADDRESS))
    do(Audited(CreateTokens({"a-1": "cd" * 32}), ADDRESS))
    stored = str(list(AuditEntry.objects.values()))
    assert Task.objects.get().description not in stored
    assert AgentToken.objects.get().token_hash not in stored


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
