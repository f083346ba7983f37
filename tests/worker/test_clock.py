"""The clock is set, or nobody could act for a while: no task is taken back and nothing dropped."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings as hub_settings

from agentcom.models import Event, Lease, Node
from agentcom.nodes import Heartbeat
from agentcom.writer import writer
from fleet.models import Agent, AgentState, AgentToken
from fleet.tokens import CreateTokens
from tasks.models import Status, Submission, Task
from tasks.queue import Accept, Complete, Fail, Progress, Reclaim, Reject
from tasks.steering import Cancel
from tests.shift import HERE, Clock, Shift, held
from tests.shown import shown
from tests.tasks.play import BOSS, again, agent, do, submit
from worker.health import Report, with_worker_silence
from worker.lease import HoldLease
from worker.models import HealthReport, QueueSample
from worker.tick import Worker

pytestmark = pytest.mark.django_db

LIMIT_S, STUCK_S = 200, 50  # without a sign of life
STEADY_S = 100
WINDOW_S = 100  # in which a lost agent is shown
GRACE_S = 10
TICK_S = 5
HOUR, DAY = 3600, 86_400
Turn = Callable[..., None]


@pytest.fixture
def turn(shift: Shift, clock: Clock, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Turn:
    """The loop goes on for so many seconds, at the end of which it looks."""
    settings.AGENTCOM_WORKER_TICK_S = TICK_S
    settings.AGENTCOM_OFFLINE_WINDOW_S = WINDOW_S
    monkeypatch.setattr("worker.watch.STEADY_S", STEADY_S)
    settings.AGENTCOM_RECLAIM_AFTER_S, settings.AGENTCOM_STUCK_AFTER_S = LIMIT_S, STUCK_S
    monkeypatch.setattr("worker.tick.connection", SimpleNamespace(close=lambda: None))
    monkeypatch.setattr("agentcom.database.now", clock)
    monkeypatch.setattr("worker.tick.steady", clock.steady)

    def turn(seconds: float = 0) -> None:
        for _ in range(max(1, int(seconds // TICK_S))):
            clock.advance(min(TICK_S, seconds))
            writer.commit([Heartbeat(HERE)])
            shift.worker.next_tick()

    return turn


def working(agent_id: str = "a-1", **fields: Any) -> Task:
    task = held(agent_id, **fields)
    do(Accept(task.task_id, agent_id, 1))
    return task


def is_held(task: Task) -> bool:
    return again(task).status == Status.ASSIGNED


def go_offline(clock: Clock, agent_id: str) -> None:
    gone = {"fsm_state": AgentState.OFFLINE, "disconnected_at": clock.now}
    Agent.objects.filter(agent_id=agent_id).update(**gone)


def conditions() -> list[str]:
    """The light as the worker reported it last."""
    report = HealthReport.objects.first()
    assert report is not None
    return [detail["message"] for detail in report.details]


@pytest.mark.parametrize("by", [HOUR, -600, 400 * 86_400, -400 * 86_400])
def test_no_task_is_taken_back_for_a_jump(by: float, turn: Turn, clock: Clock):
    turn()
    accepted, fresh, gone = working("a-1"), held("a-2"), working("a-3")
    turn(50)
    go_offline(clock, "a-3")
    turn(5)
    clock.jump(by)
    turn(1)
    assert all(map(is_held, (accepted, fresh, gone)))
    turn(10)  # what is left of its grace, or all of it once more
    assert not is_held(gone)
    turn(60)
    assert not is_held(fresh)
    assert is_held(accepted)
    assert Agent.objects.get(agent_id="a-1").fsm_state == AgentState.WORKING


@pytest.mark.parametrize("by", [HOUR, -600, -400 * 86_400])
def test_who_is_silent_loses_the_task_after_a_jump_too(by: float, turn: Turn, clock: Clock):
    turn()
    silent, busy = working("a-1"), working("a-2")
    turn(100)
    clock.jump(by)
    turn(LIMIT_S - 105)
    do(Progress(busy.task_id, "a-2", 1))
    assert is_held(silent)
    turn(110)
    assert not is_held(silent)
    assert is_held(busy)


def test_the_light_says_that_the_clock_jumped_until_it_is_steady(turn: Turn, clock: Clock):
    turn()
    clock.jump(-3725)
    turn(1)
    jumped_at = clock.now
    [said] = conditions()
    assert said == f"The clock jumped back by 1 h 2 min at {jumped_at:%Y-%m-%d %H:%M:%S} UTC"
    [row] = HealthReport.objects.all()[:1]
    assert (row.status, row.details[0]["code"]) == ("warning", "clock_jumped")
    assert row.details[0]["since"] == int(jumped_at.timestamp() * 1000)
    turn(STEADY_S - 5)
    assert conditions() == [said]
    turn(hub_settings.AGENTCOM_HEALTH_CLEAR_S)
    assert conditions() == []


def test_a_condition_that_goes_on_never_began_in_the_future(turn: Turn, clock: Clock):
    agent("a-1", node=HERE)
    go_offline(clock, "a-1")
    turn()
    clock.jump(-600)
    turn(1)
    row = HealthReport.objects.all()[0]
    assert {detail["code"] for detail in row.details} == {"agent_offline", "clock_jumped"}
    assert all(detail["since"] <= clock.now.timestamp() * 1000 for detail in row.details)
    turn(WINDOW_S)
    turn(hub_settings.AGENTCOM_HEALTH_CLEAR_S)
    assert conditions() == []


def test_an_agent_that_was_just_lost_is_not_retired_by_a_jump(turn: Turn, clock: Clock):
    agent("a-1", node=HERE)
    go_offline(clock, "a-1")
    turn()
    clock.jump(HOUR)
    turn(1)
    assert conditions()[0] == "1 agent is offline: a-1"


# --- Times that lie in the future


def test_a_dead_process_of_the_future_dies(turn: Turn, clock: Clock):
    agent("a-1", node="there")
    do(Heartbeat("there"))
    clock.jump(-600)
    turn(1)
    assert Node.objects.get(id="there").heartbeat_at == clock.now
    assert Agent.objects.get(agent_id="a-1").fsm_state == AgentState.IDLE
    turn(5)
    assert Agent.objects.get(agent_id="a-1").fsm_state == AgentState.OFFLINE


def test_a_lease_of_the_future_blocks_nobody(clock: Clock):
    def ask(holder: str) -> Any:
        return do(HoldLease("worker", holder, clock.now, clock.now + timedelta(seconds=2)))

    assert ask("dead")
    clock.advance(1)
    assert not ask("other")
    clock.jump(-HOUR)
    assert ask("other")
    assert Lease.objects.get().expires_at == clock.now + timedelta(seconds=2)


def test_a_report_of_the_future_is_no_fresh_one(turn: Turn, clock: Clock):
    turn()
    row = HealthReport.objects.all()[0]
    clock.jump(-600)
    [silence] = with_worker_silence(Report(), row.reported_at, clock.now).details
    assert silence.code == "worker_silent"
    assert silence.since <= clock.now.timestamp() * 1000
    turn(1)
    assert HealthReport.objects.all()[0].reported_at == clock.now


def test_samples_go_on_after_the_clock_was_set_back(turn: Turn, clock: Clock):
    turn()
    clock.jump(-HOUR)
    turn(65)
    assert QueueSample.objects.filter(at__lte=clock.now).count() == 2


def test_the_last_hour_and_the_rates_are_of_before_now(clock: Clock):
    task = working()
    clock.advance(5)
    do(Complete(task.task_id, "a-1", 1, {}))
    before = shown(clock.now)
    assert before["throughput"]["completed_last_hour"] == 1
    clock.jump(-HOUR)
    after = shown(clock.now)
    assert set(after["throughput"].values()) == {0}
    assert {lane["added_per_min"] for lane in after["queue"]["lanes"].values()} == {0}


# --- What is old


def test_waits_that_began_in_the_future_are_over(turn: Turn, clock: Clock):
    """A backoff, the pause of an agent that rejected it and the time to stop; not a date."""
    turn()
    clock.jump(10 * DAY)
    turn(TICK_S)
    failed, rejected, cancelled = held("a-1"), held("a-2"), held("a-3")
    do(Fail(failed.task_id, "a-1", 1, error="busy", retry_after_s=60))
    do(Reject(rejected.task_id, "a-2", 1))
    do(Cancel(cancelled.task_id, BOSS))
    dated = submit(not_before=clock.now + timedelta(days=1))

    clock.jump(-10 * DAY)
    turn(TICK_S)

    tasks = [again(task) for task in (failed, rejected, cancelled, dated)]
    assert [task.status for task in tasks] == ["queued", "queued", "cancelled", "scheduled"]
    assert [task.due_at for task in tasks] == [None, None, None, dated.due_at]
    assert tasks[1].refusers is None


@pytest.mark.parametrize("is_noticed", [False, True])
def test_what_an_agent_had_does_not_wait_for_its_time_again(
    turn: Turn, clock: Clock, is_noticed: bool
):
    """The time of a backoff or of a date has come, even if the clock says later that it has not."""
    turn()
    clock.jump(10 * DAY)
    turn(TICK_S)
    tasks = [held("a-1", not_before=clock.now), held("a-2", not_before=clock.now)]
    clock.jump(-10 * DAY)
    if is_noticed:
        turn(TICK_S)
    do(Reject(tasks[0].task_id, "a-1", 1))
    do(Reclaim(tasks[1].task_id, "a-2", 1))
    assert [again(task).status for task in tasks] == ["queued", "queued"]


def test_nothing_is_dropped_on_the_word_of_a_jump(turn: Turn, clock: Clock):
    turn()
    working()
    for key in ("k-1", "k-2"):
        Submission.objects.create(key=key, task_ids=[], created_at=clock.now)
    events = Event.objects.count()
    clock.jump(400 * 86_400)
    turn(STEADY_S - 5)
    clock.jump(-400 * 86_400)
    turn(STEADY_S)
    assert Event.objects.count() >= events
    assert Submission.objects.count() == 2
    clock.jump(2 * 86_400)
    turn(STEADY_S + 5)
    assert Submission.objects.count() == 0


def test_what_is_old_is_dropped_again_after_the_clock_was_set_back(turn: Turn, clock: Clock):
    turn()
    turn(STEADY_S + 10)
    clock.jump(-HOUR)
    old = clock.now - timedelta(days=2)
    for key in ("k-1", "k-2"):
        Submission.objects.create(key=key, task_ids=[], created_at=old)
    turn(STEADY_S + 10)
    assert Submission.objects.count() == 0


def test_after_days_without_a_worker_what_is_old_goes_once_the_clock_is_steady(
    shift: Shift, turn: Turn, clock: Clock
):
    turn()
    for key in ("k-1", "k-2"):
        Submission.objects.create(key=key, task_ids=[], created_at=clock.now)
    clock.advance(3 * 86_400)
    shift.worker = Worker(commit=writer.commit)
    turn(STEADY_S)
    assert Submission.objects.count() == 2
    turn(10)
    assert Submission.objects.count() == 0


def test_a_token_is_revoked_at_its_end_by_a_steady_clock_only(turn: Turn, clock: Clock):
    turn()
    for name, days in (("brief", 0.001), ("long", 30)):
        expires_at = clock.now + timedelta(days=days)
        do(CreateTokens({name: name}, expires_at=expires_at))
    clock.jump(HOUR)
    turn(50)
    assert not Event.objects.filter(kind="token_revoked").exists()
    turn(STEADY_S)
    revoked = Event.objects.filter(kind="token_revoked")
    assert [event.agent_id for event in revoked] == ["brief"]
    assert revoked.get().actor == "worker"
    assert AgentToken.objects.get(name="long").revoked_at is None


# --- Pauses, starts and deadlines


@pytest.mark.parametrize("restarted", [False, True])
def test_a_pause_does_not_count_as_silence(restarted: bool, shift: Shift, turn: Turn, clock: Clock):
    turn()
    task = working()
    turn(100)
    clock.advance(7200)
    if restarted:
        shift.worker = Worker(commit=writer.commit)
    turn()
    turn(LIMIT_S - 105)
    assert is_held(task)
    assert conditions() == [
        f"1 task is stuck, without a sign of life or progress for over 50 s: {task.task_id} (a-1)"
    ]
    turn(5)
    assert not is_held(task)


def test_a_pause_is_no_time_in_which_a_task_is_stuck(turn: Turn, clock: Clock):
    turn()
    working()
    turn(25)
    clock.advance(7200)
    turn(25)
    assert conditions() == []
    turn(10)
    assert len(conditions()) == 1


def test_a_restart_with_a_clock_that_is_behind(shift: Shift, turn: Turn, clock: Clock):
    agent("a-2", node="there")
    do(Heartbeat("there"))
    turn()
    task = working()
    clock.jump(-HOUR)
    clock.advance(20)
    shift.worker = Worker(commit=writer.commit)
    turn()
    assert shift.worker._acting
    assert is_held(task)
    assert again(task).last_alive_at == clock.now
    [said] = conditions()
    assert said.startswith("The clock jumped back by 59 min 40 s")
    turn(5)
    assert Agent.objects.get(agent_id="a-2").fsm_state == AgentState.OFFLINE
    turn(LIMIT_S - 10)
    assert is_held(task)
    turn(5)
    assert not is_held(task)


def test_a_deadline_is_a_time_of_day_that_a_jump_does_not_reach_at_once(turn: Turn, clock: Clock):
    turn()
    task = working(complete_by=clock.now + timedelta(seconds=1000))
    other = working("a-2", complete_by=clock.now + timedelta(seconds=HOUR + 1000))
    clock.jump(HOUR)
    turn(STEADY_S / 2)
    do(Progress(task.task_id, "a-1", 1))
    do(Progress(other.task_id, "a-2", 1))
    turn(STEADY_S / 2 - 5)
    assert is_held(task)
    turn(10)
    assert not is_held(task)
    assert is_held(other)


def test_a_deadline_passes_in_a_pause_and_leaves_the_grace(turn: Turn, clock: Clock):
    turn()
    task = working(complete_by=clock.now + timedelta(seconds=1000))
    clock.advance(2000)
    turn()
    turn(GRACE_S - 5)
    assert is_held(task)
    turn(5)
    assert not is_held(task)
