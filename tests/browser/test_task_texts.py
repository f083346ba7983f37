"""Texts that would harm, and what axe finds, in every panel that shows tasks."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.snapshots import NOW, agent, completion, dead_letter, queue, snapshot
from tests.browser.stage import Stage
from tests.browser.tasks import (
    DEAD,
    HOSTILE,
    QUEUE,
    entry,
    event,
    group,
    open_with_group,
    queued,
    task,
    waiting,
)
from tests.browser.test_accessibility import grave


def test_hostile_texts_stay_texts_in_every_panel(stage: Stage) -> None:
    long = HOSTILE + "x" * 16_384
    stage.page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    stage.api[QUEUE] = {
        "tasks": [
            queued(1, description=long, waiting=waiting("nobody_capable", missing=[HOSTILE]))
        ],
        "count": 1,
        "next_cursor": None,
    }
    stage.api["/api/dashboard/tasks/task-1"] = task(
        description=long,
        metadata={HOSTILE: HOSTILE},
        result={HOSTILE: long},
        last_error=long,
        needed_capabilities=[HOSTILE],
        history=[entry("task_failed", NOW, HOSTILE, error=long)],
    )
    letters = [dead_letter("task-1", description=long, last_error=long)]
    hostile = group(error=HOSTILE, agents=[HOSTILE], count=1)
    stage.api[DEAD] = {"groups": [hostile], "total": 1}
    stage.api[f"{DEAD}?group=boom&limit=50"] = {"tasks": letters, "count": 1, "next_cursor": None}
    lanes = queue((0, 0, 1, 0), dead_letter=1)
    stage.open(snapshot(dead_letter_tasks=letters, queue=lanes))
    noise = event("task_blocked", agent_id=HOSTILE, title=long, reason=long)
    stage.send(type="events", seq=4712, data=[noise])

    page = stage.page
    expect(page.get_by_test_id("queued-task")).to_contain_text(HOSTILE)
    expect(page.get_by_test_id("reason")).to_contain_text(HOSTILE)
    expect(page.locator("#activity-list li")).to_contain_text(HOSTILE)
    page.locator("[data-open]").click()
    expect(page.get_by_test_id("group-task")).to_contain_text(HOSTILE)
    page.locator("[data-retry-group]").click()
    expect(page.locator("#retry-cause")).to_have_text(HOSTILE)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_test_id("group-task").get_by_role("link").click()
    for section in ("description", "error", "facts", "history"):
        expect(page.locator(f'[data-section="{section}"]')).to_contain_text(HOSTILE)
    for section in ("metadata", "result"):  # as JSON, so its quotes are escaped
        expect(page.locator(f'[data-section="{section}"]')).to_contain_text(HOSTILE[:50])
    assert page.locator("main img, main script, dialog img, dialog script").count() == 0
    for width in (1440, 360):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("text", ["\u200b\u2060", "\u3164", "\u2800 \u2800", "\u00ad\ufe0f", " \n"])
def test_a_task_of_before_whose_text_nobody_can_see_is_called_by_its_id(
    stage: Stage, text: str
) -> None:
    stage.open(snapshot(recent_completions=[completion("task-1", description=text)]))
    link = stage.page.get_by_test_id("completion").get_by_role("link")
    expect(link).to_have_text("task-1")
    stage.api["/api/dashboard/tasks/task-1"] = task(description=text)
    link.click()
    expect(stage.page.locator("#drawer-title")).to_have_text("task-1")


COLOURED = "\x1b[31;1mError:\x1b[0m no \x1b]8;;https://x.example\x07model\x1b]8;;\x07 here\x07"


def test_what_was_meant_for_a_terminal_is_not_shown(stage: Stage) -> None:
    stage.api["/api/dashboard/tasks/task-1"] = task(
        description=COLOURED,
        last_error=COLOURED,
        needed_capabilities=[COLOURED],
        history=[entry("task_failed", NOW, error=COLOURED)],
    )
    coloured = agent(name=COLOURED, capabilities=[COLOURED])
    stage.open(snapshot(agents=[coloured]), "?task=task-1")
    stage.send(type="events", seq=4712, data=[event("task_failed", error=COLOURED)])
    page = stage.page
    shown = "Error: no model here"
    expect(page.locator("#drawer-title")).to_have_text(shown)
    for section in ("description", "error", "facts", "history"):
        expect(page.locator(f'[data-section="{section}"]')).to_contain_text(shown)
    expect(page.locator("#activity-list li")).to_contain_text(shown)
    expect(page.get_by_test_id("agent")).to_contain_text(shown)
    expect(page.get_by_test_id("agent").locator("th")).to_have_attribute(
        "title", f"{shown} ({coloured['agent_id']})"
    )
    assert "[31" not in (page.locator("body").text_content() or "")


def test_marks_of_direction_turn_nothing_around_beside_their_text(stage: Stage) -> None:
    """Each text is a part of its own for the browser, also those in one element with others."""
    turned = "safe\u202egnp.exe"
    named = agent(name=turned, capabilities=[turned, "next"])
    lacking = queued(1, waiting=waiting("nobody_capable", missing=[turned, "next"]))
    stage.api[QUEUE] = {"tasks": [lacking], "count": 1, "next_cursor": None}
    stage.api["/api/dashboard/tasks/task-1"] = task(
        description=turned, needed_capabilities=[turned, "next"]
    )
    stage.open(snapshot(agents=[named], queue=queue((0, 0, 1, 0))), "?task=task-1")
    page = stage.page
    isolated = f"\u2068{turned}\u2069, next"
    expect(page.get_by_test_id("reason")).to_have_text(f"nobody has {isolated}")
    expect(page.locator('[data-section="facts"]')).to_contain_text(isolated)
    expect(page.get_by_test_id("agent").locator("td[title]")).to_have_attribute("title", isolated)
    open_ones = page.evaluate(
        """[...document.querySelectorAll("[data-show]")]
        .filter((part) => getComputedStyle(part).unicodeBidi === "normal").length"""
    )
    assert open_ones == 0


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing_grave_in_panels_drawer_and_dialog(stage: Stage, scheme: Any) -> None:
    stage.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    stage.api["/api/dashboard/tasks/task-1"] = task(status="dead_letter", last_error="Boom")
    lacking = queued(1, waiting=waiting("nobody_capable", missing=["gpu"]))
    stage.api[QUEUE] = {"tasks": [lacking], "count": 1, "next_cursor": None}
    open_with_group(stage)
    stage.patch(4712, queue=queue((0, 0, 1, 0), dead_letter=3))
    noise = [event("task_assigned", title="say hello"), event("task_failed", error="Boom")]
    stage.send(type="events", seq=4712, data=noise)
    page = stage.page
    page.locator("[data-open]").click()
    expect(page.get_by_test_id("group-task")).to_have_count(3)
    expect(page.get_by_test_id("queued-task")).to_have_count(1)
    expect(page.locator("#activity-list li")).to_have_count(2)
    assert grave(page) == []
    page.get_by_test_id("group-task").get_by_role("link").nth(1).click()
    expect(page.locator(".timeline li")).to_have_count(3)
    assert grave(page) == []
    page.keyboard.press("Escape")
    page.locator("[data-retry-group]").click()
    assert grave(page) == []
