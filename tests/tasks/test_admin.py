from __future__ import annotations

import calendar
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext, override_script_prefix
from django.utils import timezone
from django.utils.html import strip_tags

from agentcom.admin import read_only
from agentcom.admin.lists import BoundedPaginator, date_choices
from agentcom.errors import Unavailable
from agentcom.models import Node
from agentcom.writer import writer
from counters.models import Minute
from fleet.models import Agent, AgentToken
from fleet.presence import hash_of
from fleet.tokens import CreateTokens
from tasks.models import Status, Task
from tasks.queue import Accept, Complete, Fail, Progress
from tests.tasks.play import again, agent, assigned, dead, do, kinds, nothing_changes, submit
from worker.models import HealthReport, QueueSample

NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)
LISTS = [
    "tasks/task",
    "tasks/completion",
    "agentcom/event",
    "agentcom/node",
    "agents/agent",
    "agents/agenttoken",
    "counters/minute",
    "worker/queuesample",
    "worker/healthreport",
]
pytestmark = pytest.mark.django_db

MAY_TO_DECEMBER = [f"{month} 2025" for month in calendar.month_name[5:]]


@pytest.fixture(autouse=True)
def on_this_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Writer's thread would not see what a test has not committed."""
    monkeypatch.setattr(writer, "call_all", lambda commands, timeout=None: writer.commit(commands))


def client_of(*permissions: str, **user: Any) -> Client:
    """A browser with a staff member logged in."""
    staff = User.objects.create(username="staff", is_staff=True, **user)
    staff.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(staff)
    return client


@pytest.fixture
def boss() -> Client:
    return client_of(is_superuser=True)


def listed(client: Client, path: str, **query: Any) -> list[Any]:
    answer = client.get(f"/admin/{path}/", query)
    assert answer.status_code == 200
    return list(answer.context["cl"].result_list)


@pytest.mark.parametrize("prefix", ["", "/hub"])
def test_a_login_from_nowhere_leads_to_the_admin(prefix: str) -> None:
    User.objects.create_superuser("boss", password="secret")
    with override_script_prefix(f"{prefix}/"):
        answer = Client().post("/admin/login/", {"username": "boss", "password": "secret"})
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{prefix}/admin/")


OPERATIONS = [
    ("tasks/task", "retry"),
    ("agents/agent", "forget"),
    ("agents/agenttoken", "revoke"),
    ("auth/user", "delete_selected"),
    ("auth/group", "delete_selected"),
]


@pytest.mark.parametrize("key", ["x", "1.5", "9" * 30, "-" + "9" * 30, "k" * 300, ""])
@pytest.mark.parametrize(("path", "action"), OPERATIONS)
def test_what_cannot_be_the_key_of_a_row_is_refused(
    boss: Client, path: str, action: str, key: str
) -> None:
    dead()
    with nothing_changes():
        data = {"action": action, "_selected_action": ["1", key], "index": "0"}
        answer = boss.post(f"/admin/{path}/", data)
    if path in ("tasks/task", "auth/user", "auth/group") or key in ("", "k" * 300):
        assert answer.status_code == 400
    else:
        assert answer.status_code == 302


def act(client: Client, path: str, action: str, *rows: Any, **more: Any) -> list[str]:
    """Give what the operator is told."""
    data = {"action": action, "_selected_action": [row.pk for row in rows], "index": "0", **more}
    answer = client.post(f"/admin/{path}/", data, follow=True)
    assert answer.status_code == 200
    return [str(message) for message in answer.context["messages"]]


def fill(numbers: range) -> None:
    """A row of every kind for each number."""
    for number in numbers:
        task = assigned(f"a-{number}", metadata={"n": number})
        do(Accept(task.task_id, f"a-{number}", task.generation))
        do(Complete(task.task_id, f"a-{number}", task.generation))
        writer.commit([CreateTokens({f"a-{number}": hash_of(f"token {number}")})])
        at = NOW + timedelta(minutes=number)
        Minute.objects.create(start=at, completed=1, duration_ms=5)
        QueueSample.objects.create(at=at, depth=number)
        HealthReport.objects.create(status="ok", created_at=at, reported_at=at)
        Node.objects.create(id=str(number), host="h", pid=1, started_at=at, heartbeat_at=at)


def new_token(agent_id: str) -> AgentToken:
    writer.commit([CreateTokens({agent_id: "aa"})])
    return AgentToken.objects.get()


def words(client: Client, path: str) -> str:
    """What a page says."""
    page = client.get(f"/admin/{path}/").content.decode()
    return " ".join(strip_tags(page.replace("<", " <")).split())


# --- Who may see and do what


@pytest.mark.parametrize("path", LISTS)
def test_nothing_can_be_added_changed_or_deleted(boss: Client, path: str):
    fill(range(1))
    [row] = listed(boss, path)[:1]
    page = f"/admin/{path}/{row.pk}/"
    with nothing_changes():
        assert boss.get(f"/admin/{path}/add/").status_code == 403
        assert boss.get(f"{page}delete/", follow=True).status_code == 403
        assert boss.post(f"{page}change/", {}, follow=True).status_code == 403
    assert boss.get(f"{page}change/", follow=True).status_code == 200


def test_a_deadline_that_the_zone_moves_beyond_the_last_year_is_shown(boss: Client):
    task = submit(complete_by=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    with timezone.override("Asia/Tokyo"):
        page = boss.get(f"/admin/tasks/task/{task.task_id}/change/")
    assert page.status_code == 200
    assert "9999-12-31 23:59:59 UTC" in page.content.decode()


@pytest.mark.parametrize("path", LISTS)
def test_without_permission_there_is_nothing_to_see(path: str):
    assert client_of().get(f"/admin/{path}/").status_code == 403


def test_who_may_only_look_may_not_act():
    task, client = dead(), client_of("view_task")
    assert listed(client, "tasks/task") == [task]
    with nothing_changes():
        act(client, "tasks/task", "retry", task)
    page = client.get(f"/admin/tasks/task/{task.pk}/change/")
    assert page.context["operations"] == []


def test_acting_takes_the_permission_to_change():
    task, client = dead(), client_of("change_task")
    act(client, "tasks/task", "retry", task)
    assert again(task).status == Status.QUEUED


# --- What an operator does


def test_retry_puts_back_what_is_dead_and_says_what_was_not(boss: Client):
    tasks = [dead("a-1"), dead("a-2"), submit()]
    told = act(boss, "tasks/task", "retry", *tasks)
    assert [again(task).status for task in tasks] == [Status.QUEUED] * 3
    assert [kinds(task)[-1] for task in tasks[:2]] == ["task_retried"] * 2
    assert told == [
        "2 tasks put back into the queue.",
        "1 task not put back, because neither a dead letter nor cancelled.",
    ]


def test_who_retried_stands_in_the_history(boss: Client):
    task = dead()
    act(boss, "tasks/task", "retry", task)
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.user.username) == (str(task.pk), "staff")


@pytest.mark.parametrize(
    ("path", "action", "make"),
    [
        ("tasks/task", "retry", dead),
        ("agents/agent", "forget", lambda: agent(fsm_state="offline")),
        ("agents/agenttoken", "revoke", lambda: new_token("a-1")),
    ],
)
def test_the_journal_names_who_did_it(boss: Client, path: str, action: str, make: Any):
    act(boss, path, action, make())
    [done] = listed(boss, "agentcom/event")[:1]
    assert done.actor == "user:staff"
    assert "By: staff" in words(boss, f"agentcom/event/{done.pk}/change")


def test_a_task_s_page_says_who_did_what(boss: Client):
    task = dead("worker-7")
    act(boss, "tasks/task", "retry", task)
    said = words(boss, f"tasks/task/{task.pk}/change")
    for doing in ("submitted – boss, with its token", "assigned worker-7 the hub"):
        assert doing in said
    assert "failed worker-7 worker-7" in said
    assert "back in the queue – staff by hand" in said


def test_the_button_on_a_task_s_page_leads_back_to_it(boss: Client):
    task = dead()
    page = f"/admin/tasks/task/{task.pk}/change/"
    [operation, _] = boss.get(page).context["operations"]
    assert operation["name"] == "retry"
    data = {"action": operation["name"], "_selected_action": task.pk, "index": "0"}
    answer = boss.post("/admin/tasks/task/", {**data, "from_its_page": "1"})
    assert answer["Location"] == page
    assert again(task).status == Status.QUEUED
    assert [o["name"] for o in boss.get(page).context["operations"]] == ["cancel"]


def test_more_than_can_be_done_at_once(boss: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(read_only, "AT_ONCE", 2)
    monkeypatch.setattr(read_only, "GROUP", 1)
    tasks = [dead(f"a-{number}") for number in range(3)]
    told = act(boss, "tasks/task", "retry", *tasks)
    assert sum(again(task).status == Status.QUEUED for task in tasks) == 2
    assert len(told) == 2
    assert "again" in told[1]


def test_when_the_hub_cannot_commit_the_operator_is_told(
    boss: Client, monkeypatch: pytest.MonkeyPatch
):
    def unavailable(*args: Any) -> Any:
        raise Unavailable

    monkeypatch.setattr(writer, "call_all", unavailable)
    task = dead()
    with nothing_changes():
        [told] = act(boss, "tasks/task", "retry", task)
    assert "cannot commit" in told


def test_revoke(boss: Client):
    writer.commit([CreateTokens({"a-1": "aa", "a-2": "bb"})])
    first, second = AgentToken.objects.order_by("token_hash")
    assert act(boss, "agents/agenttoken", "revoke", first) == ["1 token revoked."]
    told = act(boss, "agents/agenttoken", "revoke", first, second)
    assert told == ["1 token revoked.", "1 token revoked before."]
    assert not AgentToken.objects.filter(revoked_at=None).exists()


def test_forget_takes_only_who_is_gone(boss: Client):
    gone, here = agent("gone", fsm_state="offline"), agent("here")
    told = act(boss, "agents/agent", "forget", gone, here)
    assert list(Agent.objects.all()) == [here]
    assert len(told) == 2
    assert "connected" in told[1]


def test_an_agent_that_was_forgotten_has_no_page_to_go_back_to(boss: Client):
    gone = agent("gone", fsm_state="offline")
    act(boss, "agents/agent", "forget", gone, from_its_page="1")
    assert not Agent.objects.exists()


# --- What is shown


def test_the_journal_stands_on_the_task(boss: Client):
    task = assigned(metadata={"colour": "red"})
    do(Progress(task.task_id, "a-1", task.generation, progress=50, message="half done"))
    do(Complete(task.task_id, "a-1", task.generation, result={"answer": 42}, tokens_used=7))
    page = boss.get(f"/admin/tasks/task/{task.task_id}/change/").content.decode()
    for text in ("50 % · half done", "&quot;answer&quot;: 42", "&quot;colour&quot;", "7 tokens"):
        assert text in page


def test_hostile_texts_are_text(boss: Client):
    evil = "<script>alert(1)</script>"
    task = assigned(evil, description=evil, metadata={evil: evil})
    do(Complete(task.task_id, evil, task.generation, result={evil: evil}))
    writer.commit([CreateTokens({evil: "aa"})])
    for path in LISTS:
        for row in listed(boss, path):
            page = boss.get(f"/admin/{path}/{row.pk}/change/", follow=True)
            assert "<script>alert" not in page.content.decode()
        assert "<script>alert" not in boss.get(f"/admin/{path}/").content.decode()


def test_what_was_meant_for_a_terminal_is_not_shown(boss: Client):
    red = "\x1b[31mred\x1b[0m"
    agent("a-1", name=red, status=red, capabilities=[red, "a\u202eb", "c"])
    task = assigned("a-1", description=red, max_retries=1)
    do(Fail(task.task_id, "a-1", task.generation, error=red))
    pages = ("tasks/task/", f"tasks/task/{task.task_id}/change/", "agents/agent/")
    for path in (*pages, "agents/agent/a-1/change/", "agentcom/event/"):
        answer = boss.get(f"/admin/{path}", follow=True)
        assert answer.status_code == 200
        assert "red" in answer.text
        assert "[31m" not in answer.text
        if path.startswith("agents/"):  # what reads backwards ends with its own text
            assert "red, \u2068a\u202eb\u2069, c" in answer.text
    assert Task.objects.get().last_error == red


def test_lists_leave_large_columns_in_the_database(boss: Client):
    submit(description="x" * 10_000, metadata={"x": "y" * 10_000})
    page = boss.get("/admin/tasks/task/").content.decode()
    assert "x" * 90 in page
    assert "x" * 200 not in page
    [task] = listed(boss, "tasks/task")
    assert {"description", "metadata", "result"} <= task.get_deferred_fields()


@pytest.mark.parametrize(
    "query",
    [
        lambda task: task.task_id,
        lambda task: task.task_id[:12],
        lambda task: task.task_id[5:],
        lambda task: task.task_id[5:11],
        lambda task: f"  {task.task_id} ",
        lambda task: "a-1",
    ],
    ids=["id", "beginning", "digits", "first digits", "with spaces", "agent"],
)
def test_a_task_is_found(boss: Client, query: Callable[[Task], str]):
    task = assigned("a-1")
    assigned("a-2")
    assert listed(boss, "tasks/task", q=query(task)) == [task]


@pytest.mark.parametrize("query", ["task-ffffffffffffffffff", "nobody", "%", "_", "a-"])
def test_what_is_not_there_is_not_found(boss: Client, query: str):
    assigned("a-1")
    assert boss.get("/admin/tasks/task/", {"q": query}).status_code in (200, 302)
    assert not Task.objects.filter(task_id=query).exists()


@pytest.mark.parametrize(
    "path",
    [
        "tasks/task/?q=%00",
        "tasks/task/?status__exact=%00",
        "tasks/task/task-%00/change/",
        "agents/agenttoken/%00/change/",
        "agentcom/event/?kind=%00",
    ],
)
def test_an_address_with_a_nul_is_refused(boss: Client, path: str):
    assert boss.get(f"/admin/{path}").status_code == 400


def test_a_form_with_a_nul_is_refused(boss: Client):
    form = {"action": "revoke", "_selected_action": "\x00"}
    assert boss.post("/admin/agents/agenttoken/", form).status_code == 400


def test_tasks_by_status_and_priority(boss: Client):
    task = dead(priority=0)
    submit(priority=0)
    assert listed(boss, "tasks/task", status__exact="dead_letter") == [task]
    assert len(listed(boss, "tasks/task", priority__exact=0)) == 2
    assert listed(boss, "tasks/task", priority__exact=1) == []


def test_tasks_by_date(boss: Client):
    tasks = [submit() for _ in range(3)]
    days = [datetime(2026, 1, 31, tzinfo=UTC), NOW, NOW + timedelta(days=1)]
    for task, day in zip(tasks, days, strict=True):
        Task.objects.filter(pk=task.pk).update(created_at=day)
    march: dict[str, Any] = {"created_at__year": 2026, "created_at__month": 3}
    assert listed(boss, "tasks/task", created_at__year=2026) == tasks[::-1]
    assert listed(boss, "tasks/task", **march) == [tasks[2], tasks[1]]
    assert listed(boss, "tasks/task", **march, created_at__day=5) == [tasks[1]]
    assert listed(boss, "tasks/task", **march, created_at__day=7) == []
    assert boss.get("/admin/tasks/task/", {"created_at__year": "x"}).status_code == 302


def test_events_by_kind_task_and_agent(boss: Client):
    task = assigned("a-1")
    assigned("a-2")
    kinds_of = [event.kind for event in listed(boss, "agentcom/event", kind="task_assigned")]
    assert kinds_of == ["task_assigned"] * 2
    assert {e.task_id for e in listed(boss, "agentcom/event", q=task.task_id)} == {task.task_id}
    assert {e.agent_id for e in listed(boss, "agentcom/event", q="a-2")} == {"a-2"}


def test_a_filter_without_an_index_looks_at_the_newest_only(
    boss: Client, monkeypatch: pytest.MonkeyPatch
):
    submit()
    newest = submit()
    monkeypatch.setattr("agentcom.admin.lists.WINDOW", 0)
    found = listed(boss, "agentcom/event", kind="task_submitted")
    assert [event.task_id for event in found] == [newest.task_id]
    assert len(listed(boss, "agentcom/event")) == 2


# --- What it costs


@pytest.mark.parametrize("path", LISTS)
def test_the_number_of_queries_does_not_grow_with_the_rows(boss: Client, path: str):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            boss.get(f"/admin/{path}/")
        return len(captured)

    fill(range(1))
    boss.get(f"/admin/{path}/")
    one = queries()
    fill(range(1, 10))
    assert queries() == one <= 10


def test_no_list_counts_all_rows_or_asks_for_all_dates(boss: Client):
    fill(range(3))
    with CaptureQueriesContext(connection) as captured:
        for path in LISTS:
            listed(boss, path)
    for query in captured.captured_queries:
        sql = query["sql"].upper()
        assert "DISTINCT" not in sql or "HEALTHREPORT" in sql
        assert "COUNT(" not in sql or "LIMIT" in sql


def test_counting_ends_at_the_bound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agentcom.admin.lists.BOUND", 2)
    for count, counted, more in ((1, 1, False), (2, 2, False), (3, 2, True)):
        Task.objects.all().delete()
        for _ in range(count):
            submit()
        paginator = BoundedPaginator(Task.objects.order_by("-number"), 1)
        assert (paginator.count, paginator.has_more) == (counted, more)


def test_beyond_the_bound_the_list_says_how_many_there_are(
    boss: Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agentcom.admin.lists.BOUND", 2)
    for _ in range(3):
        submit()
    answer = boss.get("/admin/tasks/task/")
    assert answer.context["cl"].result_count == 2
    assert answer.context["total"] == 3
    assert "of 3" in answer.content.decode()


# --- The dates that can be chosen


@pytest.mark.parametrize(
    ("first", "last", "chosen", "back", "choices"),
    [
        (date(2024, 5, 1), date(2026, 1, 1), (), None, ["2024", "2025", "2026"]),
        (
            date(2026, 2, 1),
            date(2026, 4, 9),
            (),
            None,
            ["February 2026", "March 2026", "April 2026"],
        ),
        (date(2026, 2, 27), date(2026, 2, 28), (), None, ["27 Feb", "28 Feb"]),
        (
            date(2025, 11, 5),
            date(2026, 2, 1),
            (2025,),
            "All dates",
            ["November 2025", "December 2025"],
        ),
        (date(2025, 11, 5), date(2026, 2, 1), (2026, 2), "2026", ["1 Feb"]),
        (date(2024, 2, 28), date(2024, 3, 1), (2024, 2), "2024", ["28 Feb", "29 Feb"]),
        (date(2024, 2, 28), date(2024, 3, 1), (2024, 2, 29), "February 2024", ["29 Feb"]),
        (date(2024, 2, 28), date(2024, 3, 1), (2019,), "All dates", []),
    ],
)
def test_dates_to_choose(
    first: date, last: date, chosen: tuple[int, ...], back: str | None, choices: list[str]
):
    way_back, offered = date_choices(first, last, chosen)
    assert (way_back and way_back.title) == back
    assert [choice.title for choice in offered] == choices
