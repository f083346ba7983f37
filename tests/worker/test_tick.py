from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError

from agentcom.errors import Unavailable
from agentcom.models import Event, Lease, Node
from agentcom.nodes import Heartbeat
from agentcom.work import Command
from agentcom.writer import writer
from fleet.models import Agent, AgentState
from tasks.models import Status, Task
from tasks.queue import Accept, Block, Complete, Progress, Reclaim
from tests.shift import HERE, Clock, Shift, held
from tests.tasks.play import CONNECTION, again, agent, claim, do, kinds
from worker.facts import TakeSample
from worker.models import HealthReport, QueueSample
from worker.orphans import ForgetNode, MarkOffline
from worker.tick import Worker

pytestmark = pytest.mark.django_db


def reason_of(task: Task) -> str:
    """Why it was taken back; it is queued again and its first generation is no longer good."""
    [reclaimed] = Event.objects.filter(task_id=task.task_id, kind="task_reclaimed")
    assert again(task).status == Status.QUEUED
    assert again(task).generation == task.generation + 1
    reason: str = reclaimed.data["reason"]
    return reason


def change(agent_id: str = "a-1", **fields: Any) -> None:
    Agent.objects.filter(agent_id=agent_id).update(**fields)


def go_offline(clock: Clock, agent_id: str = "a-1") -> None:
    change(agent_id, fsm_state=AgentState.OFFLINE, disconnected_at=clock.now)


# --- Reclaims


def test_what_is_never_accepted_is_taken_back(shift: Shift):
    task = held()
    assert shift.tick(59).reclaimed == 0
    assert shift.tick(1).reclaimed == 1
    assert reason_of(task) == "not accepted within 60 s"
    holder = Agent.objects.get(agent_id="a-1")
    assert (holder.fsm_state, holder.current_task_id) == (AgentState.IDLE, None)


def test_what_is_accepted_is_left_alone(shift: Shift):
    task = held()
    do(Accept(task.task_id, "a-1", 1))
    assert shift.tick(61).reclaimed == 0
    assert shift.tick(600).reclaimed == 0


def test_an_agent_that_is_gone_for_too_long_loses_its_task(shift: Shift, clock: Clock):
    task = held()
    do(Accept(task.task_id, "a-1", 1))
    go_offline(clock)
    assert shift.tick(9.9).reclaimed == 0
    assert shift.tick(0.1).reclaimed == 1
    assert reason_of(task) == "the agent was disconnected for 10 s"


def test_an_agent_that_nobody_knows_loses_its_task(shift: Shift):
    task = held()
    Agent.objects.all().delete()
    assert shift.tick().reclaimed == 1
    assert reason_of(task) == "the agent is unknown"


def test_an_agent_that_came_back_and_does_not_go_on_loses_its_task(shift: Shift, clock: Clock):
    task = held()
    do(Accept(task.task_id, "a-1", 1))
    clock.advance(100)
    change(recovering_since=clock.now)
    assert shift.tick(59).reclaimed == 0
    assert shift.tick(1).reclaimed == 1
    assert reason_of(task) == "the agent reconnected but did not resume it within 60 s"

    # its next task is not taken away for the old wait
    assert claim(Agent.objects.get(agent_id="a-1")) == [("a-1", task.task_id)]
    assert shift.tick(1).reclaimed == 0


def test_silence_costs_the_task_and_progress_keeps_it(shift: Shift, clock: Clock):
    silent, busy, blocked = held("a-1"), held("a-2"), held("a-3")
    for task in (silent, busy, blocked):
        do(Accept(task.task_id, again(task).assigned_to or "", 1))
    do(Block(blocked.task_id, "a-3", 1))
    clock.advance(1000)
    do(Progress(busy.task_id, "a-2", 1))
    assert shift.tick(799).reclaimed == 0
    assert shift.tick(1).reclaimed == 1
    assert reason_of(silent) == "no sign of life or progress for 1800 s"
    assert again(busy).status == again(blocked).status == Status.ASSIGNED


def test_the_same_progress_again_and_again_costs_the_task(shift: Shift, clock: Clock):
    parrot, mute, honest = held("a-1"), held("a-2"), held("a-3")
    for task in (parrot, mute, honest):
        do(Accept(task.task_id, again(task).assigned_to or "", 1))
    do(Progress(parrot.task_id, "a-1", 1, progress=10, message="still at it"))
    for turn in range(18):
        clock.advance(100)
        do(Progress(parrot.task_id, "a-1", 1, progress=10.0, message="still at it"))
        do(Progress(mute.task_id, "a-2", 1, message="" if turn % 2 else None))
        do(Progress(honest.task_id, "a-3", 1, progress=10, message=f"page {turn}"))
        if turn == 3:
            shift.tick()
            assert HealthReport.objects.all()[0].details[0]["subjects"] == [parrot.task_id]
    assert kinds(parrot).count("task_progress") == 19
    assert shift.tick().reclaimed == 1
    assert reason_of(parrot) == "no sign of life or progress for 1800 s"
    assert again(mute).status == again(honest).status == Status.ASSIGNED

    # whoever gets it next starts anew, even with the same words
    clock.advance(100)
    assert claim(Agent.objects.get(agent_id="a-1")) == [("a-1", parrot.task_id)]
    do(Accept(parrot.task_id, "a-1", 3))
    clock.advance(100)
    do(Progress(parrot.task_id, "a-1", 3, progress=10, message="still at it"))
    assert again(parrot).last_alive_at == clock.now


def test_a_passed_deadline_costs_the_task_once(shift: Shift, clock: Clock):
    task = held(complete_by=clock.now + timedelta(seconds=30), on_overdue="run")
    do(Accept(task.task_id, "a-1", 1))
    assert shift.tick(29).reclaimed == 0
    assert shift.tick(1).reclaimed == 1
    assert reason_of(task) == "not completed by its deadline"

    # who gets it after the deadline may keep it: else it would go round for ever
    clock.advance(1)
    assert claim(Agent.objects.get(agent_id="a-1")) == [("a-1", task.task_id)]
    assert shift.tick(10).reclaimed == 0


def test_what_runs_past_its_deadline_ends_and_is_not_handed_out_again(shift: Shift, clock: Clock):
    task = held(complete_by=clock.now + timedelta(seconds=30))
    do(Accept(task.task_id, "a-1", 1))
    assert shift.tick(30).reclaimed == 1
    assert kinds(task)[-2:] == ["task_reclaimed", "task_dead_letter"]
    ended = again(task)
    assert (ended.status, ended.reclaim_count) == (Status.DEAD_LETTER, 0)
    assert (ended.last_error or "").startswith("expired")
    assert claim(Agent.objects.get(agent_id="a-1")) == []


def test_what_was_completed_before_its_deadline_does_not_expire(shift: Shift, clock: Clock):
    task = held(complete_by=clock.now + timedelta(seconds=30))
    do(Complete(task.task_id, "a-1", 1))
    Task.objects.update(ended_at=None)  # as an older version left it
    assert shift.tick(60).expired == 0
    assert again(task).status == Status.COMPLETED


def test_a_task_that_moved_on_refuses_its_reclaim(shift: Shift):
    """It is completed after the worker looked and before the reclaim is committed."""
    task = held()

    def complete_first(commands: Sequence[Command]) -> list[Any]:
        if any(isinstance(command, Reclaim) for command in commands):
            do(Complete(task.task_id, "a-1", 1))
        return writer.commit(commands)

    shift.worker = Worker(commit=complete_first)
    assert shift.tick(60).reclaimed == 0
    assert again(task).status == Status.COMPLETED
    assert "task_reclaimed" not in kinds(task)


def test_reclaims_are_bounded_and_go_on_with_the_next_tick(
    shift: Shift, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.reclaims.AT_ONCE", 2)
    for number in range(3):
        held(f"a-{number}")
    assert [shift.tick(60).reclaimed, shift.tick().reclaimed, shift.tick().reclaimed] == [2, 1, 0]


# --- Dead processes


def connect(agent_id: str, node: str) -> None:
    agent(agent_id, node=node)


def test_the_agents_of_a_dead_process_are_lost(shift: Shift, clock: Clock):
    do(Heartbeat("there"))
    connect("a-1", "there")
    connect("a-2", HERE)
    assert shift.tick(4.9).lost == 0
    assert shift.tick(0.1).lost == 1
    lost = Agent.objects.get(agent_id="a-1")
    assert (lost.fsm_state, lost.disconnected_at, lost.node) == ("offline", clock.now, "")
    assert Agent.objects.get(agent_id="a-2").fsm_state == "idle"
    [left] = Event.objects.filter(kind="agent_left")
    assert left.agent_id == "a-1"
    assert left.data == {"signed_off": False, "connection": CONNECTION}
    assert [node.id for node in Node.objects.all()] == [HERE]
    assert shift.tick(1).lost == 0


def test_the_agents_of_a_process_that_nobody_knows_are_lost(shift: Shift):
    connect("a-1", "gone without a trace")
    assert shift.tick().lost == 1


def test_an_agent_that_came_back_elsewhere_is_not_lost(clock: Clock):
    do(Heartbeat("there"))
    connect("a-1", "there")
    found = MarkOffline("a-1", "there", silent_since=clock.now)
    change(node=HERE)
    assert do(found) is False
    assert Agent.objects.get(agent_id="a-1").fsm_state == "idle"


def test_a_process_that_beats_again_loses_nobody(clock: Clock):
    connect("a-1", "there")
    silent_since = clock.now
    clock.advance(1)
    do(Heartbeat("there"))
    assert do(MarkOffline("a-1", "there", silent_since)) is False
    do(ForgetNode("there", silent_since))
    assert Node.objects.filter(id="there").exists()


# --- After a start or a pause, the fleet gets time to come back


def test_what_ran_out_while_nobody_watched_gets_the_grace_once_more(shift: Shift, clock: Clock):
    unaccepted, gone = held("a-1"), held("a-2")
    do(Accept(gone.task_id, "a-2", 1))
    go_offline(clock, "a-2")
    connect("a-3", "dead")
    clock.advance(3600)
    shift.worker.watch.since = clock.now
    tick = shift.tick(4.9)
    assert (tick.lost, tick.reclaimed) == (0, 0)
    tick = shift.tick(0.1)
    assert (tick.lost, tick.reclaimed) == (1, 0)
    assert shift.tick(5).reclaimed == 2
    assert reason_of(unaccepted) == "not accepted within 60 s"


def run_once(worker: Worker, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """One turn of the loop."""
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", lambda _: stop.set())
    monkeypatch.setattr("worker.tick.connection", SimpleNamespace(close=lambda: None))
    monkeypatch.setattr("agentcom.database.now", clock)
    monkeypatch.setattr("worker.tick.steady", clock.steady)
    worker.run(stop)


def test_the_loop_watches_anew_after_a_pause(
    shift: Shift, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    run_once(shift.worker, monkeypatch, clock)
    started = clock.now
    assert shift.worker.watch.since == started
    clock.advance(5)
    run_once(shift.worker, monkeypatch, clock)
    assert shift.worker.watch.since == started
    clock.advance(5.1)
    run_once(shift.worker, monkeypatch, clock)
    assert shift.worker.watch.since == clock.now


# --- Several workers


def test_one_of_two_workers_acts_and_the_other_takes_over(shift: Shift, clock: Clock):
    other = Shift(clock)
    assert shift.tick().acted
    assert not other.tick(1).acted
    assert shift.tick(1).acted
    assert not other.tick(1.9).acted  # the first has died, its lease holds
    assert other.tick(0.1).acted  # so a look each second finds it within three
    assert not shift.tick().acted


def test_a_worker_that_stands_by_changes_nothing(shift: Shift, clock: Clock):
    other = Shift(clock)
    shift.tick()
    task = held()
    clock.advance(59)
    shift.tick()
    assert other.tick(1).reclaimed == 0
    assert again(task).status == Status.ASSIGNED
    assert HealthReport.objects.all()[0].reported_at == clock.now - timedelta(seconds=1)


def test_a_worker_that_was_held_up_in_its_tick_overwrites_nothing_newer(shift: Shift, clock: Clock):
    """As when the process is stopped: it goes on with what it saw and with the time of then."""
    shift.tick()
    then = clock.now
    Shift(clock).tick(120)
    samples, told = QueueSample.objects.count(), Event.objects.count()
    assert not shift.worker._report(then)
    do(TakeSample(then))
    assert HealthReport.objects.all()[0].reported_at == clock.now
    assert (QueueSample.objects.count(), Event.objects.count()) == (samples, told)


def test_a_worker_that_ends_lets_the_other_act_at_once(
    shift: Shift, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    run_once(shift.worker, monkeypatch, clock)
    assert Lease.objects.get().holder == shift.worker.id
    assert Shift(clock).tick().acted


# --- When something goes wrong


def test_the_loop_outlives_a_failing_tick(
    shift: Shift, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with monkeypatch.context() as broken:
        broken.setattr("worker.light.gather", lambda *_: 1 / 0)
        run_once(shift.worker, monkeypatch, clock)
    [failure] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert failure.exc_info is not None
    assert HealthReport.objects.count() == 0
    run_once(shift.worker, monkeypatch, clock)
    assert HealthReport.objects.count() == 1


@pytest.mark.parametrize("error", [OperationalError("gone"), Unavailable()])
def test_an_absent_database_is_one_quiet_line(
    error: Exception,
    shift: Shift,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    def away(*_: Any) -> None:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr("worker.light.gather", away)
        for _ in range(3):
            run_once(shift.worker, monkeypatch, clock)
    clock.advance(1)
    run_once(shift.worker, monkeypatch, clock)
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [
        f"The database is unavailable; the worker waits: {error}",
        "The database is available again; the worker resumes",
    ]
    assert shift.worker.watch.since == clock.now
