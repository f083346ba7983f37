"""Who gets which task: the pairing alone, and the dispatcher over fake sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import Mock

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from agentcom.models import Event
from agentcom.writer import writer
from fleet import dispatcher as dispatcher_module
from fleet.dispatcher import (
    Claim,
    Claimed,
    Dispatch,
    Dispatched,
    Dispatcher,
    Idle,
    match,
)
from fleet.presence import Identify
from fleet.tokens import CreateTokens
from tasks.heads import QueuedTask, heads, waiting_needs
from tasks.needs import needs_key, needs_of
from tasks.queue import Complete, NewTask, Reclaim, Submit
from tests.tasks.play import CONNECTION, agent, assigned, claim, do, submit

SKILLS = st.frozensets(st.sampled_from("abc"))


def idle(agent_id: str, *skills: str) -> Idle:
    return Idle(agent_id, "socket", frozenset(skills))


class Queue:
    """A queue in memory: lists of needs by lane; numbers count up over all lanes."""

    def __init__(self, lanes: Mapping[int, Sequence[frozenset[str]]]) -> None:
        numbers = iter(range(1, 10_000))
        self.lanes = {
            lane: [QueuedTask(next(numbers), "", needs_key(needs)) for needs in tasks]
            for lane, tasks in lanes.items()
        }

    def waiting(self) -> list[tuple[int, list[str]]]:
        return [(lane, sorted({t.needs for t in tasks})) for lane, tasks in self.lanes.items()]

    def heads(self, lane: int, needs: Sequence[str], limit: int) -> list[QueuedTask]:
        found = []
        for key in needs:
            found += [task for task in self.lanes[lane] if task.needs == key][:limit]
        return sorted(found, key=lambda task: task.number)


def pair(agents: list[Idle], queue: Queue) -> list[tuple[str, int]]:
    pairs = match(agents, queue.waiting(), queue.heads)
    return [(agent.agent_id, task.number) for agent, task in pairs]


def test_the_longest_idle_agent_gets_the_most_urgent_oldest_task() -> None:
    queue = Queue({0: [frozenset()], 2: [frozenset(), frozenset()]})
    assert pair([idle("first"), idle("second")], queue) == [("first", 1), ("second", 2)]


def test_a_task_that_nobody_can_do_hides_nothing_behind_it() -> None:
    queue = Queue({0: [frozenset("x")] * 1000, 2: [frozenset("x"), frozenset("a")]})
    assert pair([idle("able", "a")], queue) == [("able", 1002)]


def test_an_agent_may_have_more_capabilities_than_are_needed_and_not_fewer() -> None:
    queue = Queue({2: [frozenset("ab")]})
    assert pair([idle("half", "a"), idle("whole", "a", "b", "c")], queue) == [("whole", 1)]


@given(
    agents=st.lists(SKILLS, max_size=6),
    lanes=st.fixed_dictionaries({lane: st.lists(SKILLS, max_size=6) for lane in range(4)}),
)
def test_pairs_are_those_of_walking_the_queue_task_by_task(
    agents: list[frozenset[str]], lanes: dict[int, list[frozenset[str]]]
) -> None:
    queue = Queue(lanes)
    free = [Idle(f"a-{n}", "socket", skills) for n, skills in enumerate(agents)]
    expected = []
    left = list(free)
    for tasks in queue.lanes.values():
        for task in tasks:
            able = [
                agent for agent in left if needs_of(task.needs).capabilities <= agent.capabilities
            ]
            if able:
                left.remove(able[0])
                expected.append((able[0].agent_id, task.number))
    assert pair(free, queue) == expected


@pytest.mark.django_db
class TestClaim:
    def test_an_agent_that_reconnected_meanwhile_is_reported_and_gets_nothing(self) -> None:
        submit()
        agent("a-1", connection="newer")
        claimed = do(Claim([idle("a-1")]))
        assert (claimed.tasks, claimed.busy) == ([], [idle("a-1")])

    def test_a_task_submitted_in_the_same_group_is_found(self) -> None:
        task = submit()
        assert claim(agent("a-1")) == [("a-1", task.task_id)]

    def test_two_claims_never_give_out_the_same_task(self) -> None:
        submit()
        one, other = agent("a-1"), agent("a-2")
        assert len(claim(one) + claim(other)) == 1

    def test_the_queue_tells_which_needs_wait_in_which_lane(self) -> None:
        submit(priority=0, needed_capabilities=["b", "a"])
        submit(priority=2)
        submit(priority=2, needed_capabilities=["c"])
        submit(priority=2, needed_capabilities=["c"])
        assert waiting_needs("abc") == [(0, {'["a","b"]': 1}), (2, {"": 1, '["c"]': 2})]

    def test_needs_that_nobody_here_can_meet_are_not_read(self) -> None:
        submit(needed_capabilities=["x"])
        submit(needed_capabilities=["x", "customer-1"])
        submit(needed_capabilities=["customer-2"])
        assert waiting_needs(["x", "y"]) == [(2, {'["x"]': 1})]
        assert waiting_needs([]) == []

    def test_a_claim_finds_its_needs_by_index_and_sees_no_others(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        submit(needed_capabilities=["x"])
        for number in range(50):
            submit(needed_capabilities=["x", f"customer-{number}"])
        agent("a-1", capabilities=["x"])
        seen = Mock(side_effect=needs_of)
        monkeypatch.setattr(dispatcher_module, "needs_of", seen)
        assert len(do(Claim([Idle("a-1", CONNECTION, frozenset("x"))])).tasks) == 1
        assert {call.args for call in seen.call_args_list} == {('["x"]',)}

    @pytest.mark.sqlite_only  # PostgreSQL plans by what is in the table, and here that is nothing
    def test_waiting_needs_are_found_by_what_they_are_filed_under(self) -> None:
        with CaptureQueriesContext(connection) as captured:
            waiting_needs(["x"], ["a-1"])
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {captured.captured_queries[0]['sql']}")
            plan = " / ".join(row[3] for row in cursor.fetchall())
        assert plan.count("(status=? AND filed_under=?)") == 2
        assert "SCAN tasks_t" not in plan.replace("USING COVERING INDEX task_for_one", "")

    def test_heads_are_the_first_of_each_need_in_order(self) -> None:
        first = submit(needed_capabilities=["c"])
        second = submit()
        submit(needed_capabilities=["c"])
        numbers = [task.number for task in heads(2, ["", '["c"]'], limit=1)]
        assert numbers == [first.number, second.number]


class FakeSocket:
    def __init__(self, agent_id: str, connection: str = "socket", joined_seq: int = 1) -> None:
        self.agent_id = agent_id
        self.connection = connection
        self.capabilities: frozenset[str] = frozenset()
        self.token_hash = ""
        self.presence = False
        self.accepts: tuple[str, ...] = ()
        self.joined_seq = joined_seq
        self.pushed: list[dict[str, Any]] = []

    def send_soon(self, message: dict[str, Any]) -> None:
        self.pushed.append(message)

    def close_soon(self, code: int, reason: str | None = None) -> None: ...


# what makes tasks available that agents could not get before
OFFERING = [
    *("task_submitted", "task_due", "task_retried", "task_rejected", "task_reoffered"),
    *("task_reclaimed", "task_reprioritized", "hold_lifted"),
]


def happened(seq: int, kind: str, agent_id: str | None = None, task_id: str = "t") -> Event:
    data = {"status": "queued", "agent": "idle"}
    return Event(seq=seq, kind=kind, agent_id=agent_id, task_id=task_id, data=data)


def dispatched(
    seq: int, *events: Event, tasks: Sequence[tuple[Idle, dict[str, Any]]] = (), busy: str = ""
) -> Dispatched:
    claimed = Claimed(list(tasks), [idle(agent_id) for agent_id in busy.split()])
    return Dispatched(list(events), claimed, seq, reasons=1)  # who joined first


class TestWhoIsIdle:
    """The agents that a claim would look at next."""

    @pytest.fixture
    async def dispatcher(self) -> Dispatcher:
        dispatcher = Dispatcher()
        for agent_id in ("a-1", "a-2"):
            dispatcher.join(FakeSocket(agent_id))
        return dispatcher

    def who(self, dispatcher: Dispatcher, *events: Event) -> list[str]:
        return [agent.agent_id for agent in dispatcher.candidates(list(events))]

    async def test_an_agent_rests_when_its_task_is_over_and_not_while_it_has_one(
        self, dispatcher: Dispatcher
    ) -> None:
        dispatcher.on_events([happened(2, "task_assigned", "a-1")])
        assert self.who(dispatcher) == ["a-2"]
        dispatcher.on_events([happened(3, "task_complete", "a-1")])
        assert self.who(dispatcher) == ["a-2", "a-1"], "and the longest idle comes first"

    async def test_the_events_of_the_very_group_free_an_agent(self, dispatcher: Dispatcher) -> None:
        dispatcher.on_events([happened(2, "task_assigned", "a-1")])
        assert self.who(dispatcher, happened(3, "task_failed", "a-1")) == ["a-2", "a-1"]

    async def test_who_was_assigned_a_task_is_out_before_the_journal_tells(
        self, dispatcher: Dispatcher
    ) -> None:
        dispatcher.committed(dispatched(2, happened(2, "task_assigned", "a-1")))
        assert self.who(dispatcher, happened(3, "task_submitted")) == ["a-2"]

    async def test_the_journal_tells_old_news_late_and_changes_nothing(
        self, dispatcher: Dispatcher
    ) -> None:
        freed, assigned = happened(2, "task_complete", "a-1"), happened(3, "task_assigned", "a-1")
        dispatcher.committed(dispatched(2, freed))
        dispatcher.committed(dispatched(3, assigned))
        dispatcher.on_events([freed])
        assert self.who(dispatcher, happened(4, "task_submitted")) == ["a-2"]

    async def test_who_turned_out_to_be_busy_is_out_until_it_is_freed(
        self, dispatcher: Dispatcher
    ) -> None:
        dispatcher.committed(dispatched(5, busy="a-1"))
        assert self.who(dispatcher, happened(6, "task_submitted")) == ["a-2"]
        dispatcher.on_events([happened(6, "task_complete", "a-1")])
        assert self.who(dispatcher) == ["a-2", "a-1"]

    @pytest.mark.parametrize(("connection", "joined_seq"), [("newer", 4), ("socket", 6)])
    async def test_a_claim_that_found_an_older_socket_busy_says_nothing_of_the_newer_one(
        self, dispatcher: Dispatcher, connection: str, joined_seq: int
    ) -> None:
        dispatcher.join(FakeSocket("a-1", connection, joined_seq))
        dispatcher.committed(dispatched(5, busy="a-1"))
        assert self.who(dispatcher, happened(7, "task_submitted")) == ["a-2", "a-1"]

    async def test_a_newer_socket_of_the_same_agent_replaces_the_older_one(self) -> None:
        dispatcher = Dispatcher()
        older, newer = FakeSocket("a-1"), FakeSocket("a-1")
        assert dispatcher.join(older) is None
        assert dispatcher.join(newer) is older
        dispatcher.leave(older)
        assert dispatcher.sockets == {"a-1": newer}
        dispatcher.leave(newer)
        assert dispatcher.sockets == {}
        assert self.who(dispatcher) == []

    async def test_agents_that_are_elsewhere_are_not_idle_here(self) -> None:
        dispatcher = Dispatcher()
        freed = happened(1, "task_complete", "elsewhere")
        dispatcher.on_events([freed])
        assert self.who(dispatcher, freed) == []

    async def test_an_assignment_for_an_older_socket_is_not_pushed(
        self, dispatcher: Dispatcher
    ) -> None:
        newer = FakeSocket("a-1", "newer", joined_seq=6)
        dispatcher.join(newer)
        dispatcher.committed(dispatched(5, tasks=[(idle("a-1"), {}), (idle("a-2"), {"type": "x"})]))
        await asyncio.sleep(0)
        assert newer.pushed == []
        assert dispatcher.sockets["a-2"].pushed == [{"type": "x"}]  # type: ignore[attr-defined]


class TestWhenAClaimIsCalledFor:
    @pytest.fixture
    async def dispatcher(self) -> Dispatcher:
        """One agent is idle, and all is looked at."""
        dispatcher = Dispatcher()
        dispatcher.join(FakeSocket("a-1"))
        dispatcher.committed(dispatched(1))
        assert dispatcher.candidates([]) == []
        return dispatcher

    def is_called_for(self, dispatcher: Dispatcher) -> bool:
        return bool(dispatcher.candidates([]))

    @pytest.mark.parametrize("kind", OFFERING)
    async def test_a_task_that_another_process_queued(
        self, dispatcher: Dispatcher, kind: str
    ) -> None:
        dispatcher.on_events([happened(2, kind)])
        assert self.is_called_for(dispatcher)

    async def test_not_one_that_it_assigned_in_the_same_commit(
        self, dispatcher: Dispatcher
    ) -> None:
        dispatcher.on_events(
            [happened(2, "task_submitted"), happened(3, "task_assigned", "elsewhere")]
        )
        assert not self.is_called_for(dispatcher)

    async def test_not_what_a_claim_here_has_seen(self, dispatcher: Dispatcher) -> None:
        queued = happened(2, "task_submitted")
        dispatcher.committed(dispatched(2, queued))
        dispatcher.on_events([queued])
        assert not self.is_called_for(dispatcher)

    async def test_one_that_a_group_without_a_claim_passed_by(self, dispatcher: Dispatcher) -> None:
        theirs, ours = happened(2, "task_submitted"), happened(3, "task_accepted", "a-1")
        dispatcher.committed(Dispatched([ours]))
        dispatcher.on_events([theirs, ours])
        assert self.is_called_for(dispatcher)

    async def test_an_agent_that_comes(self, dispatcher: Dispatcher) -> None:
        dispatcher.join(FakeSocket("a-2"))
        assert self.is_called_for(dispatcher)

    async def test_an_agent_that_another_process_freed(self, dispatcher: Dispatcher) -> None:
        dispatcher.committed(dispatched(2, happened(2, "task_assigned", "a-1")))
        dispatcher.on_events([happened(3, "task_reclaimed", "a-1")])
        assert self.is_called_for(dispatcher)

    async def test_when_somebody_was_busy_his_task_may_be_for_another(
        self, dispatcher: Dispatcher
    ) -> None:
        dispatcher.committed(dispatched(2, happened(2, "task_assigned", "a-1")))
        dispatcher.committed(dispatched(3, happened(3, "task_failed", "a-1")))
        assert not self.is_called_for(dispatcher)
        dispatcher.committed(dispatched(4, busy="a-2"))
        await asyncio.sleep(0)
        assert self.is_called_for(dispatcher)


@pytest.mark.django_db
class TestDispatch:
    """The last command of a group."""

    @pytest.fixture
    async def dispatcher(self) -> Dispatcher:
        dispatcher = Dispatcher()
        dispatcher.join(FakeSocket("a-1", CONNECTION))
        return dispatcher

    def test_a_task_is_assigned_in_the_commit_that_queues_it(self, dispatcher: Dispatcher) -> None:
        agent("a-1")
        [_, done] = writer.commit([Submit([NewTask("one")], "boss"), Dispatch(dispatcher)])
        assert [idle.agent_id for idle, _ in done.claimed.tasks] == ["a-1"]

    def test_an_agent_gets_its_next_task_in_the_commit_that_ends_the_one_before(
        self, dispatcher: Dispatcher
    ) -> None:
        first = assigned("a-1")
        second = submit()
        dispatcher.on_events(list(Event.objects.order_by("seq")))
        complete = Complete(first.task_id, "a-1", first.generation)
        [_, done] = writer.commit([complete, Dispatch(dispatcher)])
        assert [frame["task_id"] for _, frame in done.claimed.tasks] == [second.task_id]

    def test_a_group_that_makes_no_match_possible_asks_the_database_for_nothing(
        self, dispatcher: Dispatcher, django_assert_num_queries: Any
    ) -> None:
        dispatcher.committed(dispatched(1))
        with django_assert_num_queries(0):
            assert dispatcher.candidates([happened(2, "task_accepted", "a-1")]) == []


@pytest.mark.django_db
class TestWhatIsPushed:
    """The frame is of the assignment, though a later command of the group moves the row on."""

    def test_to_an_agent_that_comes_back(self) -> None:
        task = assigned("a-1")
        do(CreateTokens({"a-1": "hash"}))
        again = Identify("a-1", "hash", "newer", "node")
        [identified, _] = writer.commit([again, Reclaim(task.task_id, "a-1", task.generation)])
        assert identified.push["generation"] == task.generation

    def test_after_a_claim(self) -> None:
        task = submit()
        agent("a-1")
        [claimed, _] = writer.commit([Claim([idle("a-1")]), Reclaim(task.task_id, "a-1", 1)])
        assert [frame["generation"] for _, frame in claimed.tasks] == [1]
