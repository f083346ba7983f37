"""Windows of a large fleet, and what is sent of it to who has not asked for one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from agentcom.api import BadInput
from agentcom.models import Event
from agentcom_client.patches import fold
from dashboard.asking import read_window
from dashboard.group import Window
from dashboard.state import agents as agents_module
from dashboard.state.agents import Agents
from dashboard.state.windows import Order, Orders, View, Wanted

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


class Fleet:
    """Agents without a database."""

    def __init__(self, *names: str) -> None:
        self.agents = Agents()
        self._seq = 0
        for name in names:
            self.join(name)

    def join(self, agent_id: str, state: str = "idle", **told: Any) -> None:
        agent = {"name": agent_id, "status": "", "capabilities": [], "fsm_state": state, **told}
        self._happens("agent_joined", agent_id, agent=agent, accepts=[], held=None)

    def leave(self, name: str) -> None:
        self._happens("agent_left", name, signed_off=False)

    def say(self, name: str, status: str) -> None:
        self._happens("status_changed", name, agent={"status": status})

    def play(self, step: str) -> None:
        """Such as "join a"."""
        verb, name = step.split()
        match verb:
            case "join":
                self.join(name)
            case "leave":
                self.leave(name)
            case "tire":
                self.say(name, "tired")

    def _happens(self, kind: str, agent_id: str, **data: Any) -> None:
        self._seq += 1
        at = NOW + timedelta(seconds=self._seq)
        self.agents.follow(Event(seq=self._seq, kind=kind, agent_id=agent_id, at=at, data=data))
        assert not self.agents.is_unknown

    def listed(self, order: Order) -> list[str]:
        return order.of(self.agents)

    def lists(self) -> dict[str, Any]:
        """As in a snapshot."""
        lists = self.agents.lists()
        return {name: [orjson.loads(row) for row in rows] for name, rows in lists.items()}


class TestOrder:
    @pytest.fixture
    def fleet(self) -> Fleet:
        fleet = Fleet("b", "A", "c")
        fleet.join("d", "working", name="Zoe", capabilities=["gpu", "write"])
        fleet.leave("c")
        return fleet

    @pytest.mark.parametrize(
        ("sort", "ids"),
        [
            ("name", ["A", "b", "c", "d"]),
            ("-name", ["d", "c", "b", "A"]),
            ("state", ["c", "d", "A", "b"]),
            ("-state", ["A", "b", "d", "c"]),
            ("capabilities", ["A", "b", "c", "d"]),
            ("-capabilities", ["d", "A", "b", "c"]),
            ("last_seen", ["b", "A", "d", "c"]),
            ("task", ["A", "b", "c", "d"]),
            ("-completed", ["A", "b", "c", "d"]),
            ("failed", ["A", "b", "c", "d"]),
        ],
    )
    def test_sorts_and_equals_go_by_id(self, fleet: Fleet, sort: str, ids: list[str]) -> None:
        listed = fleet.listed(read_window({"sort": sort}).order)
        assert listed[: len(ids)] == ids
        assert sorted(listed) == ["A", "b", "c", "d"]

    @pytest.mark.parametrize(
        ("words", "ids"),
        [
            ("ZOE", ["d"]),
            ("gpu", ["d"]),
            ("gpu nobody", []),
            ("offline", ["c"]),
            ("idle  a", ["A"]),
            ("", ["A", "b", "c", "d"]),
        ],
    )
    def test_lists_those_with_every_word(self, fleet: Fleet, words: str, ids: list[str]) -> None:
        assert fleet.listed(read_window({"filter": words}).order) == ids


class TestOrders:
    def test_a_window_has_its_rows_and_the_size_of_the_whole(self) -> None:
        fleet = Fleet(*"abcdefgh")
        view = Orders().view(fleet.agents, Wanted(Order(words=()), first=2, count=3))
        assert view is not None
        assert (list(view.rows), view.total, view.matching) == (["c", "d", "e"], 8, 8)
        assert orjson.loads(view.rows["c"])["agent_id"] == "c"

    def test_beyond_the_end_it_is_empty(self) -> None:
        view = Orders().view(Fleet("a").agents, Wanted(first=5))
        assert view is not None
        assert (dict(view.rows), view.matching) == ({}, 1)

    def test_rows_are_current_although_it_is_not_sorted_again_yet(self) -> None:
        """A large fleet takes a while to sort."""
        fleet, time = Fleet("a", "b", "c"), iter([0.0, 0.0, 1.0, 1.0, 9.0, 9.0, 9.0])
        orders, wanted = Orders(lambda: next(time)), Wanted(Order("state"))
        orders.view(fleet.agents, wanted, must=True)
        orders._next_at = 5.0
        fleet.join("c", "blocked")
        fleet.leave("a")
        view = orders.view(fleet.agents, wanted)
        assert view is not None
        assert list(view.rows) == ["a", "b", "c"]
        assert orjson.loads(view.rows["c"])["fsm_state"] == "blocked"
        later = orders.view(fleet.agents, wanted)
        while later is not None and list(later.rows) == ["a", "b", "c"]:
            later = orders.view(fleet.agents, wanted)
        assert later is not None
        assert list(later.rows) == ["c", "a", "b"]

    def test_a_new_order_waits_for_its_turn_unless_it_must_not(self) -> None:
        fleet, orders = Fleet("a"), Orders(lambda: 1.0)
        orders._next_at = 2.0
        assert orders.view(fleet.agents, Wanted()) is None
        assert orders.view(fleet.agents, Wanted(), must=True) is not None
        assert orders.view(fleet.agents, Wanted()) is not None

    def test_orders_that_nobody_looks_at_are_dropped(self) -> None:
        fleet, orders = Fleet("a"), Orders()
        for number in range(200):
            orders.view(fleet.agents, Wanted(Order(words=(str(number),))), must=True)
        assert len(orders._sorted) == 50


class TestWindow:
    def view(self, fleet: Fleet, wanted: Wanted) -> View:
        view = Orders().view(fleet.agents, wanted)
        assert view is not None
        return view

    def test_it_is_sent_what_is_new_and_nothing_else(self) -> None:
        fleet, wanted = Fleet("a", "b", "c"), Wanted(count=2)
        window = Window(wanted)
        first = orjson.loads(orjson.dumps(window.news(self.view(fleet, wanted))))
        assert (first["ids"], [row["agent_id"] for row in first["rows"]]) == (
            ["a", "b"],
            ["a", "b"],
        )
        assert window.news(self.view(fleet, wanted)) is None
        fleet.say("b", "tired")
        fleet.say("c", "unseen")
        news = orjson.loads(orjson.dumps(window.news(self.view(fleet, wanted))))
        assert [(row["agent_id"], row["status"]) for row in news["rows"]] == [("b", "tired")]
        fleet.leave("a")
        moved = Wanted(first=1, count=2)
        window.move(moved)
        news = orjson.loads(orjson.dumps(window.news(self.view(fleet, moved))))
        assert (news["ids"], [row["agent_id"] for row in news["rows"]]) == (["b", "c"], ["c"])

    def test_the_client_folds_it(self) -> None:
        fleet, wanted = Fleet("a", "b", "c"), Wanted(count=2)
        window = Window(wanted)
        known: dict[str, Any] = {"seq": 0}
        for change in ("join a", "tire b", "join aa"):
            fleet.play(change)
            news = window.news(self.view(fleet, wanted))
            patch = orjson.loads(orjson.dumps({"agents_window": news}))
            known = fold(known, {"data": patch})
            whole = orjson.loads(orjson.dumps(self.view(fleet, wanted).json()))
            assert known["agents_window"] == whole


class TestLimit:
    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agents_module, "AGENTS_MAX", 3)

    def test_of_more_agents_than_that_the_first_are_sent_and_all_are_counted(self) -> None:
        fleet = Fleet(*"abcdefgh")
        assert [row["agent_id"] for row in fleet.lists()["agents"]] == ["a", "b", "c"]
        assert fleet.agents.by_state()["idle"] == 8

    def test_old_lists_and_patches_give_the_new_lists(self) -> None:
        """Whoever joins may push another one out, and whoever leaves may let one in."""
        fleet = Fleet("b", "d")
        known = fleet.lists()
        fleet.agents.take_changes()
        for steps in (
            ["join f"],
            ["join h"],
            ["tire b"],
            ["join a", "tire h"],
            ["leave b"],
            ["leave a", "join c"],
            ["leave c", "leave d", "leave f"],
            ["join b"],
            ["join a", "join c", "join d", "join f"],
        ):
            for step in steps:
                fleet.play(step)
            patch = orjson.loads(orjson.dumps(fleet.agents.take_changes()))
            known = fold(known, {"data": patch})
            assert known == fleet.lists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sort": "age"}, "sort: must be one of name, state"),
        ({"count": 0}, "count: must be a whole number from 1 to 200"),
        ({"count": 201}, "count"),
        ({"from": -1}, "from"),
        ({"filter": "x" * 201}, "filter"),
        ({"order": "name"}, "order"),
        ([], "body"),
    ],
)
def test_what_cannot_be_asked_for_is_said(given: Any, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        read_window(given)
    assert said in refused.value.answer["error"]
