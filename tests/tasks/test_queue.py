from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agentcom.errors import Refused
from agentcom.models import Event
from agentcom.writer import writer
from fleet.models import Agent
from tasks.heads import heads, waiting_needs
from tasks.models import Completion, Priority, QueueError, Status, Tally, Task
from tasks.needs import filed_for, filed_under, mark_of, needs_key, needs_of, rarest
from tasks.queue import (
    Accept,
    Block,
    Complete,
    Fail,
    NewTask,
    OnTask,
    Progress,
    Reclaim,
    Reject,
    Submit,
    Unblock,
)
from tasks.steering import Retry
from tests.tasks.play import (
    BOSS,
    Poison,
    again,
    agent,
    assigned,
    claim,
    counted,
    dead,
    do,
    kinds,
    nothing_changes,
    recounted,
    submit,
)

pytestmark = pytest.mark.django_db

VERBS: list[type[OnTask]] = [
    Accept,
    Progress,
    Block,
    Unblock,
    Complete,
    Fail,
    Reject,
    Reclaim,
]
# These may come without a generation: owner and state alone must hold then.
UNFENCED = [Accept, Progress, Block, Unblock, Reject, Reclaim]

each_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)


def refused(command: OnTask | Retry) -> str:
    """Give the code it is refused with, after checking that it left no trace."""
    with nothing_changes(), pytest.raises(QueueError) as caught:
        do(command)
    return caught.value.code


# --- What holds for every verb of an agent


@each_verb
def test_a_stale_generation_is_refused(verb: type[OnTask]):
    task = assigned()
    assert refused(verb(task.task_id, "a-1", task.generation - 1)) == "stale_generation"
    assert refused(verb(task.task_id, "a-1", task.generation + 1)) == "stale_generation"


@each_verb
def test_an_agent_that_lost_the_race_is_refused(verb: type[OnTask]):
    """Its task was reclaimed and given to another; what it says about it comes too late."""
    task = assigned("a-1")
    do(Reclaim(task.task_id, "a-1", task.generation))
    Agent.objects.filter(agent_id="a-1").delete()
    assert claim(agent("a-2")) == [("a-2", task.task_id)]
    assert refused(verb(task.task_id, "a-1", task.generation)) == "stale_generation"


@each_verb
def test_another_agents_task_is_refused(verb: type[OnTask]):
    task = assigned("a-1")
    assert refused(verb(task.task_id, "a-2", task.generation)) == "not_yours"


@pytest.mark.parametrize("verb", UNFENCED, ids=lambda verb: verb.__name__)
def test_without_a_generation_the_owner_must_be_right(verb: type[OnTask]):
    task = assigned("a-1")
    assert refused(verb(task.task_id, "a-2")) == "not_yours"
    do(verb(task.task_id, "a-1"))


@each_verb
@pytest.mark.parametrize(
    "make", [submit, lambda: completed("a-1"), dead], ids=["queued", "completed", "dead"]
)
def test_a_task_that_is_not_assigned_is_refused(verb: type[OnTask], make: Callable[[], Task]):
    task = make()
    # by another agent, because the same completion told again is acked again
    assert refused(verb(task.task_id, "a-9", task.generation)) == "invalid_state"


@each_verb
def test_an_unknown_task_is_refused(verb: type[OnTask]):
    assert refused(verb("task-0000000000000000", "a-1", 1)) == "not_found"


@each_verb
def test_rolled_back_it_leaves_no_trace(verb: type[OnTask]):
    task = assigned()
    with nothing_changes(), pytest.raises(ZeroDivisionError):
        writer.commit([verb(task.task_id, "a-1", task.generation), Poison()])


@each_verb
def test_of_two_in_one_group_the_second_sees_what_the_first_did(verb: type[OnTask]):
    task = assigned()
    first, second = writer.commit(
        [
            Reject(task.task_id, "a-1", task.generation),
            verb(task.task_id, "a-1", task.generation),
        ]
    )
    assert first == "requeued"
    assert isinstance(second, Refused)
    assert second.code == "stale_generation"
    assert kinds(task)[2:] == ["task_rejected"]


@each_verb
def test_the_tally_follows(verb: type[OnTask]):
    task = assigned(priority=Priority.HIGH, needed_capabilities=[])
    do(verb(task.task_id, "a-1", task.generation))
    assert counted() == recounted()


# --- Submit


def test_submit_queues_in_the_order_given():
    receipts = do(Submit([NewTask("one"), NewTask("two", priority=0)], submitted_by="boss"))
    tasks = list(Task.objects.order_by("number"))
    assert [task.description for task in tasks] == ["one", "two"]
    assert [receipt["task_id"] for receipt in receipts] == [task.task_id for task in tasks]
    assert [receipt["priority"] for receipt in receipts] == [2, 0]
    assert {task.status for task in tasks} == {Status.QUEUED}
    assert [kinds(task) for task in tasks] == [["task_submitted"]] * 2


def test_a_task_s_number_is_that_of_its_submission():
    task = submit()
    assert Event.objects.get(task_id=task.task_id).seq == task.number


def test_a_submission_told_again_with_its_key_queues_nothing():
    command = Submit([NewTask("one"), NewTask("two")], "boss", idempotency_key="k")
    first = do(command)
    with nothing_changes():
        assert do(Submit([NewTask("three")], "boss", idempotency_key="k")) == first


def test_the_same_key_twice_in_one_group_queues_once():
    first, second = writer.commit(
        [Submit([NewTask("one")], "boss", idempotency_key="k") for _ in range(2)]
    )
    assert first == second
    assert Task.objects.count() == 1


def test_another_key_is_another_submission():
    writer.commit([Submit([NewTask("one")], "boss", idempotency_key=key) for key in "kl"])
    assert Task.objects.count() == 2


def test_a_submission_that_is_rolled_back_can_be_told_again():
    command = Submit([NewTask("one")], "boss", idempotency_key="k")
    with nothing_changes(), pytest.raises(ZeroDivisionError):
        writer.commit([command, Poison()])
    do(command)
    assert Task.objects.count() == 1


# --- Claim


def test_claim_takes_the_most_urgent_lane_and_the_oldest_in_it():
    low, old, new = submit(priority=3), submit(priority=1), submit(priority=1)
    worker = agent()
    order = []
    for _ in range(3):
        [(_, task_id)] = claim(worker)
        order.append(task_id)
        do(Complete(task_id, "a-1", 1))
    assert order == [old.task_id, new.task_id, low.task_id]


def test_claim_raises_the_generation():
    task = assigned()
    assert (task.status, task.generation, task.assigned_to) == ("assigned", 1, "a-1")
    assert task.assigned_at == task.last_alive_at is not None
    assert kinds(task) == ["task_submitted", "task_assigned"]


def test_claim_gives_each_agent_one():
    submit()
    submit()
    assert [agent_id for agent_id, _ in claim(agent("a-1"), agent("a-2"))] == ["a-1", "a-2"]
    assert claim(*Agent.objects.all()) == []


def test_claim_passes_over_what_nobody_there_can_do():
    hidden = [submit(needed_capabilities=["gpu"]) for _ in range(3)]
    task = submit(needed_capabilities=["code"], priority=3)
    assert claim(agent(capabilities=["code", "read"])) == [("a-1", task.task_id)]
    assert {again(other).status for other in hidden} == {Status.QUEUED}


def test_claim_leaves_a_busy_agent_alone():
    submit()
    busy = agent(fsm_state="working")
    with nothing_changes():
        assert claim(busy) == []


def test_two_claims_for_one_task():
    submit()
    assert [len(claim(agent(agent_id))) for agent_id in ("a-1", "a-2")] == [1, 0]


# --- Accept, progress, block


def test_accept():
    task = assigned()
    do(Accept(task.task_id, "a-1", task.generation))
    assert again(task).accepted_at is not None
    assert kinds(task)[-1] == "task_accepted"
    assert Agent.objects.get().fsm_state == "working"


def test_accepting_twice_is_no_news():
    task = assigned()
    do(Accept(task.task_id, "a-1", task.generation))
    do(Accept(task.task_id, "a-1", task.generation))
    assert kinds(task).count("task_accepted") == 1


def test_progress_is_a_sign_of_life():
    task = assigned()
    Task.objects.update(last_alive_at=timezone.now() - timedelta(hours=1))
    do(Progress(task.task_id, "a-1", task.generation, progress=50.5, message="half"))
    assert str(again(task).last_alive_at) >= str(task.last_alive_at)
    assert Event.objects.latest("seq").data == {"progress": 50.5, "message": "half"}


def test_block_and_unblock():
    task = assigned()
    do(Block(task.task_id, "a-1", task.generation, reason="a question"))
    do(Block(task.task_id, "a-1", task.generation, reason="the same question"))
    assert again(task).blocked_at is not None
    assert Agent.objects.get().fsm_state == "blocked"
    do(Unblock(task.task_id, "a-1", task.generation))
    do(Unblock(task.task_id, "a-1", task.generation))
    assert again(task).blocked_at is None
    assert Agent.objects.get().fsm_state == "working"
    assert kinds(task)[2:] == ["task_blocked", "task_unblocked"]


# --- Complete


def completed(agent_id: str = "a-1") -> Task:
    task = assigned(agent_id)
    do(Complete(task.task_id, agent_id, task.generation, result={"ok": True}, tokens_used=7))
    return again(task)


def test_complete():
    task = completed()
    assert (task.status, task.result, task.tokens_used) == ("completed", {"ok": True}, 7)
    assert kinds(task)[-1] == "task_complete"
    completion = Completion.objects.get()
    assert (completion.task_id, completion.agent_id) == (task.task_id, "a-1")
    assert (completion.tokens_used, completion.description) == (7, "a task")
    assert completion.duration_ms >= 0
    agent = Agent.objects.get()
    assert (agent.fsm_state, agent.current_task_id) == ("idle", None)


def test_a_task_has_ended_when_it_is_completed_and_no_more_when_it_is_queued_again():
    held, letter = assigned("a-1"), dead("a-2")
    assert held.ended_at is letter.ended_at is None
    do(Complete(held.task_id, "a-1", held.generation))
    done = again(held)
    assert done.ended_at == done.updated_at
    letter.ended_at = done.ended_at
    letter.retry(timezone.now())
    assert letter.ended_at is None


def test_the_duration_runs_from_the_assignment():
    task = assigned()
    Task.objects.update(assigned_at=timezone.now() - timedelta(seconds=60))
    do(Complete(task.task_id, "a-1", task.generation))
    assert 60_000 <= Completion.objects.get().duration_ms < 120_000


def test_a_completion_told_again_is_acked_and_changes_nothing():
    task = completed()
    with nothing_changes():
        do(Complete(task.task_id, "a-1", task.generation, result={"ok": "otherwise"}))


def test_a_completion_told_twice_in_one_group_counts_once():
    task = assigned()
    complete = Complete(task.task_id, "a-1", task.generation)
    assert writer.commit([complete, complete]) == [None, None]
    assert Completion.objects.count() == 1


def test_a_completion_by_another_agent_or_of_another_generation_is_refused():
    task = completed()
    assert refused(Complete(task.task_id, "a-2", task.generation)) == "invalid_state"
    assert refused(Complete(task.task_id, "a-1", task.generation - 1)) == "stale_generation"


# --- Fail and retry


def test_a_failure_within_the_budget_goes_back_to_the_queue():
    task = assigned(max_retries=2)
    assert do(Fail(task.task_id, "a-1", 1, error="broken")) == "retried"
    task = again(task)
    assert (task.status, task.retry_count, task.generation) == ("queued", 1, 2)
    assert (task.assigned_to, task.last_error) == (None, "broken")
    assert kinds(task)[2:] == ["task_failed", "task_retried"]


@pytest.mark.parametrize(("max_retries", "attempts"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_the_budget_is_the_number_of_attempts(max_retries: int, attempts: int):
    task = submit(max_retries=max_retries)
    worker = agent()
    said = []
    while claim(worker):
        said.append(do(Fail(task.task_id, "a-1", again(task).generation, error="broken")))
    assert said == ["retried"] * (attempts - 1) + ["dead_letter"]


def test_a_dead_letter():
    task = dead()
    assert (task.status, task.last_error) == ("dead_letter", "broken")
    assert task.died_at is not None
    assert kinds(task)[2:] == ["task_failed", "task_dead_letter"]
    assert Agent.objects.get().fsm_state == "idle"


def test_retry_by_hand_gives_a_fresh_budget_and_a_new_generation():
    task = dead(priority=Priority.HIGH)
    assert do(Retry(task.task_id, BOSS)) == task.priority
    fresh = again(task)
    assert (fresh.status, fresh.retry_count) == ("queued", 0)
    assert fresh.generation == task.generation + 1
    assert fresh.died_at is None
    assert kinds(task)[-1] == "task_retried"
    assert counted() == recounted()


@pytest.mark.parametrize(
    "make", [submit, assigned, completed], ids=["queued", "assigned", "completed"]
)
def test_only_the_dead_are_retried_by_hand(make: Callable[[], Task]):
    assert refused(Retry(make().task_id, BOSS)) == "not_found"


def test_retrying_twice_in_one_group_queues_once():
    task = dead()
    first, second = writer.commit([Retry(task.task_id, BOSS), Retry(task.task_id, BOSS)])
    assert first == task.priority
    assert isinstance(second, QueueError)
    assert kinds(task).count("task_retried") == 1


def test_a_retry_that_is_rolled_back_leaves_it_dead():
    task = dead()
    with nothing_changes(), pytest.raises(ZeroDivisionError):
        writer.commit([Retry(task.task_id, BOSS), Poison()])


# --- Reject and reclaim


@pytest.mark.parametrize(("verb", "kind"), [(Reject, "task_rejected"), (Reclaim, "task_reclaimed")])
def test_given_back_it_finds_its_old_place_and_spends_no_attempt(verb: type[OnTask], kind: str):
    task = assigned(max_retries=1)
    submit()
    do(verb(task.task_id, "a-1", task.generation))
    back = again(task)
    assert (back.status, back.generation, back.retry_count) == ("queued", 2, 0)
    assert (back.accepted_at, back.assigned_at, back.assigned_to) == (None, None, None)
    assert kinds(task)[-1] == kind
    assert claim(agent("a-2")) == [("a-2", task.task_id)]


# --- Needs


def test_the_needs_key_does_not_depend_on_the_order():
    assert needs_key(["b", "a", "b"]) == needs_key(["a", "b"])
    assert needs_of(needs_key(["b", "a"])).capabilities == {"a", "b"}
    assert needs_key([]) == ""
    assert needs_of("").capabilities == frozenset()


@pytest.mark.django_db
@pytest.mark.parametrize("needs", ['["nobody"]', '["few"]'], ids=["many wait", "one waits"])
def test_the_head_of_a_lane_is_found_by_its_index(needs: str) -> None:
    """However many others wait before it: nothing else would keep a claim's time flat."""
    now = timezone.now()
    keys = ['["nobody"]'] * 2_000 + ['["few"]'] + ['["others"]'] * 2_000
    Task.objects.bulk_create(
        Task(number=n, task_id=f"t-{n}", needs=key, created_at=now, updated_at=now)
        for n, key in enumerate(keys, start=1)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    with CaptureQueriesContext(connection) as asked:
        assert heads(2, [needs], limit=1)[0].needs == needs
    explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    with connection.cursor() as cursor:
        cursor.execute(f"{explain} {asked[0]['sql']}")
        plan = str(cursor.fetchall())
    assert "task_queue" in plan
    assert "Filter" not in plan


def test_needs_are_filed_under_what_fewest_share():
    assert rarest(["python", "customer-17", "gpu"]) == "customer-17"
    assert rarest(["a", "b"]) == rarest(["b", "a"]) == "b"
    assert filed_under(needs_of("")) == ""
    assert filed_under(needs_of(needs_key(["a"], only="a-1"))) == filed_for(mark_of("a-1"))


def test_what_waited_before_needs_were_filed_is_found_as_well():
    submit(needed_capabilities=["gpu", "python"])
    submit()
    Tally.objects.update(filed_under="")
    migration = importlib.import_module("tasks.migrations.0007_needs_filed")
    migration.file(apps, None)
    assert waiting_needs(["gpu", "python"]) == [(2, {"": 1, '["gpu","python"]': 1})]
    assert waiting_needs(["gpu"]) == [(2, {"": 1})]
