"""axe looks at the page in all its states and finds nothing serious or critical."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.snapshots import agent, condition, health, lost_agent, snapshot
from tests.browser.stage import Stage
from tests.browser.test_page import busy

AXE = Path(__file__).parent / "vendor" / "axe-core-4.14.1.min.js"
FOUND = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
}"""


def grave(page: Page) -> list[str]:
    page.evaluate(AXE.read_text())
    found: list[str] = page.evaluate(FOUND)
    return found


def warning() -> dict[str, Any]:
    states = ("idle", "assigned", "working", "blocked")
    return snapshot(
        health=health("warning", condition(advice="Start it again.")),
        agents=[agent(state, fsm_state=state) for state in states],
        offline_agents=[lost_agent()],
    )


SHOWN = {"empty": snapshot(), "warning": warning(), "critical": busy()}


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("state", SHOWN)
def test_nothing_grave_is_found(stage: Stage, state: str, scheme: Any) -> None:
    stage.page.emulate_media(color_scheme=scheme)
    stage.open(SHOWN[state])
    assert grave(stage.page) == []
    stage.page.click("#health > summary")
    assert grave(stage.page) == []
    stage.page.click(".settings > summary")
    assert grave(stage.page) == []
    stage.page.keyboard.press("?")
    assert grave(stage.page) == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_nothing_grave_is_found_while_the_figures_are_old(stage: Stage, scheme: Any) -> None:
    stage.page.emulate_media(color_scheme=scheme)
    stage.page.clock.install()
    stage.open(busy())
    stage.answers = False
    stage.sockets[-1].close()
    stage.page.clock.run_for(12_000)
    stage.page.wait_for_selector("html[data-connection=stale]")
    assert grave(stage.page) == []
