"""What torture plans and what it would notice. That it runs is in tests/flow/test_torture.py."""

from __future__ import annotations

import base64
import hmac
import itertools
import json
import os
import sys
import time
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from agentcom.errors import Refused
from agentcom.models import Event
from fleet.dispatcher import Claim, Idle
from fleet.holds import Holds, LiftHold, PlaceHold
from fleet.models import AgentToken
from fleet.presence import Identify, Said
from fleet.protocol import Message
from lab.harness.hub import Ended, Server
from lab.torture import ledger as promises
from lab.torture.audit import Audit
from lab.torture.ledger import Assignment, Ledger
from lab.torture.plan import Parts, order, plan
from lab.torture.receiver import ChaosReceiver
from lab.torture.truth import BOUND_S, JUMPED, OFFLINE, Truth, untold
from tasks.models import Task
from tasks.queue import Accept, Complete, Fail, Reclaim, Reject, Why
from tasks.steering import ActWhenDue, Cancel, Retry, SetPriority
from tests.tasks.play import BOSS, CONNECTION, again, do, submit
from webhooks.endpoints import AddEndpoint, Target

PARTS = Parts(
    webs=["web-0", "web-1"],
    workers=["worker-0", "worker-1"],
    stores=["postgresql", "redis"],
    agents=[f"agent-{number}" for number in range(30)],
    viewers=["viewer-0", "viewer-1"],
)
GIVEN = Assignment("task-1", 1, "agent-1")


def snapshot(**changes):
    queue = {"by_status": {"queued": 1}, "by_priority": {"0": 1}, "dead_letter": 0}
    lists: dict[str, list[Any]] = {"agents": [], "dead_letter_tasks": [], "recent_completions": []}
    return {"seq": 7, "queue": queue, **lists, **changes}


def broken(ledger: Ledger) -> bool:
    return ledger.broken is not None


def test_the_same_seed_does_the_same():
    assert plan(1, 60, PARTS) == plan(1, 60, PARTS)
    assert plan(1, 60, PARTS) != plan(2, 60, PARTS)
    assert order(1, "submitter-0/5") == order(1, "submitter-0/5")


def test_acts_on_one_part_do_not_overlap_and_end_in_time():
    acts = plan(1, 600, PARTS)

    by_subject = defaultdict(list)
    for act in acts:
        by_subject[act.subject].append(act)
        assert act.at_s + act.lasts_s <= 600
    for own in by_subject.values():
        for earlier, later in itertools.pairwise(own):
            assert earlier.at_s + earlier.lasts_s < later.at_s


def test_nobody_is_spared():
    hurt = {(act.subject, act.kind) for act in plan(1, 1800, PARTS)}

    for process in (*PARTS.webs, *PARTS.workers):
        assert {(process, kind) for kind in ("kill", "restart", "freeze")} <= hurt
    for store in PARTS.stores:
        assert {(store, kind) for kind in ("cut", "refuse", "stall")} <= hurt
    assert {subject for subject, _ in hurt} >= {*PARTS.agents, *PARTS.viewers, "all workers"}
    assert {("clock", "jump forward"), ("clock", "jump back")} <= hurt


def test_what_is_wrong_for_long_must_be_told_by_the_light():
    truth = Truth()
    truth.begins(OFFLINE, "agent-1", now=100)
    assert truth.must_be_told(now=100 + BOUND_S - 0.1) == set()
    wrong = truth.must_be_told(now=100 + BOUND_S)
    assert wrong == {(OFFLINE, "agent-1")}

    def light(*codes: str) -> dict[str, Any]:
        return {"details": [{"code": code} for code in codes]}

    assert untold(wrong, light()) == untold(wrong, light(JUMPED)) == ["agent_offline: agent-1"]
    assert untold(wrong, light(OFFLINE)) == untold(wrong, light("worker_silent")) == []
    truth.ends(OFFLINE, "agent-1")
    assert truth.must_be_told(now=200) == set()


def test_the_light_has_time_after_what_was_done_to_the_hub():
    truth = Truth()
    truth.begins(JUMPED, "clock", now=0)
    with truth.disturbed():
        assert truth.must_be_told(now=time.monotonic() + 100) == set()
        assert not truth.is_undisturbed_since(time.monotonic())
    assert truth.must_be_told(now=time.monotonic()) == set()
    assert not truth.is_undisturbed_since(time.monotonic() - 1)
    assert truth.is_undisturbed_since(time.monotonic() + 1)
    truth.begins(JUMPED, "clock")
    assert truth.must_be_told(now=time.monotonic() + BOUND_S) == {(JUMPED, "clock")}


@pytest.mark.parametrize(
    ("pushes", "accepts", "promise"),
    [
        ([GIVEN, Assignment("task-1", 1, "agent-2")], [], promises.HANDED),
        ([GIVEN, GIVEN], [GIVEN], promises.HANDED),
        ([GIVEN, GIVEN], [], None),  # over another connection, for it had never accepted
        ([GIVEN, Assignment("task-1", 3, "agent-2")], [GIVEN], None),
    ],
)
def test_notices_what_is_handed_out_twice(pushes, accepts, promise):
    first, then = pushes
    ledger = Ledger()
    ledger.pushed(first, set())
    for given in accepts:
        ledger.acked("accepted", given)
    ledger.pushed(then, set())

    assert (ledger.broken and ledger.broken.promise) == promise


def test_notices_a_second_push_over_one_connection():
    ledger = Ledger()
    ledger.pushed(GIVEN, set())
    ledger.pushed(GIVEN, {GIVEN})

    assert ledger.broken
    assert ledger.broken.promise == promises.HANDED


def test_notices_another_answer_to_the_same_key():
    ledger = Ledger()
    ledger.submitted("key", ["task-1"])
    ledger.submitted("key", ["task-1"])
    assert not broken(ledger)
    ledger.submitted("key", ["task-2"])

    assert ledger.broken
    assert ledger.broken.promise == promises.LOST


def test_notices_two_pictures_of_one_moment():
    ledger = Ledger()
    ledger.saw(snapshot())
    ledger.saw(snapshot(uptime_ms=5))
    assert not broken(ledger)
    ledger.saw(snapshot(recent_completions=[{"task_id": "x", "agent_id": "y", "completed_at": 1}]))

    assert ledger.broken
    assert ledger.broken.promise == promises.PATCHES
    assert "recent_completions" in ledger.broken.evidence


def test_a_process_that_ended_before_it_was_looked_at_has_no_memory(tmp_path: Path):
    server = Server([sys.executable, "-c", ""], {}, tmp_path / "server.log")
    server.launch()
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(Ended):
        _ = server.resident_kb
    assert not server.is_running


# --- What the audit would notice: each time the hub is broken in one place


@pytest.fixture
def hub(db: None) -> None:
    for name in ("a-1", "a-2"):
        AgentToken.objects.create(token_hash=name, name=name, created_at=timezone.now())
        do(Identify(name, name, CONNECTION, "here", capabilities=("x",), accepts=("cancel",)))


def broken_promise(**told: Any) -> str | None:
    """The first one, which torture reports."""
    nothing: dict[str, Any] = {"keys": {}, "acks": [], "pushes": [], "spans": []}
    audit = Audit({**nothing, "cancels": [], "told": [], "open": [], **told})
    first = next(audit.run(), None)
    return None if first is None else first.promise


def hooked(accepted: list[int]) -> str | None:
    """What the final audit says of what the receiver of a webhook has accepted."""
    told: dict[str, Any] = {"keys": {}, "acks": [], "pushes": [], "spans": []}
    audit = Audit({**told, "cancels": [], "told": [], "open": [], "hooked": accepted})
    return next((found.promise for found in audit._hooked()), None)


@pytest.mark.django_db
def test_notices_what_a_webhook_was_not_told_of():
    submit()
    do(AddEndpoint(BOSS, Target("https://receiver.example/")))
    assert hooked([]) is None
    submit()
    seq = Event.objects.latest("seq").seq
    assert hooked([]) == promises.HOOKED
    assert hooked([seq]) is None


def message(receiver: ChaosReceiver, number: int, seq: int, secret: bytes = b"") -> None:
    body = json.dumps({"data": {"seq": seq, "task": {"id": "task-1"}}}).encode()
    signed = hmac.digest(secret, b"msg_%d.1.%s" % (number, body), "sha256")
    headers = {
        "webhook-id": f"msg_{number}",
        "webhook-timestamp": "1",
        "webhook-signature": "v1,x v1," + base64.b64encode(signed).decode(),
    }
    how, seq = receiver.answer(headers, body)
    if how == "accept":
        receiver.accept(seq)


def test_the_receiver_of_a_webhook_notices_what_is_wrong():
    with ChaosReceiver(1) as receiver:
        receiver.calm = True
        for number, seq in ((1, 5), (2, 7), (1, 5)):
            message(receiver, number, seq)
        assert receiver.faults == []
        assert receiver.accepted() == [5, 7]
        message(receiver, 3, 6)
        message(receiver, 2, 8)
        message(receiver, 4, 9, b"another secret")
    evidence = [fault.evidence for fault in receiver.faults]
    assert evidence == [
        "seq 6 comes after 7 for the first time",
        "seq 8 has another body than before",
        "seq 9: the signature is wrong",
    ]


def give(agent_id: str = "a-1", /, **fields: Any) -> Task:
    """A new task that the agent gets, or would get."""
    task = submit(f"task {Task.objects.count()}", **fields)
    do(Claim([Idle(agent_id, CONNECTION, frozenset({"x"}))]))
    return again(task)


def forge(task: Task, kind: str, **data: Any) -> None:
    """Add an entry that the hub never wrote."""
    seq = Event.objects.count() + 1
    about = {"task_id": task.task_id, "agent_id": "a-1", "actor": "hub", "at": timezone.now()}
    Event.objects.create(seq=seq, kind=kind, data=data, **about)


def test_a_hub_that_keeps_its_promises_breaks_none(hub: None):
    hold = do(PlaceHold(BOSS, "agent", "a-1", "why not"))
    held = give("a-1", assign_to="a-1")
    assert held.status == "queued"
    task = give("a-2")
    do(Cancel(task.task_id, BOSS))
    do(Reject(task.task_id, "a-2", task.generation))
    do(Cancel(held.task_id, BOSS))
    do(LiftHold(hold["id"], BOSS))
    fenced = give("a-1", assign_to="a-1")
    do(Cancel(fenced.task_id, BOSS, timeout_s=0))
    do(Retry(fenced.task_id, BOSS))
    late = Complete(fenced.task_id, "a-1", fenced.generation)
    with pytest.raises(Refused):
        do(Said(late, Message("task_complete", {})))
    rejected = give("a-2", max_rejections=1)
    do(Reject(rejected.task_id, "a-2", rejected.generation))
    do(SetPriority(rejected.task_id, BOSS, 0))
    give("a-2", not_before=timezone.now() + timedelta(hours=1))

    cancels = [("cancelling", task.task_id), ("cancelled", fenced.task_id)]
    ack = ("task_rejected", "cancelled", task.task_id, task.generation, "a-2")
    assert broken_promise(cancels=cancels, acks=[ack]) is None


def test_the_audit_notices_a_cancelled_task_that_runs_again(hub: None):
    task = submit()
    do(Cancel(task.task_id, BOSS))
    forge(task, "task_assigned", generation=2, title="a task")

    assert broken_promise() == promises.CANCELLED


@pytest.mark.parametrize(
    ("scope", "subject"), [("hub", ""), ("lane", "normal"), ("capability", "x"), ("agent", "a-1")]
)
def test_the_audit_notices_a_crossed_hold(scope: str, subject: str, hub: None, monkeypatch: Any):
    monkeypatch.setattr(Holds, "at", lambda now: Holds())
    do(PlaceHold(BOSS, scope, subject, "why not", until=timezone.now() + timedelta(hours=1)))
    give(needed_capabilities=["x"])

    assert broken_promise() == promises.HELD


def test_a_hold_whose_time_is_over_holds_nothing(hub: None):
    do(PlaceHold(BOSS, "hub", "", "why not", until=timezone.now()))

    assert give().status == "assigned"
    assert broken_promise() is None


def test_the_audit_notices_what_runs_before_its_time(hub: None, monkeypatch: Any):
    monkeypatch.setattr(Task, "_wait", lambda task, now: setattr(task, "status", "queued"))
    give(not_before=timezone.now() + timedelta(hours=1))

    assert broken_promise() == promises.EARLY


def test_the_audit_notices_a_backoff_that_is_cut_short(hub: None, monkeypatch: Any):
    task = give(retry_backoff_s=3600)
    do(Fail(task.task_id, "a-1", 1))
    monkeypatch.setattr(Task, "start_waiting", lambda task, now: task.end_waits())
    Task.objects.update(due_at=timezone.now())
    do(ActWhenDue())

    assert broken_promise() == promises.EARLY


def test_the_audit_notices_an_agent_with_two_tasks(hub: None, monkeypatch: Any):
    monkeypatch.setattr("fleet.dispatcher._is_free", lambda agent, idle: True)
    give(), give()

    assert broken_promise() == promises.TWO


def test_an_agent_that_should_have_stopped_counts_as_having_one(hub: None, monkeypatch: Any):
    monkeypatch.setattr("fleet.dispatcher._is_free", lambda agent, idle: True)
    do(Cancel(give().task_id, BOSS, timeout_s=0))
    give()

    assert broken_promise() == promises.TWO


@pytest.mark.parametrize("budget", ["max_retries", "max_rejections", "max_reclaims"])
def test_the_audit_notices_a_budget_that_is_exceeded(budget: str, hub: None, monkeypatch: Any):
    task = give(**{budget: 1})
    Task.objects.update(**{budget: 2})
    match budget:
        case "max_retries":
            do(Fail(task.task_id, "a-1", 1))
        case "max_rejections":
            do(Reject(task.task_id, "a-1", 1))
        case "max_reclaims":
            do(Reclaim(task.task_id, "a-1", 1, why=Why.SILENT, lost=True))
    Task.objects.update(**{budget: 1})
    do(Claim([Idle("a-2", CONNECTION, frozenset())]))

    assert broken_promise() == promises.BUDGET


def test_the_audit_notices_a_dead_letter_with_a_budget_left(hub: None):
    task = give(max_rejections=1)
    do(Reject(task.task_id, "a-1", 1))
    Task.objects.update(max_rejections=2)

    assert broken_promise() == promises.BUDGET


def test_the_audit_notices_a_request_to_cancel_that_is_forgotten(hub: None, monkeypatch: Any):
    monkeypatch.setattr(Task, "is_cancelling", False)
    task = give()
    do(Cancel(task.task_id, BOSS))
    do(Reject(task.task_id, "a-1", 1))

    assert broken_promise() == promises.ENDED


@pytest.mark.parametrize("answer", ["cancelled", "cancelling", "too_late"])
def test_the_audit_notices_an_answer_to_a_cancel_that_is_not_true(answer: str, hub: None):
    assert broken_promise(cancels=[(answer, submit().task_id)]) == promises.ENDED


@pytest.mark.parametrize("status", ["completed", "cancelled", "dead_letter"])
def test_the_audit_notices_an_end_that_a_waiter_was_told_of_and_is_none(status: str, hub: None):
    assert broken_promise(told=[(status, give().task_id)]) == promises.TOLD


def test_the_audit_notices_a_cancel_that_was_acked_and_is_not_written(hub: None):
    task = give()
    ack = ("task_cancelled", "cancelled", task.task_id, 1, "a-1")

    assert broken_promise(acks=[ack]) == promises.LOST


@pytest.mark.parametrize("actor", [None, "", "somebody", "agent:a-2"])
def test_the_audit_notices_an_entry_by_nobody_or_another(actor: str | None, hub: None):
    task = give()
    do(Accept(task.task_id, "a-1", 1))
    Event.objects.filter(kind="task_accepted").update(actor=actor)

    assert broken_promise() == promises.ACTOR
