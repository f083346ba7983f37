"""The pages beside the dashboard at a real hub: an agent's, and the form of a new task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from lab.harness.hub import Hub
from tests.browser.test_accessibility import grave
from tests.browser.worker import Worker

AGENT = "team/worker 1?"
LONG = "w" * 300
SIZES = {"wide": 1440, "phone": 390}


@pytest.fixture(scope="module")
def worker(hub: Hub) -> Iterator[Worker]:
    """At work, with something of everything that its page shows."""
    about = {"name": f"A <b>worker</b> {LONG[:120]}", "capabilities": ["map", LONG[:64]]}
    with Worker(hub, AGENT, **about) as worker:
        worker.submit(f"done {LONG}")
        worker.complete(worker.take(), tokens_used=1234)
        worker.submit(f"failed {LONG}", max_retries=1)
        worker.fail(worker.take(), f"Boom {LONG}")
        worker.submit("draw a <b>map</b>")
        worker.take()
        yield worker


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_from_the_dashboard_to_an_agent_and_its_task(page: Page, hub: Hub, worker: Worker) -> None:
    page.goto(f"{hub.url}/dashboard")
    page.wait_for_selector("html[data-connection=live]")
    name = page.get_by_test_id("agents").get_by_role("link", name="A <b>worker</b>")
    name.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("state")).to_have_text("working")
    assert page.url == f"{hub.url}/dashboard/agents/team/worker%201%3F"
    expect(page.get_by_test_id("did")).to_contain_text("1,234")
    expect(page.get_by_test_id("failures")).to_contain_text("Boom")
    page.get_by_role("link", name="Reload").click()
    page.get_by_test_id("task").get_by_role("link", name="draw a <b>map</b>").click()
    expect(page.get_by_test_id("drawer-status")).to_have_text("assigned")


def test_an_agent_that_nobody_knows(page: Page, hub: Hub, complaints: list[str]) -> None:
    page.goto(f"{hub.url}/dashboard/agents/nobody")
    expect(page.get_by_test_id("no-agent")).to_contain_text("The hub knows no agent nobody")
    assert grave(page) == []
    complaints.clear()  # the browser's own about the 404


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("path", ["agents/team/worker%201%3F", "submit"])
def test_a_page_fits_and_nothing_grave_is_found(
    page: Page, hub: Hub, worker: Worker, path: str, width: int, scheme: Any
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{hub.url}/dashboard/{path}")
    for details in page.locator("details").all():
        details.evaluate("(element) => element.open = true")
    assert fits(page)
    assert grave(page) == []
    shown = background(page)
    page.emulate_media(color_scheme="light" if scheme == "dark" else "dark")
    assert background(page) != shown


def test_a_task_is_submitted_by_keyboard(page: Page, hub: Hub, complaints: list[str]) -> None:
    page.goto(f"{hub.url}/dashboard")
    page.get_by_role("link", name="Submit a task").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Description")).to_be_focused()
    page.keyboard.type("paint a <b>wall</b>")
    page.get_by_label("Needed capabilities").focus()
    page.keyboard.type("brush, colour")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type("[1]")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # opens what is rarely needed
    expect(page.get_by_label("Attempts in all")).to_be_visible()
    page.get_by_label("Attempts in all").fill("many")
    page.keyboard.press("Enter")

    expect(page.get_by_test_id("told")).to_have_text("Not submitted: 2 fields are wrong.")
    metadata = page.get_by_label("Metadata")
    expect(metadata).to_be_focused()
    expect(metadata).to_have_accessible_description(re.compile("^It must be an object"))
    assert grave(page) == []
    complaints.clear()  # the browser's own about the 400
    page.get_by_label("Attempts in all").fill("2")
    metadata.fill('{"wall": 3}')
    page.get_by_role("button", name="Submit the task").dblclick()
    expect(page.get_by_test_id("drawer-status")).to_have_text("queued")
    expect(page.get_by_test_id("drawer")).to_contain_text('"wall": 3')
    expect(page.locator('#queue-rows a:has-text("paint a <b>wall</b>")')).to_have_count(1)
