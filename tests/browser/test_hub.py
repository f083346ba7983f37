"""The page at a real hub: what happens there is seen here, by itself."""

from __future__ import annotations

import re
import time
from statistics import median

import httpx
from playwright.sync_api import Page, expect

from lab.harness.hub import Hub
from tests.browser.worker import Worker

NOTE_COMPLETIONS = """() => {
  const rows = document.querySelector("#completion-rows");
  window.painted = {};
  new MutationObserver(() => {
    for (const row of rows.children) window.painted[row.dataset.task] ??= Date.now();
  }).observe(rows, { childList: true });
}"""
# But for what the time of day makes different, and for the feed, which begins with the page.
WITHOUT_WHAT_PASSES = """() => {
  const inCharts = "[data-latest], .plot .end, .times";
  const fleeting = `main time, ${inCharts}, [data-field=added], [data-field=drained]`;
  for (const place of document.querySelectorAll(fleeting)) place.textContent = "";
  document.querySelector(".activity").hidden = true;
  return document.querySelector("main").innerText;
}"""
AWAY = re.compile("WebSocket connection to|ERR_CONNECTION_REFUSED")
MARKUP = "<b>bold</b><img src=x onerror=alert(1)>"


def open_dashboard(page: Page, hub: Hub) -> None:
    page.goto(f"{hub.url}/dashboard")
    page.wait_for_selector("html[data-connection=live]")
    page.evaluate("window.neverReloaded = true")


def hub_seq(hub: Hub) -> int:
    seq: int = httpx.get(f"{hub.url}/api/dashboard/state", timeout=30).json()["seq"]
    return seq


def row(kind: str, id: str) -> str:
    return f'[data-testid="{kind}"][data-{"agent" if "agent" in kind else "task"}="{id}"]'


def test_the_root_leads_to_the_page_and_its_policy_is_strict(hub: Hub) -> None:
    answer = httpx.get(hub.url, follow_redirects=True)
    assert answer.url.path == "/dashboard"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-inline" not in policy


def test_an_agents_work_appears_without_reload(page: Page, hub: Hub) -> None:
    open_dashboard(page, hub)
    with Worker(hub, "live-1", name="Live One", capabilities=["write"]) as worker:
        agent = page.locator(row("agent", "live-1"))
        expect(agent).to_contain_text("Live One")
        expect(agent).to_have_attribute("data-state", "idle")

        task_id = worker.submit("say hello")
        task = worker.take()
        expect(agent).to_have_attribute("data-state", "working")
        expect(agent).to_contain_text("say hello")

        before = int(page.get_by_test_id("completed").inner_text())
        worker.complete(task, tokens_used=1234)
        completion = page.locator(row("completion", task_id))
        expect(completion).to_contain_text("say hello")
        expect(completion).to_contain_text("1,234")
        expect(page.get_by_test_id("completed")).to_have_text(str(before + 1))
        expect(agent).to_have_attribute("data-state", "idle")
    expect(agent).to_have_attribute("data-state", "offline")
    assert page.evaluate("window.neverReloaded")


def test_a_completion_is_painted_within_a_quarter_of_a_second(page: Page, hub: Hub) -> None:
    open_dashboard(page, hub)
    page.evaluate(NOTE_COMPLETIONS)
    waits_ms = []
    with Worker(hub, "quick-1") as worker:
        for _ in range(5):
            task_id = worker.submit("be quick")
            worker.complete(worker.take())
            acked_at = time.time() * 1000
            expect(page.locator(row("completion", task_id))).to_be_visible()
            waits_ms.append(page.evaluate("(id) => window.painted[id]", task_id) - acked_at)
    assert median(waits_ms) <= 250


def test_a_dead_letter_is_retried_from_the_page(page: Page, hub: Hub) -> None:
    open_dashboard(page, hub)
    with Worker(hub, "retry-1") as worker:
        task_id = worker.submit("fail once", max_retries=1)
        worker.fail(worker.take(), "Boom")
        letter = page.locator(row("group-task", task_id))
        page.get_by_role("button", name="1 Boom").click()
        expect(letter).to_contain_text("fail once")

        page.get_by_role("button", name="Retry fail once").click()
        expect(page.locator("#retry-note")).to_have_text("fail once: Back in the queue.")
        expect(letter).to_have_count(0)
        worker.complete(worker.take())
        expect(page.locator(row("completion", task_id))).to_be_visible()


def test_what_was_kept_current_is_what_a_reload_shows(page: Page, hub: Hub) -> None:
    open_dashboard(page, hub)
    with Worker(hub, "kept-1", capabilities=["b", "a"]) as worker, Worker(hub, "kept-2") as other:
        for number in range(18):
            worker.submit(f"task {number}", max_retries=1, priority=number % 4)
        for number in range(9):
            worker.complete(worker.take(), tokens_used=number)
            other.fail(other.take(), f"error {number}")
        seq = 0
        while seq != (seq := hub_seq(hub)):  # until nothing moves any more
            page.wait_for_selector(f'html[data-seq="{seq}"]')
        causes = page.get_by_test_id("dead-group")
        expect(causes).to_contain_text(["9 error"])
        kept = page.evaluate(WITHOUT_WHAT_PASSES)
        page.reload()
        page.wait_for_selector("html[data-connection=live]")
        expect(causes).to_contain_text(["9 error"])
        assert page.evaluate(WITHOUT_WHAT_PASSES) == kept


def test_markup_from_agents_is_shown_as_text(page: Page, hub: Hub) -> None:
    open_dashboard(page, hub)
    with Worker(hub, "markup-1", name=MARKUP, capabilities=[MARKUP]) as worker:
        task_id = worker.submit(MARKUP)
        worker.complete(worker.take())
        expect(page.locator(row("agent", "markup-1"))).to_contain_text(MARKUP)
        completion = page.locator(row("completion", task_id))
        expect(completion).to_contain_text(MARKUP)
        page.reload()
        expect(completion).to_contain_text(MARKUP)
        assert page.locator("main img").count() == 0


def test_comes_back_after_the_hub_was_killed(page: Page, hub: Hub, complaints: list[str]) -> None:
    open_dashboard(page, hub)
    page.wait_for_load_state("networkidle")  # all panels have asked for what they show
    hub.kill()
    page.wait_for_selector("html[data-connection=reconnecting]")
    expect(page.get_by_test_id("connection")).to_contain_text("next try in")
    hub.start()
    with Worker(hub, "meanwhile-1") as worker:
        task_id = worker.submit("done while nobody looked")
        worker.complete(worker.take())
        page.wait_for_selector("html[data-connection=live]", timeout=30_000)
        expect(page.locator(row("completion", task_id))).to_be_visible()
    assert page.evaluate("window.neverReloaded")
    # The browser itself writes down each attempt that found nobody.
    complaints[:] = [text for text in complaints if not AWAY.search(text)]
