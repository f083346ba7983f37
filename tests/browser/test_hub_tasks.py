"""The panels of tasks at a real hub: why tasks wait, retries of a cause, the drawer, the charts."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Page, expect

from lab.harness.hub import Hub
from tests.browser.worker import Worker


def open_dashboard(page: Page, hub: Hub, query: str = "") -> None:
    page.goto(f"{hub.url}/dashboard{query}")
    page.wait_for_selector("html[data-connection=live]")


def completed(page: Page) -> int:
    shown = page.locator('[data-chart="ended"]').get_attribute("data-points")
    points: dict[str, list[float]] = json.loads(shown or "")
    return round(sum(points["completed"]))


def test_says_why_a_task_waits_and_follows_it_to_its_end(page: Page, hub: Hub) -> None:
    open_dashboard(page, hub)
    with Worker(hub, "plain-1") as plain:
        task_id = plain.submit("draw a <b>map</b>", needed_capabilities=["gpu"])
        row = page.locator(f'[data-testid="queued-task"][data-task="{task_id}"]')
        expect(row.get_by_test_id("reason")).to_have_text("nobody has gpu")
        row.get_by_role("link", name="draw a <b>map</b>").click()
        drawer, status = page.get_by_test_id("drawer"), page.get_by_test_id("drawer-status")
        expect(status).to_have_text("queued")
        expect(drawer).to_contain_text("nobody has gpu")
        assert page.url == f"{hub.url}/dashboard?task={task_id}"

        with Worker(hub, "able-1", capabilities=["gpu"]) as able:
            task = able.take()
            expect(status).to_have_text("assigned")
            able.complete(task, tokens_used=7)
            expect(status).to_have_text("completed")
        expect(drawer.locator(".timeline li").last).to_contain_text("7 tokens")
        open_dashboard(page, hub, f"?task={task_id}")  # what a colleague sees
        expect(drawer).to_contain_text('"done": true')


def test_retries_all_that_died_of_one_cause_until_stopped(page: Page, hub: Hub) -> None:
    with Worker(hub, "failing-1") as worker:
        for number in range(100):
            worker.submit(f"try {number}", max_retries=1)
        for number in range(100):
            worker.fail(worker.take(), f"Boom {number}")
        open_dashboard(page, hub)
        dead, told = page.get_by_test_id("dead-letter-count"), page.get_by_test_id("retry-told")
        page.get_by_role("button", name=re.compile("^Retry all 100")).click()
        page.get_by_role("button", name="Retry 100 tasks").click()
        expect(told).to_contain_text(re.compile(r"^([3-9]|\d\d) of 100"))
        page.get_by_role("button", name="Stop").click()
        expect(told).to_contain_text(re.compile("^Stopped"))
        back = int((told.text_content() or "").split()[1])
        assert 3 <= back < 100
        expect(dead).to_have_text(str(100 - back))
        for _ in range(back):
            worker.complete(worker.take())
        expect(page.locator("#completion-rows tr[data-outcome=completed]").first).to_be_visible()


def test_charts_count_what_is_completed(page: Page, hub: Hub) -> None:
    open_dashboard(page, hub)
    page.wait_for_selector('[data-chart="ended"][data-points]')
    before = completed(page)
    with Worker(hub, "steady-1") as worker:
        for number in range(5):
            worker.submit(f"count {number}")
            worker.complete(worker.take())
        expect(page.locator("#charts path[d]")).to_have_count(6)
        page.reload()
        page.wait_for_selector('[data-chart="ended"][data-points]')
        assert completed(page) == before + 5
