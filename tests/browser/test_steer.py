"""What operators do: cancel, run again, change the lane, hold and lift, at a real hub."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from lab.harness.hub import Hub
from tests.browser.snapshots import snapshot
from tests.browser.stage import Stage
from tests.browser.test_accessibility import grave
from tests.browser.test_hub_tasks import open_dashboard
from tests.browser.worker import Worker

PHONE = {"width": 390, "height": 844}
OVERFLOWS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


def ask_to_cancel(page: Page, reason: str) -> None:
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_label("Reason").last.fill(reason)


def test_a_task_that_waits_is_cancelled_and_run_again(page: Page, hub: Hub) -> None:
    with Worker(hub, "cancelling-1") as worker:
        task_id = worker.submit("wrong customer", needed_capabilities=["nobody"])
        open_dashboard(page, hub, f"?task={task_id}")
        status = page.get_by_test_id("drawer-status")
        page.get_by_role("button", name="Cancel…").click()
        dialog = page.get_by_test_id("cancel")
        expect(dialog).to_contain_text("Nobody works on it")
        page.keyboard.press("Escape")  # keeps it
        expect(dialog).to_be_hidden()
        expect(status).to_have_text("queued")
        ask_to_cancel(page, "typed twice")
        page.keyboard.press("Enter")
        expect(status).to_have_text("cancelled")
        expect(page.get_by_test_id("drawer")).to_contain_text("typed twice")
        expect(page.get_by_role("button", name="Cancel…")).to_be_hidden()
        page.get_by_test_id("drawer").get_by_role("button", name="Retry").click()
        expect(status).to_have_text("queued")
        page.locator("#drawer-lane").select_option("urgent")
        expect(page.locator("#drawer-note")).to_have_text("It is in its new lane.")
        expect(page.get_by_test_id("drawer")).to_contain_text("Priority changed")


@pytest.mark.parametrize(
    ("accepts", "told"),
    [(["cancel"], "is asked to stop and has 30 s"), ([], "does not listen to such requests")],
)
def test_what_will_happen_to_a_running_task_is_said_before_the_click(
    page: Page, hub: Hub, accepts: list[str], told: str
) -> None:
    name = f"running-{len(accepts)}"
    with Worker(hub, name, capabilities=[name], accepts=accepts) as worker:
        task_id = worker.submit("long work", needed_capabilities=[name])
        task = worker.take()
        open_dashboard(page, hub, f"?task={task_id}")
        status = page.get_by_test_id("drawer-status")
        expect(status).to_have_text("assigned")
        ask_to_cancel(page, "too dear")
        expect(page.get_by_test_id("cancel")).to_contain_text(told)
        page.get_by_role("button", name="Cancel the task").click()
        expect(page.get_by_role("heading", name="Being cancelled")).to_be_visible()
        page.get_by_role("button", name="Cancel…").click()
        expect(page.get_by_test_id("cancel")).to_contain_text("cut off at once")
        page.get_by_role("button", name="Cancel the task").click()
        expect(status).to_have_text("cancelled")
        row = page.locator(f'#agent-rows [data-agent="{name}"]')
        expect(row).to_have_attribute("data-state", "stopping")
        worker.complete_too_late(task)
        expect(row).to_have_attribute("data-state", "idle")


def test_the_hub_is_held_and_the_hold_lifted(page: Page, hub: Hub) -> None:
    open_dashboard(page, hub)
    box = page.get_by_test_id("holds")
    box.locator("summary").click()
    box.get_by_role("button", name="Hold", exact=True).click()
    expect(box.locator("summary")).to_have_text("Hold")  # a reason is wanted
    box.get_by_label("Reason").fill("deploy at noon")
    page.keyboard.press("Enter")
    expect(box.locator("summary")).to_have_text("On hold")
    row = box.get_by_test_id("hold")
    expect(row).to_contain_text("the whole hub deploy at noon")
    expect(row).to_contain_text("by somebody without a login")
    with Worker(hub, "held-1") as worker:
        task_id = worker.submit("wait for it")
        reason = page.locator(f'[data-testid="queued-task"][data-task="{task_id}"] .reason')
        expect(reason).to_have_text("on hold")
        row.get_by_role("button", name="Lift the hold on the whole hub").click()
        expect(row).to_have_count(0)
        expect(box.locator("summary")).to_have_text("Hold")
        worker.complete(worker.take())


def test_lanes_and_agents_have_a_hold_of_their_own(page: Page, hub: Hub) -> None:
    with Worker(hub, "drained-1"):
        open_dashboard(page, hub)
        box = page.get_by_test_id("holds")
        low = page.get_by_role("button", name="Hold the lane low")
        low.focus()
        page.keyboard.press("Enter")
        page.keyboard.type("the cheap model is down")
        page.keyboard.press("Enter")
        expect(low).to_have_attribute("aria-pressed", "true")
        agent = page.get_by_role("button", name="Hold drained-1")
        agent.focus()
        page.keyboard.press("Enter")
        page.keyboard.type("drain")
        page.keyboard.press("Enter")
        expect(agent).to_have_attribute("aria-pressed", "true")
        expect(box.locator("summary")).to_have_text("Holds: 2")
        page.reload()
        page.wait_for_selector("html[data-connection=live]")
        expect(agent).to_have_attribute("aria-pressed", "true")
        box.locator("summary").click()
        for _ in range(2):
            count = box.get_by_test_id("hold").count()
            box.get_by_role("button", name=re.compile("^Lift")).first.click()
            expect(box.get_by_test_id("hold")).to_have_count(count - 1)
        expect(agent).to_have_attribute("aria-pressed", "false")


def test_a_hold_that_is_written_while_the_last_one_is_not_answered_is_kept(stage: Stage) -> None:
    page = stage.page
    stage.open(snapshot())
    box = page.get_by_test_id("holds")
    box.locator("summary").click()
    reason = box.get_by_label("Reason")
    for text in ("the first", "the second"):
        reason.fill(text)
        page.keyboard.press("Enter")
    reason.fill("the third")

    def placed() -> list[str]:
        return [frame["reason"] for frame in stage.heard if frame["type"] == "place_hold"]

    assert placed() == ["the first"]
    stage.send(type="hold_result", status="held", hold=None)
    while len(placed()) < 2:
        page.wait_for_timeout(20)
    stage.send(type="hold_result", status="held", hold=None)
    stage.patch(4712)  # comes after it
    assert placed() == ["the first", "the second"]
    expect(reason).to_have_value("the third")


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [None, PHONE], ids=["desktop", "phone"])
def test_nothing_grave_is_found_and_all_has_room(
    page: Page, hub: Hub, scheme: Any, size: Any
) -> None:
    page.emulate_media(color_scheme=scheme)
    if size:
        page.set_viewport_size(size)
    with Worker(hub, "looked-at-1") as worker:
        task_id = worker.submit("look at me", needed_capabilities=["nobody"])
        open_dashboard(page, hub)
        box = page.get_by_test_id("holds")
        box.locator("summary").click()
        box.get_by_label("Reason").fill("a look")
        page.keyboard.press("Enter")
        expect(box.get_by_test_id("hold")).to_have_count(1)
        assert grave(page) == []
        assert not page.evaluate(OVERFLOWS)
        box.get_by_role("button", name=re.compile("^Lift")).click()
        expect(box.get_by_test_id("hold")).to_have_count(0)
        open_dashboard(page, hub, f"?task={task_id}")
        page.get_by_role("button", name="Cancel…").click()
        assert grave(page) == []
        assert not page.evaluate(OVERFLOWS)
        page.get_by_role("button", name="Cancel the task").click()
        expect(page.get_by_test_id("drawer-status")).to_have_text("cancelled")
