"""The drawer: one task in full, at an address of its own."""

from __future__ import annotations

import json

from playwright.sync_api import expect

from tests.browser.snapshots import NOW, completion, snapshot
from tests.browser.stage import ADDRESS, Stage
from tests.browser.tasks import answer_retries, entry, event, task, waiting


def test_a_task_opens_by_its_link_and_closes_by_going_back(stage: Stage) -> None:
    stage.api["/api/dashboard/tasks/task-1"] = task()
    stage.open(snapshot(recent_completions=[completion("task-1", description="say hello")]))
    link = stage.page.get_by_role("link", name="say hello")
    link.click()
    drawer = stage.page.get_by_test_id("drawer")
    expect(drawer).to_contain_text('"said": "hello"')
    assert stage.page.url == f"{ADDRESS}/dashboard?task=task-1"
    steps = drawer.locator(".timeline li")
    expect(steps.nth(1)).to_contain_text("2.5 s later")
    expect(steps.nth(2)).to_contain_text("in 1 min 57 s · 12 tokens")

    stage.page.go_back()
    expect(drawer).to_be_hidden()
    stage.page.wait_for_url(f"{ADDRESS}/dashboard")
    expect(link).to_be_focused()
    link.click()
    stage.page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    stage.page.wait_for_url(f"{ADDRESS}/dashboard")


def test_a_task_opens_by_its_address_and_by_an_event(stage: Stage) -> None:
    stage.api["/api/dashboard/tasks/task-1"] = task()
    stage.api["/api/dashboard/tasks/task-2"] = task(id="task-2", description="another")
    stage.open(snapshot(), "?task=task-1")
    drawer = stage.page.get_by_test_id("drawer")
    expect(drawer.get_by_role("heading", name="say hello")).to_be_focused()
    drawer.get_by_role("button", name="Close").click()
    stage.page.wait_for_url(f"{ADDRESS}/dashboard")
    stage.page.evaluate("document.dispatchEvent(new CustomEvent('open-task', {detail: 'task-2'}))")
    expect(drawer.get_by_role("heading", name="another")).to_be_visible()


def test_an_open_task_follows_its_events(stage: Stage) -> None:
    queued_task = task(status="queued", result=None, waiting=waiting("nobody_connected"))
    stage.api["/api/dashboard/tasks/task-1"] = queued_task
    stage.open(snapshot(), "?task=task-1")
    drawer = stage.page.get_by_test_id("drawer")
    expect(drawer).to_contain_text("The hub's sentence.")
    stage.api["/api/dashboard/tasks/task-1"] = task()
    stage.send(type="events", seq=4712, data=[event("task_complete")])
    expect(stage.page.get_by_test_id("drawer-status")).to_have_text("completed")
    expect(drawer).not_to_contain_text("The hub's sentence.")


def test_metadata_and_result_are_shown_as_the_hub_has_them(stage: Stage) -> None:
    exact = """{
  "channel": 1497549923779084388,
  "10": 1.0,
  "9": [
    -9007199254740993,
    1e-7,
    {},
    [],
    {
      "a \\"b\\" {c: [d,": "é\\n, \\\\"
    }
  ],
  "last": null
}"""
    told = {"metadata": {"a": [1]}, "result": 0}
    text = json.dumps(task(**told)).replace('"result": 0', f'"result": {exact}')
    stage.api["/api/dashboard/tasks/task-1"] = text
    stage.open(snapshot(), "?task=task-1")
    expect(stage.page.locator('[data-section="result"] pre')).to_have_text(exact)
    assert stage.page.locator('[data-section="result"] pre').text_content() == exact
    assert stage.page.locator('[data-section="metadata"] pre').text_content() == (
        '{\n  "a": [\n    1\n  ]\n}'
    )


def test_without_metadata_and_result_none_are_shown(stage: Stage) -> None:
    stage.api["/api/dashboard/tasks/task-1"] = task(metadata={}, result=None)
    stage.open(snapshot(), "?task=task-1")
    expect(stage.page.locator('[data-section="history"]')).to_be_visible()
    for section in ("metadata", "result"):
        expect(stage.page.locator(f'[data-section="{section}"]')).to_be_hidden()


def test_a_task_that_is_gone_is_said_so(stage: Stage, complaints: list[str]) -> None:
    stage.open(snapshot(), "?task=task-9")
    expect(stage.page.get_by_test_id("drawer")).to_contain_text("No such task")
    complaints.clear()  # the browser writes the 404 down


def test_a_dead_letter_is_retried_from_the_drawer(stage: Stage) -> None:
    stage.api["/api/dashboard/tasks/task-1"] = task(status="dead_letter", last_error="Boom")
    stage.open(snapshot(), "?task=task-1")
    answer_retries(stage)
    stage.page.get_by_test_id("drawer").get_by_role("button", name="Retry").click()
    expect(stage.page.get_by_test_id("drawer")).to_contain_text("Back in the queue.")


def test_the_id_is_there_to_copy(stage: Stage) -> None:
    stage.api["/api/dashboard/tasks/task-1"] = task()
    stage.open(snapshot(), "?task=task-1")
    page, button = stage.page, stage.page.get_by_role("button", name="Copy id")
    copy = "navigator.clipboard = { writeText: async (text) => { window.copied = text } }"
    page.evaluate(f"Object.defineProperty(navigator, 'clipboard', {{ writable: true }}); {copy}")
    button.press("Enter")
    expect(page.locator("#drawer-note")).to_have_text("The id is in the clipboard.")
    assert page.evaluate("window.copied") == "task-1"

    page.evaluate("navigator.clipboard = undefined")  # as over plain HTTP
    button.press("Enter")
    expect(page.locator("#drawer-note")).to_contain_text("The id is selected")
    assert page.evaluate("String(getSelection())") == "task-1"


def test_the_history_says_who_did_it(stage: Stage) -> None:
    doings = [
        ("task_submitted", None, "token:ci"),
        ("task_assigned", "writer-1", "hub"),
        ("task_failed", "writer-1", "agent:writer-1"),
        ("task_retried", None, "user:maria <b>"),
        ("task_reclaimed", "writer-1", "worker"),
        ("task_retried", None, "anyone"),
        ("task_accepted", "writer-1", None),
    ]
    history = [{**entry(kind, NOW, agent_id), "actor": actor} for kind, agent_id, actor in doings]
    stage.api["/api/dashboard/tasks/task-1"] = task(history=history)
    stage.open(snapshot(), "?task=task-1")
    steps = stage.page.get_by_test_id("drawer").locator(".timeline li")
    expect(steps).to_have_count(len(doings))
    expect(steps.nth(0)).to_contain_text("Submitted by ci, with its token")
    for number in (1, 2, 6):  # the hub's own doing, the agent's that is named, and not known
        expect(steps.nth(number)).not_to_contain_text(" by ")
    expect(steps.nth(3)).to_contain_text("by maria <b>")
    expect(steps.nth(4)).to_contain_text("Taken back writer-1 by the worker")
    expect(steps.nth(5)).to_contain_text("by somebody without a login")
