"""The dead letters by cause: one is retried, or all of a cause, until somebody stops it."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.stage import Stage
from tests.browser.tasks import answer_retries, asked_of, open_with_group


def test_a_group_opens_and_one_of_its_tasks_is_retried(stage: Stage) -> None:
    open_with_group(stage)
    about = stage.page.get_by_test_id("dead-group")
    expect(about).to_contain_text("3 Boom")
    about.get_by_role("button", name="3 Boom").first.click()
    expect(stage.page.get_by_test_id("group-task")).to_have_count(3)

    about.get_by_role("button", name="Retry try 1").click()
    row = stage.page.locator('[data-testid="group-task"][data-task="task-1"]')
    expect(row.get_by_test_id("group-retry-outcome")).to_have_text("Retrying…")
    stage.send(type="retry_result", task_id="task-1", status="not_found")
    expect(row.get_by_test_id("group-retry-outcome")).to_have_text(
        "Not retried: it is no longer in the dead letter."
    )


def test_a_group_is_retried_after_a_question_and_can_be_stopped(stage: Stage) -> None:
    open_with_group(stage, count=100)
    answer_retries(stage, refused="task-1")
    page = stage.page
    page.get_by_role("button", name="Retry all 100").click()
    dialog = page.get_by_test_id("retry-dialog")
    expect(dialog).to_contain_text("Retry these 100 tasks?")
    dialog.get_by_role("button", name="Cancel").click()
    assert asked_of(stage) == []

    page.get_by_role("button", name="Retry all 100").click()
    dialog.get_by_role("button", name="Retry 100 tasks").click()
    expect(page.get_by_test_id("retry-told")).to_contain_text(re.compile(r"^([5-9]|\d\d) of 100"))
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_test_id("retry-told")).to_contain_text("Stopped: ")
    expect(page.get_by_test_id("retry-told")).to_contain_text("1 refused")
    asked = asked_of(stage)
    assert asked == [f"task-{number}" for number in range(len(asked))]
    assert 6 <= len(asked) < 100


def test_a_group_is_retried_to_its_end(stage: Stage) -> None:
    open_with_group(stage, count=4)
    answer_retries(stage)
    stage.page.get_by_role("button", name="Retry all 4").click()
    stage.page.get_by_role("button", name="Retry 4 tasks").click()
    expect(stage.page.get_by_test_id("retry-told")).to_have_text("Done: 4 of 4 back in the queue")


def test_a_lost_connection_breaks_the_retry_of_a_group_off(stage: Stage) -> None:
    open_with_group(stage, count=4)
    stage.page.get_by_role("button", name="Retry all 4").click()
    stage.reactions["retry_task"] = lambda _: stage.sockets[-1].close()
    stage.page.get_by_role("button", name="Retry 4 tasks").click()
    expect(stage.page.get_by_test_id("retry-told")).to_contain_text("Broken off: 0 of 4")
    assert asked_of(stage) == ["task-0"]


def test_without_the_permission_a_group_is_not_tried_to_its_end(stage: Stage) -> None:
    open_with_group(stage, count=4)
    stage.reactions["retry_task"] = lambda asked: stage.send(
        type="retry_result", task_id=asked["task_id"], status="forbidden"
    )
    stage.page.get_by_role("button", name="Retry all 4").click()
    stage.page.get_by_role("button", name="Retry 4 tasks").click()
    told = stage.page.get_by_test_id("retry-told")
    expect(told).to_contain_text("Broken off: 0 of 4")
    expect(told).to_contain_text("Your account lacks the permission for this.")
    assert asked_of(stage) == ["task-0"]
