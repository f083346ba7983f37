"""The state in memory: old state + events = fresh state, and old view + patch = fresh view.

The same for random traffic: tests/tasks/test_queue_machine.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from agentcom.models import Event
from agentcom.work import Command
from agentcom.writer import Writer, writer
from dashboard.state import heads as heads_module
from dashboard.state import newest as newest_module
from dashboard.state.agents import Agents
from dashboard.state.queue import Queue
from dashboard.state.whole import State, read
from fleet.holds import PlaceHold
from fleet.models import Agent
from fleet.presence import Forget, Identify, Leave, SetStatus
from fleet.tokens import CreateTokens
from tasks.models import Task
from tasks.queue import Accept, Complete, Fail, Reclaim
from tasks.steering import Cancel, Retry, SetPriority
from tests.fleet.test_actors import STORIES
from tests.shift import Clock
from tests.shown import Followed, shown
from tests.tasks.play import BOSS, agent, assigned, claim, dead, do, submit
from worker.health import Condition, Report
from worker.reports import FileReport

pytestmark = pytest.mark.django_db

# which need a part to be read again, and say so
REREAD = {"times_reset": [Agents]}


@pytest.fixture
def following(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Followed]]:
    """A state that follows all commits from here on."""
    before = writer._committed

    def follow() -> Followed:
        followed = Followed(clock.now)
        monkeypatch.setattr(writer, "_committed", followed.committed)
        return followed

    yield follow
    writer._committed = before


@pytest.mark.parametrize("kind", STORIES)
def test_every_kind_of_event_is_followed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one commit to the next, whatever a test has changed in between."""
    happen, _ = STORIES[kind]
    commit = Writer.commit

    def followed_commit(self: Writer, commands: Sequence[Command]) -> list[Any]:
        followed = Followed(timezone.now())
        monkeypatch.setattr(self, "_committed", followed.committed)
        outcomes = commit(self, commands)
        outdated = followed.own.outdated()
        if outdated:
            event = Event.objects.latest("seq")
            assert REREAD.get(event.kind) == outdated
        else:
            followed.check(timezone.now())
        return outcomes

    monkeypatch.setattr(Writer, "commit", followed_commit)
    happen()
    assert Event.objects.filter(kind=kind).exists()


def complete(name: str, **fields: Any) -> None:
    task = assigned(name, **fields)
    do(Complete(task.task_id, name, task.generation, {}, 7))


def test_a_fleet_at_work(clock: Clock, following: Callable[[], Followed]) -> None:
    do(CreateTokens({"a-1": "one", "a-2": "two"}))
    followed = following()
    for token, name in (("one", "a-1"), ("two", "a-2")):
        do(Identify(name, token, "socket", "node", "Ann", "fine", ("x",), ("cancel",)))
    first, second = submit("first", priority=0), submit("\x1b[1msecond\x1b[0m " + "x" * 2000)
    claim(*Agent.objects.all())
    followed.check(clock.now)
    clock.advance(61)
    do(Accept(first.task_id, "a-1", 1))
    do(SetStatus("a-2", "tired"))
    do(Leave("a-2", "socket"))
    followed.check(clock.now)
    do(Identify("a-2", "two", "other", "node"))  # and it has its task still
    do(Fail(second.task_id, "a-2", 1, "broken", retryable=False))
    do(Complete(first.task_id, "a-1", 1, {}, 3))
    do(Leave("a-1", "socket", signed_off=True))
    followed.check(clock.now)
    do(Retry(second.task_id, BOSS))
    do(SetPriority(second.task_id, BOSS, 3))
    do(Cancel(second.task_id, BOSS, "no more"))
    do(Leave("a-2", "other"))
    do(Forget("a-2", BOSS))
    followed.check(clock.now)


def test_time_alone_changes_what_is_shown(clock: Clock, following: Callable[[], Followed]) -> None:
    agent("lost", disconnected_at=clock.now)
    agent("other", disconnected_at=clock.now)
    complete("a-1")
    do(PlaceHold(BOSS, "hub", "", "lunch", clock.now + timedelta(minutes=20)))
    followed = following()
    do(Leave("lost", "socket"))
    for minutes in (1, 5, 13, 3, 40, 1, 60):
        clock.advance(60 * minutes)
        followed.check(clock.now)
        if minutes == 13:
            do(Leave("other", "socket"))
            followed.check(clock.now)


def test_a_lost_agent_stays_while_the_light_names_it(
    clock: Clock, following: Callable[[], Followed]
) -> None:
    agent("lost")
    followed = following()
    do(Leave("lost", "socket"))
    told = Condition("agent_offline", "warning", "1 agent is offline", 1, ("lost",))
    do(FileReport(Report((told,)), clock.now))
    followed.check(clock.now)
    clock.advance(3600)
    followed.check(clock.now)
    assert [row["agent_id"] for row in shown(clock.now)["offline_agents"]] == ["lost"]
    do(FileReport(Report(), clock.now))
    followed.check(clock.now)
    assert shown(clock.now)["offline_agents"] == []


def test_one_that_the_light_names_and_that_nobody_remembers_is_read(clock: Clock) -> None:
    """The clock was set forward: by this clock it was lost long ago, by the worker's just now."""
    agent("lost", fsm_state="offline", disconnected_at=clock.now - timedelta(hours=2))
    state = State(read(clock.now), {"details": []})
    state.sections(0, clock.now)
    assert state.outdated() == []
    state.health = {"details": [{"code": "agent_offline", "subjects": ["lost"]}]}
    state.sections(0, clock.now)
    assert state.outdated() == [Agents]


def test_the_clock_was_set_back_over_the_hour(
    clock: Clock, following: Callable[[], Followed]
) -> None:
    agent()
    followed = following()
    complete("a-1")
    clock.advance(3600)
    complete("a-1")
    followed.check(clock.now)
    clock.jump(-3600)
    complete("a-1")
    assert Agents in followed.own.outdated()


class TestHeadsOfLanes:
    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(heads_module, "KEPT", 4)
        monkeypatch.setattr(heads_module, "LOW", 2)

    def test_the_oldest_is_known_however_many_wait(
        self, clock: Clock, following: Callable[[], Followed]
    ) -> None:
        hands = [agent(f"a-{n}") for n in range(3)]
        followed = following()
        for _ in range(20):
            clock.advance(1)
            submit()
        followed.check(clock.now)
        for _ in range(6):
            tasks = claim(*hands)
            followed.check(clock.now)
            clock.advance(1)
            name, task_id = tasks[-1]  # it goes back to its place
            generation = Task.objects.get(task_id=task_id).generation
            do(Reclaim(task_id, name, generation))
            followed.check(clock.now)
            for name, task_id in tasks[:-1]:
                do(Complete(task_id, name, Task.objects.get(task_id=task_id).generation))
            if followed.own.outdated():
                return  # which is what it must do when there are few left
        pytest.fail("the heads were never read again")

    def test_it_is_read_again_before_the_last_known_one_has_left(
        self, clock: Clock, following: Callable[[], Followed]
    ) -> None:
        for _ in range(9):
            submit()
        hands = [agent(f"a-{n}") for n in range(4)]
        followed = following()
        claim(*hands[:2])
        assert followed.own.outdated() == []
        claim(hands[2])
        assert (followed.own.outdated(), followed.own.is_known) == ([Queue], True)
        followed.check(clock.now)
        claim(hands[3])
        assert not followed.own.is_known


class TestNewest:
    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(newest_module, "LIST_MAX", 3)
        monkeypatch.setattr(newest_module, "SPARE", 2)

    def test_completions(self, clock: Clock, following: Callable[[], Followed]) -> None:
        agent("a-0")
        agent("a-1")
        followed = following()
        for n in range(9):
            complete(f"a-{n % 2}", description=f"task {n}")
            clock.advance(0.001 * (n % 3))
            followed.check(clock.now)

    def test_dead_letters(self, clock: Clock, following: Callable[[], Followed]) -> None:
        dead()
        followed = following()
        letters = [dead() for _ in range(8)]
        followed.check(clock.now)
        for letter in reversed(letters):
            do(Retry(letter.task_id, BOSS))
            if not followed.own.is_known:
                return
            followed.check(clock.now)
        pytest.fail("the dead letters were never read again")

    def test_the_last_dead_letters_leave(
        self, clock: Clock, following: Callable[[], Followed]
    ) -> None:
        letters = [dead() for _ in range(4)]
        followed = following()
        for letter in letters:
            do(Retry(letter.task_id, BOSS))
            assert followed.own.outdated() == []
            followed.check(clock.now)
