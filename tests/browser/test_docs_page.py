"""The page of the API at a real hub, under the policy that all pages have."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from agentcom.doors import PAGE_POLICY
from lab.harness.hub import Hub
from tests.browser.test_accessibility import grave
from tests.browser.test_pages import SIZES, background, fits

SUBMIT = "#operations-tasks-submit_tasks"


def open_docs(page: Page, hub: Hub) -> None:
    answer = page.goto(f"{hub.url}/api/docs")
    assert answer is not None
    assert answer.headers["content-security-policy"] == PAGE_POLICY
    page.wait_for_selector("#docs[data-state=shown]")


def test_every_call_is_on_the_page(page: Page, hub: Hub) -> None:
    open_docs(page, hub)
    paths = page.request.get(f"{hub.url}/api/schema").json()["paths"]
    count = sum(len(methods) for methods in paths.values())
    expect(page.locator(".opblock")).to_have_count(count)


def test_a_call_can_be_tried_out(page: Page, hub: Hub) -> None:
    open_docs(page, hub)
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_label("auth-bearer-value").fill(hub.token("reader"))
    page.get_by_role("button", name="Apply credentials").first.click()
    page.get_by_role("button", name="Close").first.click()
    page.click(f"{SUBMIT} .opblock-summary-control")
    page.click(f"{SUBMIT} .try-out__btn")
    page.click(f"{SUBMIT} .execute")
    answer = page.locator(f"{SUBMIT} .live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_contain_text("201")
    expect(answer).to_contain_text('"status": "queued"')


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", SIZES.values(), ids=SIZES)
def test_it_fits_in_both_schemes(page: Page, hub: Hub, width: int, scheme: Any) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    open_docs(page, hub)
    page.click(f"{SUBMIT} .opblock-summary-control")
    page.wait_for_selector(f"{SUBMIT} .responses-table")
    assert fits(page)
    assert grave(page) == []
    shown = background(page)
    page.emulate_media(color_scheme="light" if scheme == "dark" else "dark")
    expect(page.locator("html.dark-mode")).to_have_count(int(scheme == "light"))
    assert background(page) != shown
