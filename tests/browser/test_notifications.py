"""Notifications: off until asked for, told in words where they are not possible."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from lab.harness.hub import Hub
from tests.browser.snapshots import condition, health, snapshot
from tests.browser.stage import Stage
from tests.browser.worker import Worker

TOLD = """async () => {
  const worker = await navigator.serviceWorker.getRegistration("/dashboard");
  const told = (await worker?.getNotifications()) ?? [];
  return told.map(({ title, body }) => [title, body]);
}"""


@pytest.fixture
def allowed(browser: Browser, hub: Hub) -> Iterator[Page]:
    """A page at a hub, in a browser whose owner says yes to notifications."""
    context = browser.new_context()
    context.grant_permissions(["notifications"], origin=hub.url)
    page = context.new_page()
    page.goto(f"{hub.url}/dashboard")
    page.wait_for_selector("html[data-connection=live]")
    yield page
    context.close()


def switch(page: Page) -> None:
    page.get_by_text("Settings", exact=True).click()
    page.locator("#notify").click()


def told(page: Page) -> list[list[str]]:
    found: list[list[str]] = page.evaluate(TOLD)
    return found


def until_told(page: Page, title: str) -> None:
    """A browser takes its time to show one."""
    page.wait_for_function(
        f"async (title) => (await ({TOLD})()).some(([told]) => told.startsWith(title))", arg=title
    )


def test_a_condition_that_appears_is_told(allowed: Page, hub: Hub) -> None:
    assert told(allowed) == []
    switch(allowed)
    expect(allowed.get_by_test_id("notify-text")).to_contain_text("On, while this page is open")
    with Worker(hub, "vanishing-1"):
        expect(allowed.locator('[data-agent="vanishing-1"]')).to_be_visible()
    expect(allowed.locator("html")).to_have_attribute("data-health", "warning")
    until_told(allowed, "AgentCom: Warning")
    assert told(allowed) == [["AgentCom: Warning", "1 agent is offline: vanishing-1"]]

    allowed.reload()  # the choice is remembered
    expect(allowed.get_by_test_id("notify-text")).to_contain_text("On, while this page is open")
    allowed.get_by_role("button", name="Forget vanishing-1").click()
    expect(allowed.locator("html")).to_have_attribute("data-health", "ok")
    until_told(allowed, "AgentCom: Cleared after")
    assert "AgentCom: Cleared after" in told(allowed)[-1][0]


def test_turned_off_it_is_silent(allowed: Page, hub: Hub) -> None:
    switch(allowed)
    expect(allowed.locator("#notify")).to_have_attribute("aria-pressed", "true")
    allowed.locator("#notify").click()
    expect(allowed.locator("#notify")).to_have_attribute("aria-pressed", "false")
    with Worker(hub, "vanishing-2"):
        expect(allowed.locator('[data-agent="vanishing-2"]')).to_be_visible()
    expect(allowed.locator("html")).to_have_attribute("data-health", "warning")
    assert told(allowed) == []


def test_a_refusal_is_told(page: Page, hub: Hub) -> None:
    page.add_init_script("Object.defineProperty(Notification, 'permission', { value: 'denied' })")
    page.goto(f"{hub.url}/dashboard")
    page.get_by_text("Settings", exact=True).click()
    expect(page.get_by_test_id("notify-text")).to_contain_text("Blocked")
    expect(page.locator("#notify")).to_have_attribute("aria-disabled", "true")


def test_an_address_without_tls_is_told(stage: Stage) -> None:
    """http://hub.test, where browsers allow nothing of the kind."""
    stage.open(snapshot(health=health("warning", condition())))
    stage.page.get_by_text("Settings", exact=True).click()
    expect(stage.page.get_by_test_id("notify-text")).to_contain_text("only over HTTPS")
