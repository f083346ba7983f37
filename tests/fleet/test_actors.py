"""Who did it: no command and no journal entry is without an actor."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib import import_module
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from agentcom import actors
from agentcom.kinds import kinds
from agentcom.models import Event
from agentcom.rights import Grant
from agentcom.work import Command, Work
from agentcom.writer import writer
from fleet.enrolment import CreateEnrolment
from fleet.holds import LiftHold, PlaceHold
from fleet.presence import Forget, Identify, Leave, Recover, Said, SetStatus
from fleet.protocol import Message
from fleet.tokens import CreateTokens, RevokeToken
from tasks import listing
from tasks.models import Completion, Task
from tasks.queue import Accept, Block, Complete, Fail, Progress, Reclaim, Reject, Unblock
from tasks.steering import ActWhenDue, Cancel, Retry, SetPriority
from tests.tasks.play import BOSS, again, agent, assigned, dead, do, submit
from webhooks.endpoints import (
    AddEndpoint,
    RemoveEndpoint,
    RotateSecret,
    SwitchOff,
    SwitchOn,
    Target,
)
from worker.health import Report
from worker.orphans import MarkOffline
from worker.pruning import Prune, PruneTasks
from worker.reports import FileReport
from worker.set_back import ResetFutureTimes

ROOMS = ("agentcom", "counters", "dashboard", "fleet", "metrics", "tasks", "webhooks", "worker")


def commands() -> Iterator[Any]:
    """All that the product has."""
    for room in ROOMS:
        for found in pkgutil.walk_packages(import_module(room).__path__, f"{room}."):
            if ".migrations" in found.name or found.name == "agentcom.asgi":
                continue
            for _, member in inspect.getmembers(import_module(found.name), inspect.isclass):
                is_here = member.__module__ == found.name and member is not Command
                if is_here and hasattr(member, "apply") and hasattr(member, "rows"):
                    yield member


COMMANDS = list(commands())


def test_the_commands_are_found():
    assert {Retry, Forget, MarkOffline, Leave, FileReport} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_command_has_an_actor(command: type[Command]):
    given = inspect.signature(command).parameters.get("actor")
    if given is None:
        assert hasattr(command, "actor")
    else:
        assert given.default is inspect.Parameter.empty, "it could be forgotten"


# --- Each kind of event, and who stands behind it

AGENT, WORKER, HUB = "agent:a-1", "worker", "hub"


def identified() -> None:
    do(CreateTokens({"a-1": "hash"}))
    do(Identify("a-1", "hash", "socket", "node"))


def held() -> tuple[str, str, int]:
    task = assigned()
    return task.task_id, "a-1", task.generation


def unblocked() -> None:
    task = held()
    do(Block(*task))
    do(Unblock(*task))


def due() -> None:
    submit(not_before=timezone.now() + timedelta(hours=1))
    Task.objects.update(not_before=timezone.now(), due_at=timezone.now())
    do(ActWhenDue())


def reoffered() -> None:
    do(Reject(*held()))
    Task.objects.update(refusers={"a-1": 0}, due_at=timezone.now())
    do(ActWhenDue())


def late() -> None:
    task = held()
    do(Cancel(task[0], BOSS, timeout_s=0))
    message = Message("task_failed", {"error": "too late"})
    [refused] = writer.commit([Said(Fail(*task, error="too late"), message)])
    assert refused.code == "stale_generation"


def responded() -> None:
    agent(fsm_state="unresponsive")
    do(SetStatus("a-1", "here again"))


def lifted() -> None:
    hold = do(PlaceHold(BOSS, "hub", "", "r"))
    do(LiftHold(hold["id"], BOSS))


def revoked() -> None:
    do(CreateTokens({"a-1": "hash"}))
    do(RevokeToken("hash", BOSS))


def webhook() -> str:
    added = AddEndpoint(BOSS, Target("https://receiver.example/"))
    do(added)
    return added.endpoint_id


def switched_on() -> None:
    endpoint_id = webhook()
    do(SwitchOff(endpoint_id, BOSS))
    do(SwitchOn(endpoint_id, BOSS))


def signed_off() -> None:
    identified()
    do(Leave("a-1", "socket", signed_off=True))


def file_report() -> None:
    do(FileReport(Report(()), timezone.now()))


def tasks_pruned() -> None:
    do(Complete(*held()))
    do(PruneTasks(timezone.now() + timedelta(hours=1)))


def completions_pruned() -> None:
    for name in ("a-1", "a-2"):
        task = assigned(name)
        do(Complete(task.task_id, name, task.generation))
    do(Prune(Completion, "completed_at", timezone.now() + timedelta(hours=1)))


def times_reset() -> None:
    agent(fsm_state="offline", disconnected_at=timezone.now() + timedelta(hours=1))
    do(ResetFutureTimes())


STORIES: dict[str, tuple[Callable[[], object], str]] = {
    "task_submitted": (submit, "token:boss"),
    "task_assigned": (held, HUB),
    "task_accepted": (lambda: do(Accept(*held())), AGENT),
    "task_progress": (lambda: do(Progress(*held())), AGENT),
    "task_blocked": (lambda: do(Block(*held())), AGENT),
    "task_unblocked": (unblocked, AGENT),
    "task_complete": (lambda: do(Complete(*held())), AGENT),
    "task_failed": (lambda: do(Fail(*held())), AGENT),
    "task_retried": (lambda: do(Retry(dead().task_id, BOSS)), BOSS),
    "task_due": (due, HUB),
    "task_reprioritized": (lambda: do(SetPriority(submit().task_id, BOSS, 0)), BOSS),
    "task_reoffered": (reoffered, HUB),
    "task_cancel_requested": (lambda: do(Cancel(held()[0], BOSS)), BOSS),
    "task_cancelled": (lambda: do(Cancel(submit().task_id, BOSS)), BOSS),
    "task_late": (late, AGENT),
    "agent_responded": (responded, AGENT),
    "hold_placed": (lambda: do(PlaceHold(BOSS, "hub", "", "r")), BOSS),
    "hold_lifted": (lifted, BOSS),
    "task_rejected": (lambda: do(Reject(*held())), AGENT),
    "task_reclaimed": (lambda: do(Reclaim(*held())), WORKER),
    "task_dead_letter": (dead, AGENT),
    "agent_joined": (identified, AGENT),
    "agent_left": (signed_off, AGENT),
    "agent_forgotten": (lambda: do(Forget(agent(fsm_state="offline").agent_id, BOSS)), BOSS),
    "status_changed": (lambda: do(SetStatus(agent().agent_id, "busy")), AGENT),
    "health_changed": (file_report, WORKER),
    "tasks_pruned": (tasks_pruned, WORKER),
    "completions_pruned": (completions_pruned, WORKER),
    "times_reset": (times_reset, WORKER),
    "enrolment_created": (
        lambda: do(CreateEnrolment("a-1", Grant(), "code", valid_s=60)),
        HUB,
    ),
    "token_created": (lambda: do(CreateTokens({"a-1": "hash"})), HUB),
    "token_revoked": (revoked, BOSS),
    "webhook_created": (webhook, BOSS),
    "webhook_changed": (lambda: do(RotateSecret(webhook(), BOSS)), BOSS),
    "webhook_disabled": (lambda: do(SwitchOff(webhook(), BOSS)), BOSS),
    "webhook_enabled": (switched_on, BOSS),
    "webhook_removed": (lambda: do(RemoveEndpoint(webhook(), BOSS)), BOSS),
}


def test_there_is_a_story_for_each_kind():
    assert STORIES.keys() == kinds().keys()


@pytest.mark.django_db
@pytest.mark.parametrize("kind", STORIES)
def test_who_stands_in_the_journal(kind: str):
    happen, actor = STORIES[kind]
    happen()
    assert Event.objects.filter(kind=kind).latest("seq").actor == actor
    assert not Event.objects.filter(actor=None).exists()


@pytest.mark.django_db
class TestInDetail:
    def test_an_agent_that_signs_off_gives_its_task_back_itself(self):
        task = assigned()
        do(Leave("a-1", "socket", signed_off=True))
        assert Event.objects.get(kind="task_reclaimed").actor == AGENT
        assert again(task).status == "queued"

    def test_a_connection_that_broke_is_the_hubs_word(self):
        agent()
        do(Leave("a-1", "socket"))
        assert Event.objects.get(kind="agent_left").actor == HUB

    def test_a_process_that_died_is_the_workers_word(self):
        agent(node="gone")
        do(MarkOffline("a-1", "gone", timezone.now()))
        assert Event.objects.get(kind="agent_left").actor == WORKER

    def test_an_agent_that_goes_on_speaks_for_itself(self):
        task = assigned()
        do(Recover(task.task_id, "a-1"))
        assert Event.objects.get(kind="task_accepted").actor == AGENT

    def test_each_command_of_a_group_has_its_own(self):
        first, second = dead("a-1").task_id, dead("a-2").task_id
        writer.commit([Retry(first, "user:eve"), Retry("task-none", BOSS), Retry(second, "anyone")])
        retried = Event.objects.filter(kind="task_retried").order_by("seq")
        assert list(retried.values_list("actor", flat=True)) == ["user:eve", "anyone"]

    def test_what_nobody_does_is_not_done(self):
        work = Work(timezone.now(), 0, [])
        with pytest.raises(ValueError, match="has no actor"):
            work.emit("token_created", agent_id="a-1")

    def test_the_longest_names_have_room(self):
        agent("a" * 128)
        do(SetStatus("a" * 128, "busy"))
        do(Retry(dead().task_id, actors.user("u" * 150)))
        assert Event.objects.latest("seq").actor == f"user:{'u' * 150}"

    def test_the_history_says_who_and_null_for_an_entry_of_an_older_version(self):
        task = dead()
        do(Retry(task.task_id, BOSS))
        Event.objects.filter(kind="task_submitted").update(actor=None)
        history = listing.history(task)
        assert [entry["actor"] for entry in history] == [None, HUB, AGENT, AGENT, BOSS]


@pytest.mark.parametrize(
    ("actor", "words"),
    [
        ("agent:a:1", "a:1"),
        ("user:eve", "eve"),
        ("token:ci", "ci, with its token"),
        ("token:ci\u202e", "\u2068ci\u202e\u2069, with its token"),
        ("worker", "the worker"),
        ("hub", "the hub"),
        ("anyone", "somebody without a login"),
        (None, ""),
    ],
)
def test_in_words(actor: str | None, words: str):
    assert actors.in_words(actor) == words


@pytest.mark.sqlite_only
@pytest.mark.django_db(transaction=True)
def test_the_column_is_added_without_rewriting_the_journal():
    """A journal of millions of rows must not be copied for it."""
    out = StringIO()
    call_command("sqlmigrate", "agentcom", "0003", stdout=out)
    statements = [line for line in out.getvalue().splitlines() if not line.startswith("--")]
    assert [s.split("ADD")[0].strip() for s in statements if s not in ("BEGIN;", "COMMIT;")] == [
        'ALTER TABLE "agentcom_event"'
    ]
