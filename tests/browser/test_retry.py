"""Retry of a dead letter: what the row says, however the hub answers."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

from tests.browser.snapshots import dead_letter, queue, snapshot
from tests.browser.stage import Stage

NAME = dead_letter()["description"]


def open_with_dead_letter(stage: Stage) -> Locator:
    stage.open(snapshot(dead_letter_tasks=[dead_letter("task-1")], queue=queue(dead_letter=1)))
    stage.page.get_by_role("button", name=f"Retry {NAME}").click()
    return stage.page.get_by_test_id("retry-outcome")


def test_asks_once_and_tells_the_success(stage: Stage) -> None:
    outcome = open_with_dead_letter(stage)
    expect(outcome).to_have_text("Retrying…")
    stage.page.get_by_role("button", name=f"Retry {NAME}").click(force=True)
    stage.send(type="retry_result", task_id="task-1", status="requeued")
    expect(outcome).to_have_text("Back in the queue.")
    asked = [message for message in stage.heard if message["type"] == "retry_task"]
    assert asked == [{"type": "retry_task", "task_id": "task-1"}]

    stage.patch(4712, dead_letter_tasks={"upsert": [], "remove": ["task-1"]})
    expect(stage.page.locator("#retry-note")).to_have_text(f"{NAME}: Back in the queue.")
    expect(stage.page.locator("#dead-empty")).to_be_visible()


def test_a_refusal_is_told_at_the_row_and_may_be_tried_again(stage: Stage) -> None:
    outcome = open_with_dead_letter(stage)
    stage.send(type="retry_result", task_id="task-1", status="not_found")
    expect(outcome).to_have_text("Not retried: it is no longer in the dead letter.")
    stage.page.get_by_role("button", name=f"Retry {NAME}").click()
    expect(outcome).to_have_text("Retrying…")


def test_a_connection_lost_before_the_answer_is_told(stage: Stage) -> None:
    outcome = open_with_dead_letter(stage)
    expect(outcome).to_have_text("Retrying…")
    stage.sockets[-1].close()
    expect(outcome).to_contain_text("Connection lost before the answer")


def test_a_task_that_fails_again_starts_with_a_clean_row(stage: Stage) -> None:
    outcome = open_with_dead_letter(stage)
    stage.send(type="retry_result", task_id="task-1", status="requeued")
    expect(outcome).to_have_text("Back in the queue.")
    again = dead_letter("task-1", failed_at=dead_letter()["failed_at"] + 1)
    stage.patch(4712, dead_letter_tasks={"upsert": [again], "remove": []})
    expect(outcome).to_be_empty()
    expect(stage.page.get_by_role("button", name=f"Retry {NAME}")).to_have_attribute(
        "aria-disabled", "false"
    )


def test_who_lacks_the_permission_is_told_so(stage: Stage) -> None:
    outcome = open_with_dead_letter(stage)
    detail = "the permission tasks.change_task is needed"
    stage.send(type="retry_result", task_id="task-1", status="forbidden", detail=detail)
    expect(outcome).to_have_text("Your account lacks the permission for this.")
