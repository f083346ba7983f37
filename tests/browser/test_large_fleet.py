"""More agents than the hub sends at once: it sorts and filters, the page asks for what it shows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.snapshots import NOW, agent, by_state, lost_agent, snapshot
from tests.browser.stage import Stage

TOTAL = 20_000
LOST = 3
FAR_DOWN = re.compile(r"\d{4}")


def name(number: int) -> str:
    return f"agent-{number:05}"


class Fleet:
    """A hub that answers each subscription with a window."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.seq = 4711
        self.asked: list[dict[str, Any]] = []
        self.status = ""
        stage.reactions["subscribe"] = self._answer

    def open(self) -> None:
        first = [self.row(number) for number in range(60)]
        states = {**by_state([], []), "idle": TOTAL - LOST, "offline": LOST}
        self.stage.open(snapshot(agents=first, agents_by_state=states))

    def row(self, number: int) -> dict[str, Any]:
        if number >= TOTAL - LOST:
            return lost_agent(name(number))
        return agent(name(number), last_seen=NOW - 1000, status=self.status)

    def send(self, known: int = 0) -> None:
        window = self.asked[-1]
        numbers: Sequence[int] = range(TOTAL)
        if window["filter"]:
            numbers = [n for n in range(TOTAL) if window["filter"] in name(n)]
        ordered = numbers[::-1] if window["sort"] == "-name" else numbers
        shown = ordered[window["from"] : window["from"] + window["count"]]
        self.seq += 1
        about = {"total": TOTAL, "matching": len(numbers), "ids": [name(n) for n in shown]}
        rows = [self.row(n) for n in shown[known:]]
        self.stage.send(
            type="patch",
            seq=self.seq,
            data={"seq": self.seq, "agents_window": {**window, **about, "rows": rows}},
        )

    def _answer(self, message: dict[str, Any]) -> None:
        if "agents" in message:
            self.asked.append(message["agents"])
            self.send()


@pytest.fixture
def fleet(stage: Stage) -> Fleet:
    fleet = Fleet(stage)
    fleet.open()
    # The server paints the first rows and all counts: only the window gives the table its height.
    window = "() => document.querySelector('#agents-table').scrollHeight > 500_000"
    stage.page.wait_for_function(window)
    expect(stage.page.locator("#agents-summary")).to_have_text("20,000")
    return fleet


def rows(stage: Stage) -> list[str]:
    return [
        row.get_attribute("data-agent") or "" for row in stage.page.get_by_test_id("agent").all()
    ]


def test_the_first_rows_are_there_and_all_are_counted(stage: Stage, fleet: Fleet) -> None:
    expect(stage.page.locator("#connected")).to_have_text("19,997")
    assert rows(stage)[:3] == [name(0), name(1), name(2)]
    assert len(rows(stage)) < 100
    assert fleet.asked == [{"count": 200, "sort": "name", "filter": "", "from": 0}]
    table = stage.page.locator("#agents-table table")
    assert table.get_attribute("aria-rowcount") == "20001"


def test_what_is_scrolled_to_is_asked_for_and_shown(stage: Stage, fleet: Fleet) -> None:
    scroller = stage.page.locator("#agents-table")
    scroller.evaluate("(table) => { table.scrollTop = table.scrollHeight / 2 }")
    stage.page.wait_for_selector(f"[data-agent={name(10_010)}]")
    assert 9_000 < fleet.asked[-1]["from"] < 10_000
    scroller.evaluate("(table) => { table.scrollTop = table.scrollHeight }")
    last = stage.page.locator(f"[data-agent={name(TOTAL - 1)}]")
    expect(last).to_be_visible()
    expect(last.get_by_role("button", name="Forget")).to_be_visible()
    assert last.get_attribute("aria-rowindex") == "20001"


def test_a_small_step_asks_for_nothing(stage: Stage, fleet: Fleet) -> None:
    stage.page.locator("#agents-table").evaluate("(table) => { table.scrollTop = 600 }")
    stage.page.wait_for_selector(f"[data-agent={name(35)}]")
    assert len(fleet.asked) == 1


def test_the_hub_sorts_and_filters(stage: Stage, fleet: Fleet) -> None:
    panel = stage.page.get_by_test_id("agents")
    panel.get_by_role("button", name="Agent", exact=True).click()
    stage.page.wait_for_selector(f"[data-agent={name(TOTAL - 1)}]")
    assert fleet.asked[-1]["sort"] == "-name"
    stage.page.get_by_role("searchbox", name="Filter agents").fill("0012")
    expect(stage.page.locator("#agents-summary")).to_have_text("12 of 20,000")
    assert rows(stage)[:2] == [name(10_012), name(129)]
    stage.page.get_by_role("searchbox", name="Filter agents").fill("nobody")
    expect(stage.page.locator("#agents-none-match")).to_be_visible()


def test_rows_that_are_known_are_not_sent_again(stage: Stage, fleet: Fleet) -> None:
    fleet.send(known=200)
    stage.page.wait_for_selector(f'html[data-seq="{fleet.seq}"]')
    assert rows(stage)[:2] == [name(0), name(1)]


def test_after_a_new_connection_the_window_is_asked_for_again(stage: Stage, fleet: Fleet) -> None:
    stage.page.locator("#agents-table").evaluate("(table) => { table.scrollTop = 200000 }")
    first = stage.page.get_by_test_id("agent").first
    expect(first).to_have_attribute("aria-rowindex", FAR_DOWN)
    before = len(fleet.asked)
    stage.sockets[-1].close()
    stage.page.wait_for_selector("html[data-connection=reconnecting]")
    stage.page.wait_for_selector("html[data-connection=live]")
    expect(first).to_have_attribute("aria-rowindex", FAR_DOWN)
    assert len(fleet.asked) > before


def test_what_the_server_painted_stays_until_the_window_is_there(stage: Stage) -> None:
    states = {**by_state([], []), "idle": TOTAL}
    first = [agent(name(number)) for number in range(60)]
    stage.open(snapshot(agents=first, agents_by_state=states))
    stage.page.wait_for_timeout(300)  # nobody answers
    assert rows(stage) == [name(number) for number in range(60)]
