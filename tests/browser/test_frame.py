"""What surrounds the panels: the theme, the keyboard, the tab, and room at every width."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.snapshots import agent, condition, health, lost_agent, snapshot
from tests.browser.stage import Stage

FOCUSED = """() => {
  const element = document.activeElement;
  const name = element === document.body ? "page" : element.id || element.textContent.trim();
  return [getComputedStyle(element).outlineStyle, name];
}"""
OVERLAPPING = """() => {
  const parts = [...document.querySelectorAll(".masthead > *")].filter((e) => e.offsetWidth);
  const ends = (e) => e.getBoundingClientRect().left + Math.max(e.offsetWidth, e.scrollWidth);
  const bounds = parts.map((e) => [e.className, e.getBoundingClientRect(), ends(e)]);
  return bounds.slice(1)
    .filter(([, box], i) => box.top < bounds[i][1].bottom && box.left < bounds[i][2] - 1)
    .map(([name]) => name);
}"""
STATIC = Path(__file__).parents[2] / "dashboard/static/dashboard"
MOST_BYTES = 150 * 1024


def background(page: Page) -> str:
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return colour


def test_a_chosen_theme_is_remembered(stage: Stage) -> None:
    stage.page.emulate_media(color_scheme="dark")
    stage.open(snapshot())
    dark = background(stage.page)
    stage.page.get_by_text("Settings", exact=True).click()
    stage.page.get_by_label("Theme").select_option("Light")
    light = background(stage.page)
    assert light != dark
    stage.page.reload()
    assert background(stage.page) == light
    stage.page.get_by_text("Settings", exact=True).click()
    stage.page.get_by_label("Theme").select_option("As the system")
    assert background(stage.page) == dark
    stage.page.emulate_media(color_scheme="light")
    assert background(stage.page) == light


def test_the_keys(stage: Stage) -> None:
    warning = health("warning", condition())
    stage.open(snapshot(health=warning, agents=[agent()], offline_agents=[lost_agent()]))
    press = stage.page.keyboard.press
    press("?")
    dialog = stage.page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_be_visible()
    press("/")  # nothing behind the dialog listens
    press("Escape")
    expect(dialog).to_be_hidden()
    press("h")
    expect(stage.page.get_by_test_id("conditions")).to_be_visible()
    press("Escape")
    expect(stage.page.get_by_test_id("conditions")).to_be_hidden()
    press("/")
    field = stage.page.get_by_role("searchbox", name="Filter agents")
    expect(field).to_be_focused()
    press("h")  # typed, not obeyed
    expect(field).to_have_value("h")


def test_every_control_is_reached_and_seen_by_keyboard(stage: Stage) -> None:
    stage.open(snapshot(agents=[agent(current_task_id="task-00000000000000aa")]))
    seen = set()
    for _ in range(60):
        stage.page.keyboard.press("Tab")
        outline, name = stage.page.evaluate(FOCUSED)
        assert outline != "none" or name in ("page", "content"), name
        seen.add(name)
    for name in ("agent-filter", "agents-table", "show-shortcuts", "task-00000000000000aa"):
        assert any(name in found or found == name for found in seen), (name, seen)


def test_the_tab_tells_what_wants_attention(stage: Stage) -> None:
    stage.open(snapshot(agents=[agent("a", fsm_state="blocked"), agent("b")]))
    expect(stage.page).to_have_title("(1) AgentCom")
    critical = health("critical", condition(), condition(code="x", severity="critical"))
    stage.patch(4712, health=critical)
    expect(stage.page).to_have_title("(3) critical · AgentCom")
    icon = stage.page.locator("link[rel=icon]")
    expect(icon).to_have_attribute("href", re.compile("light=critical&number=3"))


def test_advice_is_shown_where_there_is_some(stage: Stage) -> None:
    stage.open(snapshot(health=health("warning", condition(advice="Start it again."))))
    stage.page.get_by_test_id("health").locator("summary").click()
    expect(stage.page.get_by_text("Start it again.")).to_be_visible()


@pytest.mark.parametrize("width", [360, 820, 1440])
def test_the_open_boxes_stay_on_the_page(stage: Stage, width: int) -> None:
    stage.page.set_viewport_size({"width": width, "height": 900})
    stage.open(snapshot(health=health("warning", condition(message="m" * 400))))
    for opener in ("#health > summary", ".settings > summary"):
        stage.page.click(opener)
        box = stage.page.locator(".popover[open] > .box").bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        stage.page.keyboard.press("Escape")


def test_the_header_has_room_for_bad_news(stage: Stage) -> None:
    states = ("working", "assigned", "blocked", "idle")
    fleet = [agent(f"{state}-{number}", fsm_state=state) for state in states for number in range(9)]
    bad = health("critical", condition(severity="critical", message="m" * 200))
    stage.page.clock.install()
    stage.open(snapshot(agents=fleet, offline_agents=[lost_agent()], health=bad))
    assert overlapping(stage.page) == []
    stage.answers = False
    stage.sockets[-1].close()
    stage.page.wait_for_selector("html[data-connection=reconnecting]")
    assert overlapping(stage.page) == []
    stage.page.clock.run_for(12_000)
    stage.page.wait_for_selector("html[data-connection=stale]")
    assert overlapping(stage.page) == []
    stage.page.click(".settings > summary")
    box = stage.page.locator(".settings > .box").bounding_box()
    assert box
    assert box["x"] >= 0


def overlapping(page: Page) -> list[str]:
    found: list[str] = page.evaluate(OVERLAPPING)
    return found


def test_everything_is_on_one_screen_of_1440_by_900(stage: Stage) -> None:
    stage.open(snapshot(agents=[agent(f"agent-{number:03}") for number in range(300)]))
    assert stage.page.evaluate("document.documentElement.scrollHeight") <= 900
    for panel in ("queue", "throughput", "agents", "dead-letters", "completions"):
        expect(stage.page.get_by_test_id(panel)).to_be_in_viewport(ratio=1)


def test_scripts_and_styles_are_small() -> None:
    """Uncompressed, charts included."""
    files = [*STATIC.rglob("*.js"), *STATIC.rglob("*.css")]
    assert len(files) > 30
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
