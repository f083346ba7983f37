"""The badge tells the truth: live, reconnecting, offline; and silence is looked into."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.snapshots import queue, snapshot
from tests.browser.stage import Stage


@pytest.fixture
def after(stage: Stage) -> Callable[[int], None]:
    """Move the page's clock; `after(11)` makes 11 seconds pass for it at once."""
    stage.page.clock.install()
    return lambda seconds: stage.page.clock.run_for(seconds * 1000)


def connection(stage: Stage) -> str | None:
    return stage.page.locator("html").get_attribute("data-connection")


def asked(stage: Stage, type: str = "ping") -> list[dict[str, Any]]:
    return [message for message in stage.heard if message["type"] == type]


def test_subscribes_to_patches(stage: Stage) -> None:
    stage.open(snapshot())
    expect(stage.page.get_by_test_id("connection")).to_have_text("Live Try now")
    expect(stage.page.get_by_role("button", name="Try now")).to_be_hidden()
    assert stage.heard == [{"type": "subscribe", "patches": True}]


def test_a_broken_connection_comes_back_with_what_happened_meanwhile(
    stage: Stage, after: Callable[[int], None]
) -> None:
    stage.open(snapshot())
    stage.snapshot = snapshot(seq=4800, queue=queue((7, 0, 0, 0)))
    stage.sockets[-1].close()
    stage.page.wait_for_selector("html[data-connection=reconnecting]")
    expect(stage.page.get_by_test_id("connection")).to_contain_text("next try in 1 s")
    after(1)
    stage.page.wait_for_selector("html[data-connection=live]")
    expect(stage.page.get_by_test_id("lane-urgent")).to_have_text("7")
    expect(stage.page.get_by_test_id("announcement")).to_contain_text("Live again")


def test_old_figures_are_not_passed_for_new_ones(
    stage: Stage, after: Callable[[int], None]
) -> None:
    stage.open(snapshot())
    stage.answers = False
    stage.sockets[-1].close()
    stage.page.wait_for_selector("html[data-connection=reconnecting]")
    after(12)
    assert connection(stage) == "stale"
    expect(stage.page.get_by_test_id("connection")).to_contain_text("Stale since ")
    expect(stage.page.get_by_test_id("health")).to_contain_text("when last heard")
    expect(stage.page).to_have_title("stale · AgentCom")
    expect(stage.page.locator("link[rel=icon]")).to_have_attribute("href", re.compile("unknown"))


def test_a_computer_without_a_network_is_offline(
    stage: Stage, after: Callable[[int], None]
) -> None:
    stage.open(snapshot())
    stage.answers = False
    stage.page.evaluate("Object.defineProperty(navigator, 'onLine', { value: false })")
    stage.sockets[-1].close()
    stage.page.wait_for_selector("html[data-connection=reconnecting]")
    after(12)
    assert connection(stage) == "offline"
    expect(stage.page.get_by_test_id("connection")).to_contain_text("this computer has no network")


def test_nobody_has_to_wait_for_the_next_try(stage: Stage, after: Callable[[int], None]) -> None:
    stage.open(snapshot())
    stage.page.clock.pause_at(stage.page.evaluate("Date.now() + 1"))
    stage.sockets[-1].close()
    stage.page.get_by_role("button", name="Try now").click()
    stage.page.wait_for_selector("html[data-connection=live]")


def test_an_idle_hub_is_asked_and_stays_live(stage: Stage, after: Callable[[int], None]) -> None:
    stage.open(snapshot())
    for pongs in (1, 2, 3):
        after(21)
        stage.send(type="pong")
        stage.patch(4711 + pongs, queue=queue((pongs, 0, 0, 0)))
    assert connection(stage) == "live"
    assert len(asked(stage)) == 3
    assert len(stage.sockets) == 1
    # Until it is known that this hub knows a ping, it is asked for something that all know.
    assert len(asked(stage, "request_snapshot")) == 1


def test_a_hub_that_does_not_answer_is_not_called_live(
    stage: Stage, after: Callable[[int], None]
) -> None:
    """A laptop that slept, a network that went: such a socket stays open and says nothing."""
    stage.open(snapshot())
    stage.answers = False
    after(21)
    assert connection(stage) == "live"
    after(10)
    assert connection(stage) == "reconnecting"
