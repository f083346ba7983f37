"""The tasks that ended lately, and the feed of what happens."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.snapshots import (
    MINUTE,
    NOW,
    agent,
    completion,
    dead_letter,
    queue,
    snapshot,
)
from tests.browser.stage import Stage
from tests.browser.tasks import event, queued


def test_recent_tasks_hold_completions_and_failures(stage: Stage) -> None:
    stage.open(
        snapshot(
            recent_completions=[completion("task-c", completed_at=NOW - 3 * MINUTE)],
            dead_letter_tasks=[dead_letter("task-d", failed_at=NOW - 2 * MINUTE)],
        )
    )
    again = event("task_failed", "task-f", error="Boom", title="try hard")
    dead = [event("task_failed", "task-d"), event("task_dead_letter", "task-d")]
    stage.send(type="events", seq=4712, data=[again, event("task_retried", "task-f"), *dead])
    rows = stage.page.locator("#completion-rows tr")
    expect(rows).to_have_count(3)
    found = [
        (row.get_attribute("data-task"), row.get_attribute("data-outcome")) for row in rows.all()
    ]
    assert found == [("task-f", "failed"), ("task-d", "dead letter"), ("task-c", "completed")]
    expect(rows.first).to_contain_text("try hard")
    expect(rows.first).to_contain_text("Boom")


def test_recent_tasks_are_sorted_and_filtered(stage: Stage) -> None:
    done = [
        completion("task-a", description="Zebra", agent_id="ann", duration_ms=50),
        completion("task-b", description="apple", agent_id="bob", duration_ms=900),
        completion("task-c", description="melon", agent_id="ann", duration_ms=200),
    ]
    stage.open(snapshot(recent_completions=done, dead_letter_tasks=[dead_letter("task-d")]))
    page, rows = stage.page, stage.page.locator("#completion-rows tr")

    def shown() -> list[str | None]:
        return [row.get_attribute("data-task") for row in rows.all()]

    page.get_by_role("button", name="Took").click()
    assert shown() == ["task-b", "task-c", "task-a", "task-d"]
    page.get_by_role("button", name="Took").click()
    assert shown() == ["task-d", "task-a", "task-c", "task-b"]
    page.get_by_label("Filter tasks by outcome").select_option("completed")
    page.get_by_label("Filter tasks by agent").fill("ANN")
    assert shown() == ["task-a", "task-c"]
    page.get_by_label("Filter tasks by text").fill("zeb")
    assert shown() == ["task-a"]
    page.get_by_label("Filter tasks by text").fill("nothing like it")
    expect(page.locator("#recent-none")).to_be_visible()


def test_recent_tasks_hold_still_under_the_mouse(stage: Stage) -> None:
    stage.open(snapshot(recent_completions=[completion("task-a", completed_at=NOW - MINUTE)]))
    rows = stage.page.locator("#completion-rows tr")
    rows.first.hover()
    newer = {"upsert": [completion("task-b", completed_at=NOW)], "remove": []}
    stage.patch(4712, recent_completions=newer)
    expect(stage.page.locator("#recent-count")).to_have_text("held while you point at it")
    expect(rows).to_have_count(1)
    stage.page.mouse.move(2, 2)
    expect(rows).to_have_count(2)


# --- Feed


def test_the_feed_names_who_what_and_how_long(stage: Stage) -> None:
    stage.open(snapshot())
    told = [
        event("task_submitted", agent_id=None, title="say hello"),
        event("task_assigned", title="say hello"),
        event("task_complete", duration_ms=1234, tokens_used=1500),
        {"type": "agent_joined", "agent_id": "a-2", "name": "Second", "capabilities": ["code"]},
    ]
    stage.send(type="events", seq=4712, data=told)
    lines = stage.page.locator("#activity-list li")
    expect(lines).to_have_count(4)
    expect(lines.nth(0)).to_contain_text("Second connected code")
    expect(lines.nth(1)).to_contain_text("writer-1 completed say hello in 1.2 s · 1,500 tokens")
    expect(lines.nth(2)).to_contain_text("writer-1 got say hello")
    expect(lines.nth(3)).to_contain_text("say hello was submitted")


def test_the_feed_calls_tasks_by_the_titles_that_the_page_has_seen(stage: Stage) -> None:
    holder = agent(current_task_id="task-a", current_task_title="say hello")
    stage.api["/api/dashboard/queue"] = {"tasks": [queued(7)], "count": 1, "next_cursor": None}
    stage.open(snapshot(agents=[holder], queue=queue((0, 0, 1, 0))))
    expect(stage.page.get_by_test_id("queued-task")).to_have_count(1)
    told = [event("task_progress", "task-a", progress=50), event("task_accepted", "task-7")]
    stage.send(type="events", seq=4712, data=told)
    lines = stage.page.locator("#activity-list li")
    expect(lines.nth(0)).to_contain_text("writer-1 started wait 7")
    expect(lines.nth(1)).to_contain_text("writer-1 is working on say hello 50 %")


def test_the_feed_names_who_retried_and_who_forgot(stage: Stage) -> None:
    stage.open(snapshot())
    told = [
        event("task_retried", agent_id=None, title="say hello", by_hand=True, actor="user:maria"),
        {"type": "agent_forgotten", "agent_id": "a-2", "actor": "anyone"},
    ]
    stage.send(type="events", seq=4712, data=told)
    lines = stage.page.locator("#activity-list li")
    expect(lines.nth(0)).to_contain_text("a-2 was forgotten by somebody without a login")
    expect(lines.nth(1)).to_contain_text("retried by hand · by maria")


def test_the_feed_pauses(stage: Stage) -> None:
    stage.open(snapshot())
    stage.page.get_by_role("button", name="Pause").click()
    stage.send(type="events", seq=4712, data=[event("task_complete"), event("task_failed")])
    expect(stage.page.get_by_test_id("activity-note")).to_have_text("Paused, 2 new events")
    expect(stage.page.locator("#activity-list li")).to_have_count(0)
    stage.page.get_by_role("button", name="Go on").click()
    expect(stage.page.locator("#activity-list li")).to_have_count(2)


def test_a_flood_of_events_is_counted_and_leaves_the_page_small(stage: Stage) -> None:
    stage.open(snapshot())
    for seq in range(4712, 4742):
        flood = [event("task_accepted", f"task-{seq}-{number}") for number in range(100)]
        stage.send(type="events", seq=seq, data=flood)
    expect(stage.page.locator("#activity-list .others").first).to_contain_text("× started")
    assert stage.page.locator("#activity-list li").count() <= 150
