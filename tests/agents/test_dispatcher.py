"""Who gets which task: the pairing alone, and the dispatcher over fake sockets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcom.models import Event
from agentcom.writer import writer
from agents.dispatcher import Claim, Dispatcher, Idle, match
from agents.presence import Identify
from agents.tokens import CreateTokens
from tasks.queue import QueuedTask, Reclaim, heads, needs_key, needs_of, waiting_needs
from tests.tasks.play import agent, assigned, claim, do, submit

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
            able = [agent for agent in left if needs_of(task.needs) <= agent.capabilities]
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
        waiting = [(lane, sorted(needs)) for lane, needs in waiting_needs()]
        assert waiting == [(0, ['["a","b"]']), (2, ["", '["c"]'])]

    def test_heads_are_the_first_of_each_need_in_order(self) -> None:
        first = submit(needed_capabilities=["c"])
        second = submit()
        submit(needed_capabilities=["c"])
        numbers = [task.number for task in heads(2, ["", '["c"]'], limit=1)]
        assert numbers == [first.number, second.number]


class FakeSocket:
    def __init__(self, agent_id: str, connection: str = "socket") -> None:
        self.agent_id = agent_id
        self.connection = connection
        self.capabilities: frozenset[str] = frozenset()
        self.token_hash = ""
        self.presence = False
        self.joined_seq = 0

    async def send_json(self, message: dict[str, Any]) -> None: ...

    def send_soon(self, message: dict[str, Any]) -> None: ...

    def close_soon(self, code: int, reason: str | None = None) -> None: ...


class TestWhoIsIdle:
    def test_an_agent_rests_when_its_task_is_over_and_not_while_it_has_one(self) -> None:
        dispatcher = Dispatcher()
        dispatcher.join(FakeSocket("a-1"))
        dispatcher.on_events([Event(kind="task_assigned", agent_id="a-1")])
        assert dispatcher._take_idle() == {}
        dispatcher.on_events([Event(kind="task_complete", agent_id="a-1")])
        assert [agent.agent_id for agent in dispatcher._take_idle()] == ["a-1"]

    def test_the_longest_idle_comes_first(self) -> None:
        dispatcher = Dispatcher()
        for agent_id in ("a-1", "a-2"):
            dispatcher.join(FakeSocket(agent_id))
        dispatcher.on_events([Event(kind="task_assigned", agent_id="a-1")])
        dispatcher.on_events([Event(kind="task_rejected", agent_id="a-1")])
        assert [agent.agent_id for agent in dispatcher._take_idle()] == ["a-2", "a-1"]

    def test_a_newer_socket_of_the_same_agent_replaces_the_older_one(self) -> None:
        dispatcher = Dispatcher()
        older, newer = FakeSocket("a-1"), FakeSocket("a-1")
        assert dispatcher.join(older) is None
        assert dispatcher.join(newer) is older
        dispatcher.leave(older)
        assert dispatcher.sockets == {"a-1": newer}

    def test_a_claim_for_an_older_socket_leaves_the_newer_one_idle(self) -> None:
        dispatcher = Dispatcher()
        dispatcher.join(FakeSocket("a-1", "newer"))
        dispatcher._put_back({Idle("a-1", "older", frozenset()): 0.0})
        assert [agent.connection for agent in dispatcher._take_idle()] == ["newer"]

    def test_what_happens_during_a_claim_is_not_undone_by_its_end(self) -> None:
        dispatcher = Dispatcher()
        dispatcher.join(FakeSocket("a-1"))
        candidates = dispatcher._take_idle()
        dispatcher.on_events([Event(kind="task_complete", agent_id="a-1")])
        dispatcher._put_back(candidates)
        assert len(dispatcher._take_idle()) == 1

    def test_events_of_agents_that_are_elsewhere_make_nobody_idle_here(self) -> None:
        dispatcher = Dispatcher()
        dispatcher.on_events([Event(kind="task_complete", agent_id="elsewhere")])
        assert dispatcher._take_idle() == {}


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
