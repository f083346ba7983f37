from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentcom.database import millis
from agentcom.models import Event
from dashboard.health import ADVICE, current_health, to_wire
from fleet.presence import Identify, Leave, hash_of
from fleet.tokens import CreateTokens
from tasks.queue import Accept, Block, Complete, Fail, Progress, Unblock
from tests.shift import HERE, Clock, Shift, held
from tests.tasks.play import agent, do, submit
from worker.health import CHECKS, Condition, Facts, Report, judge
from worker.models import HealthReport

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=30)
CLEAR_S = 30  # the default


def only(report: Report) -> Condition:
    [condition] = report.details
    return condition


# --- Facts in, report out


def test_nothing_wrong_is_ok():
    report = judge(Facts(completed=10, queue_depths=[1, 2, 2]), None, NOON)
    assert to_wire(report) == {"status": "ok", "conditions": [], "details": []}


def test_a_condition_has_all_that_the_wire_promises():
    report = judge(Facts(offline_agents=["a-2", "a-1"]), None, NOON)
    assert to_wire(report) == {
        "status": "warning",
        "conditions": ["2 agents are offline: a-1 and a-2"],
        "details": [
            {
                "code": "agent_offline",
                "severity": "warning",
                "message": "2 agents are offline: a-1 and a-2",
                "since": millis(NOON),
                "subjects": ["a-1", "a-2"],
                "advice": ADVICE["agent_offline"],
            }
        ],
    }


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (Facts(offline_agents=["a-1"]), "1 agent is offline: a-1"),
        (Facts(offline_agents=["a-3", "a-1", "a-2"]), "3 agents are offline: a-1, a-2 and a-3"),
        (
            Facts(offline_agents=[f"a-{n:02}" for n in range(12)]),
            "12 agents are offline: a-00, a-01, a-02, a-03 and 8 others",
        ),
        (
            Facts(offline_agents=[f"a-{n:04}" for n in range(1001)]),
            "Over 1,000 agents are offline: a-0000, a-0001, a-0002, a-0003 and many others",
        ),
        (
            Facts(queue_depths=[8, 1, 20, 1300]),
            "The queue is growing: 1, then 20, then 1,300 tasks",
        ),
        (Facts(completed=1, failed=3), "3 of 4 attempts of the last hour failed"),
        (Facts(completed=31, failed=69), "At least 60 % of the attempts of the last hour failed"),
        (Facts(failed=20), "Every attempt of the last hour failed"),
        (
            Facts(stuck_tasks={"task-1": "a-1"}),
            "1 task is stuck, without a sign of life or progress for over 5 minutes: task-1 (a-1)",
        ),
        (
            Facts(contested_agents=["a-1"]),
            "1 agent name is used by several processes, which cut each other off: a-1",
        ),
        (
            Facts(contested_agents=["a-2", "a-1"]),
            "2 agent names are used by several processes, which cut each other off: a-1 and a-2",
        ),
        (Facts(flapping_agents=["a-1"]), "1 agent keeps losing its connection: a-1"),
        (
            Facts(flapping_agents=["a-2", "a-1"]),
            "2 agents keep losing their connection: a-1 and a-2",
        ),
        (Facts(nobody_connected=True), "Tasks wait, and no agent is connected"),
        (
            Facts(unmet={"task-1": ["gpu"], "task-2": ["gpu"], "task-3": ["a and b together"]}),
            "Tasks wait that no connected agent can do: nobody has a and b together or gpu",
        ),
        (
            Facts(unmet={f"task-{n}": [f"skill-{n}"] for n in range(9)}),
            "Tasks wait that no connected agent can do: "
            "nobody has skill-0, skill-1, skill-2 or more",
        ),
        (
            Facts(unmet={"task-1": ["x" * 2000]}),
            f"Tasks wait that no connected agent can do: nobody has {'x' * 79}…",
        ),
        (
            Facts(late_lanes={3: "somebody is busy", 0: "no agent is connected"}),
            "Urgent tasks wait for over 5 minutes (no agent is connected); "
            "low tasks wait for over 4 hours (somebody is busy)",
        ),
        (
            Facts(scarce_files={"web-1:17": 1024}),
            "1 process is nearly out of files to open, a socket each: web-1:17 (limit 1,024)",
        ),
    ],
)
def test_a_condition_is_a_sentence(facts: Facts, sentence: str):
    assert judge(facts, None, NOON).conditions == [sentence]


@pytest.mark.parametrize("depths", [[], [1, 2], [1, 2, 2], [3, 1, 2], [1, 2, 3, 3]])
def test_a_queue_that_did_not_rise_twice_running_does_not_grow(depths: list[int]):
    assert judge(Facts(queue_depths=depths), None, NOON).status == "ok"


@pytest.mark.parametrize(
    ("completed", "failed", "status"),
    [(0, 0, "ok"), (1, 0, "ok"), (1, 1, "ok"), (1, 2, "critical"), (0, 1, "critical")],
)
def test_more_than_half_failed_is_critical(completed: int, failed: int, status: str):
    assert judge(Facts(completed=completed, failed=failed), None, NOON).status == status


def test_few_attempts_can_be_let_pass(settings: Any):
    settings.AGENTCOM_FAILURE_MIN_TOTAL = 5
    assert judge(Facts(failed=4), None, NOON).status == "ok"
    assert judge(Facts(failed=5), None, NOON).status == "critical"


def test_the_worst_condition_gives_the_status():
    report = judge(Facts(offline_agents=["a-1"], failed=1), None, NOON)
    assert report.status == "critical"
    assert len(report.conditions) == 2


def test_a_condition_that_goes_on_keeps_its_beginning():
    first = judge(Facts(offline_agents=["a-1"]), None, NOON)
    second = judge(Facts(offline_agents=["a-1", "a-2"], failed=1), first, LATER)
    since = {condition.code: condition.since for condition in second.details}
    assert since == {"agent_offline": millis(NOON), "high_failure_rate": millis(LATER)}
    again = judge(Facts(failed=1), judge(Facts(), second, LATER), LATER)
    assert only(again).since == millis(LATER)


def test_a_long_list_of_subjects_is_cut():
    report = judge(Facts(offline_agents=[f"a-{n:03}" for n in range(200)]), None, NOON)
    assert only(report).subjects == tuple(f"a-{n:03}" for n in range(50))


# --- Through the worker's tick, going on and off


pytestmark = pytest.mark.django_db


def light(clock: Clock) -> tuple[str, list[str]]:
    """Status and codes as readers get them."""
    health = current_health(clock.now)
    return health["status"], [detail["code"] for detail in health["details"]]


def join(agent_id: str) -> Identify:
    do(CreateTokens({agent_id: hash_of(agent_id)}))
    return Identify(agent_id, hash_of(agent_id), connection=f"{agent_id}-socket", node=HERE)


def fail(agent_id: str) -> None:
    task = held(agent_id, max_retries=1)
    do(Fail(task.task_id, agent_id, task.generation, error="broken"))


def test_a_lost_agent_warns_until_it_is_back(shift: Shift, clock: Clock):
    identify = join("a-1")
    do(identify)
    shift.tick()
    assert light(clock) == ("ok", [])
    do(Leave("a-1", "a-1-socket"))
    shift.tick(1)
    assert light(clock) == ("warning", ["agent_offline"])
    do(identify)
    shift.tick(1)
    assert light(clock) == ("warning", ["agent_offline"])
    shift.tick(CLEAR_S)
    assert light(clock) == ("ok", [])


def test_a_lost_agent_retires_after_the_window(shift: Shift, clock: Clock):
    do(join("a-1"))
    do(Leave("a-1", "a-1-socket"))
    shift.tick(899)
    assert light(clock) == ("warning", ["agent_offline"])
    shift.tick(1)
    shift.tick(CLEAR_S)
    assert light(clock) == ("ok", [])


def test_a_planned_leave_does_not_warn(shift: Shift, clock: Clock):
    do(join("a-1"))
    do(Leave("a-1", "a-1-socket", signed_off=True))
    shift.tick(1)
    assert light(clock) == ("ok", [])


def test_a_growing_queue_warns_until_it_stops(shift: Shift, clock: Clock):
    agent(node=HERE)
    for _ in range(2):
        submit()
        shift.tick(60)
    assert light(clock) == ("ok", [])
    submit()
    shift.tick(59)
    assert light(clock) == ("ok", [])  # no sample yet
    shift.tick(1)
    assert light(clock) == ("warning", ["queue_growing"])
    shift.tick(60 + CLEAR_S)
    assert light(clock) == ("ok", [])


def test_samples_from_before_a_pause_tell_no_trend(shift: Shift, clock: Clock, settings: Any):
    settings.AGENTCOM_WAIT_NORMAL_S = 7200
    agent(node=HERE)
    for _ in range(2):
        submit()
        shift.tick(60)
    submit()
    shift.tick(3600)
    assert light(clock) == ("ok", [])


def test_many_failures_are_critical_for_as_long_as_the_hour_has_them(shift: Shift, clock: Clock):
    fail("a-1")
    shift.tick()
    assert light(clock) == ("critical", ["high_failure_rate"])
    task = held("a-2")
    do(Complete(task.task_id, "a-2", task.generation))
    shift.tick(CLEAR_S)
    assert light(clock) == ("ok", [])  # half is not too much
    clock.advance(120)
    fail("a-3")
    shift.tick(1)
    assert light(clock) == ("critical", ["high_failure_rate"])
    shift.tick(3600)
    assert light(clock) == ("ok", [])


def test_a_silent_task_is_stuck_until_it_shows_life(shift: Shift, clock: Clock):
    task = held()
    do(Accept(task.task_id, "a-1", 1))
    shift.tick(300)
    assert light(clock) == ("ok", [])
    shift.tick(1)
    assert light(clock) == ("warning", ["stuck_tasks"])
    assert current_health(clock.now)["details"][0]["subjects"] == [task.task_id]
    do(Progress(task.task_id, "a-1", 1))
    shift.tick(CLEAR_S)
    assert light(clock) == ("ok", [])


def test_a_blocked_task_is_not_stuck(shift: Shift, clock: Clock):
    task = held()
    do(Accept(task.task_id, "a-1", 1))
    do(Block(task.task_id, "a-1", 1))
    shift.tick(1000)
    assert light(clock) == ("ok", [])
    do(Unblock(task.task_id, "a-1", 1))
    shift.tick(301)
    assert light(clock) == ("warning", ["stuck_tasks"])


def test_a_silent_worker_warns_until_it_reports(shift: Shift, clock: Clock):
    assert light(clock) == ("warning", ["worker_silent"])
    shift.tick()
    clock.advance(3)
    assert light(clock) == ("ok", [])
    clock.advance(0.1)
    assert light(clock) == ("warning", ["worker_silent"])
    assert current_health(clock.now)["details"][0]["since"] == millis(clock.now) - 3100
    assert shift.tick().news
    assert light(clock) == ("ok", [])


def test_an_old_critical_report_stays_critical(shift: Shift, clock: Clock):
    fail("a-1")
    shift.tick()
    clock.advance(60)
    assert light(clock) == ("critical", ["high_failure_rate", "worker_silent"])


def test_a_report_is_news_only_when_it_differs(shift: Shift, clock: Clock):
    agent("a-1", fsm_state="offline", disconnected_at=clock.now)
    assert [shift.tick(1).news for _ in range(4)] == [True, False, False, False]
    [report] = HealthReport.objects.all()
    assert report.reported_at == clock.now
    [event] = Event.objects.filter(kind="health_changed")
    assert event.data == {"status": "warning", "conditions": ["1 agent is offline: a-1"]}

    agent("a-2", fsm_state="offline", disconnected_at=clock.now)
    assert shift.tick(1).news
    assert HealthReport.objects.count() == 2
    assert Event.objects.filter(kind="health_changed").count() == 2


def test_for_each_condition_there_is_something_to_do():
    assert ADVICE.keys() == {code for code, _, _ in CHECKS} | {"database_silent", "worker_silent"}
    assert all(advice.endswith(".") for advice in ADVICE.values())
