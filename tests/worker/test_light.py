"""The light from one tick to the next: waiting work, agents that come and go, and no flicker."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from agentcom import actors
from agentcom.database import millis
from agentcom.models import Event
from dashboard.health import current_health
from fleet.models import Agent, AgentState
from fleet.presence import Forget, Identify, Leave, hash_of
from fleet.tokens import CreateTokens
from tasks.models import Priority
from tasks.queue import Complete, Reject
from tasks.steering import Retry
from tests.shift import HERE, Clock, Shift, held
from tests.tasks.play import BOSS, agent, claim, dead, do, submit
from worker import connections, waiting
from worker.watch import Watch

pytestmark = pytest.mark.django_db

CLEAR_S = 30  # the default
URGENT, LOW = Priority.URGENT, Priority.LOW


def codes(clock: Clock) -> list[str]:
    return [detail["code"] for detail in current_health(clock.now)["details"]]


def condition(clock: Clock, code: str) -> dict[str, Any]:
    found: dict[str, Any]
    [found] = [d for d in current_health(clock.now)["details"] if d["code"] == code]
    return found


def reports() -> int:
    return Event.objects.filter(kind="health_changed").count()


# --- Work that waits


def test_a_low_task_behind_a_steady_urgent_stream_turns_the_light(shift: Shift, clock: Clock):
    worker = agent(node=HERE)
    submit(priority=LOW)
    for _ in range(4 * 6):
        urgent = submit(priority=URGENT)
        assert claim(worker) == [("a-1", urgent.task_id)]
        do(Complete(urgent.task_id, "a-1", 1))
        shift.tick(600)
    assert codes(clock) == []
    shift.tick(1)
    assert condition(clock, "tasks_waiting")["message"] == (
        "Low tasks wait for over 4 hours (no agent that can do the oldest has been free for it)"
    )


@pytest.mark.parametrize(
    ("lane", "limit"), [(0, 300), (1, 900), (2, 3600), (3, 14_400)], ids=Priority.labels
)
def test_each_lane_has_its_limit(shift: Shift, clock: Clock, lane: int, limit: int):
    held("a-1")
    submit(priority=lane)
    clock.advance(limit)
    Agent.objects.update(fsm_state=AgentState.BLOCKED)
    shift.tick()
    assert "tasks_waiting" not in codes(clock)
    shift.tick(1)
    assert "tasks_waiting" in codes(clock)


def test_a_lane_that_moves_on_is_no_news(shift: Shift, clock: Clock):
    worker = agent(node=HERE)
    for _ in range(5):
        submit(priority=URGENT)
    shift.tick(301)
    assert "tasks_waiting" in codes(clock)
    before = reports()
    for _ in range(4):
        [(_, task_id)] = claim(worker)
        do(Complete(task_id, "a-1", 1))
        shift.tick(1)
    assert reports() == before


def test_a_task_that_was_retried_by_hand_waits_from_then_on(shift: Shift, clock: Clock):
    task = dead("a-1", priority=URGENT)
    Agent.objects.update(node=HERE)
    clock.advance(3 * 24 * 3600)
    do(Retry(task.task_id, BOSS))
    shift.tick(300)
    assert "tasks_waiting" not in codes(clock)
    shift.tick(1)
    assert "tasks_waiting" in codes(clock)


def test_one_that_comes_back_to_the_head_again_and_again_hides_none_behind_it(
    shift: Shift, clock: Clock, settings: Any
):
    settings.AGENTCOM_REJECT_PAUSE_S = 0
    worker = agent(node=HERE)
    first = submit(priority=URGENT)
    submit(priority=URGENT)
    for turn in range(11):
        assert claim(worker) == [("a-1", first.task_id)]
        do(Reject(first.task_id, "a-1", 2 * turn + 1))
        shift.tick(30)
    assert "tasks_waiting" in codes(clock)


def test_nobody_connected_warns_once_the_task_had_its_hold(shift: Shift, clock: Clock):
    task = submit()
    shift.tick(9.9)
    assert codes(clock) == []
    shift.tick(0.1)
    assert codes(clock) == ["nobody_connected"]
    agent(node=HERE)
    shift.tick(CLEAR_S)
    assert codes(clock) == []
    assert claim(Agent.objects.get()) == [("a-1", task.task_id)]


def test_an_agent_that_comes_back_within_the_hold_was_there(shift: Shift, clock: Clock):
    do(CreateTokens({"a-1": hash_of("a-1")}))
    do(Identify("a-1", hash_of("a-1"), connection="one", node=HERE, capabilities=("gpu",)))
    held("a-2")
    task = submit(needed_capabilities=["gpu"])
    shift.tick(100)
    assert codes(clock) == []
    do(Leave("a-1", "one", signed_off=True))
    shift.tick(9.9)
    assert codes(clock) == []
    shift.tick(0.2)
    assert condition(clock, "nobody_capable")["subjects"] == [task.task_id]


def test_a_worker_that_began_just_now_gives_the_agents_time_to_come(shift: Shift, clock: Clock):
    submit()
    clock.advance(3600)
    shift.worker.watch.since = clock.now
    shift.tick(9.9)
    assert "nobody_connected" not in codes(clock)
    shift.tick(0.1)
    assert "nobody_connected" in codes(clock)


def test_what_nobody_connected_can_do_is_named(shift: Shift, clock: Clock):
    agent("a-1", node=HERE, capabilities=["a", "x"])
    agent("a-2", node=HERE, capabilities=["b", "x"])
    submit(needed_capabilities=["x"], description="somebody has this")
    both = submit(needed_capabilities=["a", "b"])
    gpu = submit(needed_capabilities=["vision", "gpu", "x"])
    submit(needed_capabilities=["vision", "gpu", "x"], description="one of those alike is named")
    shift.tick(10)
    found = condition(clock, "nobody_capable")
    assert found["message"] == (
        "Tasks wait that no connected agent can do: nobody has a and b together, gpu or vision"
    )
    assert found["subjects"] == sorted([both.task_id, gpu.task_id])
    assert codes(clock) == ["nobody_capable"]


def test_needs_far_behind_the_head_are_found_through_the_tally(shift: Shift, clock: Clock):
    agent(node=HERE)
    for number in range(waiting.HEADS):
        submit(f"{number}")
    hidden = submit(needed_capabilities=["gpu"])
    shift.tick(10)
    assert condition(clock, "nobody_capable")["subjects"] == [hidden.task_id]


def test_many_needs_are_bounded_work(shift: Shift, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(waiting, "UNMET", 3)
    agent(node=HERE)
    for number in range(60):
        submit(needed_capabilities=[f"skill-{number}"])
    clock.advance(10)
    with CaptureQueriesContext(
        connection,
    ) as asked:
        found = waiting.find_waiting(clock.now, Watch())
    assert len(found.unmet) <= waiting.HEADS + 3
    assert len(asked) <= 8


# --- Agents that come and go


def join(agent_id: str, number: int) -> str:
    """A new socket of the agent."""
    name = f"{agent_id}-{number}"
    do(Identify(agent_id, hash_of(agent_id), connection=name, node=HERE))
    return name


@pytest.fixture
def named() -> None:
    do(CreateTokens({name: hash_of(name) for name in ("a-1", "a-2")}))


@pytest.mark.usefixtures("named")
def test_two_processes_with_one_name_are_named(shift: Shift, clock: Clock):
    for number in range(4):
        join("a-1", number)
        shift.tick(2)
    assert codes(clock) == []
    join("a-1", 4)
    join("a-2", 0)
    shift.tick(2)
    assert codes(clock) == ["agent_contested"]
    assert condition(clock, "agent_contested")["subjects"] == ["a-1"]
    shift.tick(60)
    shift.tick(CLEAR_S)
    assert codes(clock) == []


@pytest.mark.usefixtures("named")
def test_an_agent_that_takes_over_now_and_then_is_not_contested(shift: Shift, clock: Clock):
    for number in range(20):
        join("a-1", number)
        shift.tick(21)
    assert codes(clock) == []


@pytest.mark.usefixtures("named")
def test_an_agent_there_and_gone_is_one_incident(shift: Shift, clock: Clock):
    shift.tick()
    before = reports()
    for number in range(9):
        gone = join("a-1", number)
        shift.tick(2)
        do(Leave("a-1", gone))
        shift.tick(2)
    assert reports() - before == 2
    assert codes(clock) == ["agent_offline", "agent_flapping"]
    assert condition(clock, "agent_flapping")["subjects"] == ["a-1"]


@pytest.mark.usefixtures("named")
def test_one_that_flaps_beside_one_that_is_gone_is_no_news_each_time(shift: Shift, clock: Clock):
    do(Leave("a-2", join("a-2", 0)))
    shift.tick()
    for number in range(2):
        gone = join("a-1", number)
        shift.tick(1)
        do(Leave("a-1", gone))
        shift.tick(1)
        if number == 0:
            before = reports()
    assert reports() == before


@pytest.mark.usefixtures("named")
def test_who_signs_off_does_not_flap(shift: Shift, clock: Clock):
    for number in range(9):
        do(Leave("a-1", join("a-1", number), signed_off=True))
        shift.tick(1)
    assert codes(clock) == []


@pytest.mark.usefixtures("named")
def test_a_new_worker_knows_who_came_and_went(shift: Shift, clock: Clock):
    for number in range(5):
        join("a-1", number)
        do(Leave("a-2", join("a-2", number)))
    Shift(clock).tick()
    assert codes(clock) == ["agent_offline", "agent_contested", "agent_flapping"]


@pytest.mark.usefixtures("named")
def test_the_journal_is_read_on_and_not_again(
    shift: Shift, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connections, "PAGE", 2)
    for number in range(5):
        join("a-1", number)
    read = connections.Connections()
    for _ in range(2):
        read.read_new(clock.now)
        assert read.contested(clock.now) == []
    read.read_new(clock.now)
    assert read.contested(clock.now) == ["a-1"]
    read.read_new(clock.now + connections.FLAPPING)
    assert not read._agents


# --- What is right shows after a while


def ticks(shift: Shift, seconds: int) -> None:
    for _ in range(seconds):
        shift.tick(1)


def test_a_condition_clears_once_it_held_and_keeps_its_beginning(shift: Shift, clock: Clock):
    agent(node=HERE, fsm_state="offline", disconnected_at=clock.now)
    shift.tick()
    began = millis(clock.now)
    for _ in range(3):
        Agent.objects.update(fsm_state="idle")
        ticks(shift, 29)
        assert condition(clock, "agent_offline")["since"] == began
        Agent.objects.update(fsm_state="offline", disconnected_at=clock.now)
        shift.tick(1)
    assert reports() == 1
    Agent.objects.update(fsm_state="idle")
    ticks(shift, 29)
    assert codes(clock) == ["agent_offline"]
    shift.tick(1)
    assert codes(clock) == []
    assert reports() == 2


def test_an_agent_that_is_forgotten_is_named_no_longer(shift: Shift, clock: Clock):
    agent(node=HERE, fsm_state="offline", disconnected_at=clock.now)
    shift.tick(1)
    assert codes(clock) == ["agent_offline"]
    do(Forget("a-1", actors.ANYONE))
    shift.tick(1)
    assert codes(clock) == []


def test_a_new_worker_does_not_flicker_either(shift: Shift, clock: Clock):
    agent(node=HERE, fsm_state="offline", disconnected_at=clock.now)
    shift.tick()
    Agent.objects.update(fsm_state="idle")
    other = Shift(clock)
    other.tick(2)
    assert codes(clock) == ["agent_offline"]
    ticks(other, 27)
    assert codes(clock) == ["agent_offline"]
    other.tick(1)
    assert codes(clock) == []
    assert reports() == 2


def test_nothing_is_held_when_the_setting_says_so(shift: Shift, clock: Clock, settings: Any):
    settings.AGENTCOM_HEALTH_CLEAR_S = 0
    agent(node=HERE, fsm_state="offline", disconnected_at=clock.now)
    shift.tick()
    assert codes(clock) == ["agent_offline"]
    Agent.objects.update(fsm_state="idle")
    shift.tick(1)
    assert codes(clock) == []


def test_slow_ticks_clear_too(shift: Shift, clock: Clock, settings: Any):
    settings.AGENTCOM_WORKER_TICK_S = 60
    agent(node=HERE, fsm_state="offline", disconnected_at=clock.now)
    shift.tick()
    Agent.objects.update(fsm_state="idle")
    shift.tick(60)
    assert codes(clock) == []
