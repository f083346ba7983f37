"""The panels that show tasks: queue, charts, recent tasks, dead letters by cause, drawer, feed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.snapshots import MINUTE, NOW, completion, dead_letter, queue, snapshot
from tests.browser.stage import ADDRESS, Stage
from tests.browser.test_accessibility import grave

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\" ' & שלום 🚀"
HISTORY = "/api/dashboard/history"
QUEUE = "/api/dashboard/queue"
DEAD = "/api/dashboard/dead-letters"


def event(kind: str, task_id: str = "task-1", **fields: Any) -> dict[str, Any]:
    return {
        "type": "task_event",
        "task_id": task_id,
        "event": kind,
        "agent_id": "writer-1",
        "timestamp": NOW,
    } | fields


def queued(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"task-{number}",
        "description": f"wait {number}",
        "priority": 2,
        "needed_capabilities": [],
        "created_at": NOW - 5 * MINUTE,
        "generation": 0,
        "waiting": {"reason": "in_line", "message": "In line.", "missing": [], "ahead": number},
    } | fields


def waiting(reason: str, **fields: Any) -> dict[str, Any]:
    return {
        "reason": reason,
        "message": "The hub's sentence.",
        "missing": [],
        "ahead": None,
    } | fields


def task(**fields: Any) -> dict[str, Any]:
    return {
        "id": "task-1",
        "description": "say hello",
        "metadata": {},
        "priority": 2,
        "status": "completed",
        "assigned_to": "writer-1",
        "assigned_at": NOW - MINUTE,
        "generation": 1,
        "retry_count": 0,
        "max_retries": 3,
        "needed_capabilities": [],
        "last_error": None,
        "complete_by": None,
        "result": {"said": "hello"},
        "tokens_used": 12,
        "submitted_by": "writer-1",
        "created_at": NOW - 2 * MINUTE,
        "updated_at": NOW,
        "history": [
            entry("task_submitted", NOW - 2 * MINUTE, None, priority=2),
            entry("task_assigned", NOW - 2 * MINUTE + 2500, generation=1),
            entry("task_complete", NOW, duration_ms=117_500, tokens_used=12),
        ],
        "waiting": None,
    } | fields


def entry(kind: str, at: int, agent_id: str | None = "writer-1", **details: Any) -> dict[str, Any]:
    return {"event": kind, "timestamp": at, "agent_id": agent_id, "details": details}


def group(key: str = "boom", count: int = 3, **fields: Any) -> dict[str, Any]:
    return {
        "group": key,
        "error": "Boom",
        "count": count,
        "first_at": NOW - 60 * MINUTE,
        "last_at": NOW - MINUTE,
        "agents": ["writer-1"],
        "agent_count": 1,
    } | fields


def open_with_group(stage: Stage, count: int = 3, **fields: Any) -> None:
    """A dead letter of one cause, with `count` tasks in it."""
    letters = [dead_letter(f"task-{number}", last_error="Boom") for number in range(count)]
    about = group(count=count, **fields)
    stage.api[DEAD] = {"groups": [about], "total": count}
    stage.api[f"{DEAD}?group={about['group']}&limit=50"] = {
        "tasks": letters,
        "count": count,
        "next_cursor": None,
    }
    stage.open(snapshot(dead_letter_tasks=letters, queue=queue(dead_letter=count)))


def points(page: Page, chart: str) -> Any:
    return json.loads(page.locator(f'[data-chart="{chart}"]').get_attribute("data-points") or "{}")


# --- Queue


def test_the_queue_says_why_each_task_waits(stage: Stage) -> None:
    stage.api[QUEUE] = {
        "tasks": [
            queued(0, waiting=waiting("nobody_connected")),
            queued(1, waiting=waiting("nobody_capable", missing=["gpu", "fortran"])),
            queued(2, waiting=waiting("nobody_capable"), needed_capabilities=["a", "b"]),
            queued(3, waiting=waiting("all_busy", ahead=0)),
            queued(4, waiting=waiting("in_line", ahead=1200)),
        ],
        "count": 5,
        "next_cursor": None,
    }
    stage.open(snapshot(queue=queue((0, 0, 5, 0))))
    expect(stage.page.get_by_test_id("reason")).to_have_text([
        "no agent connected",
        "nobody has gpu, fortran",
        "nobody has all of a, b",
        "next, all who can are busy",
        "1,200 before it",
    ])  # fmt: skip


def test_the_queue_is_paged_by_its_cursor(stage: Stage) -> None:
    first, second = [[queued(n) for n in page] for page in (range(50), range(50, 60))]
    stage.api[QUEUE] = {"tasks": first, "count": 50, "next_cursor": "c-1"}
    stage.api[f"{QUEUE}?limit=50&cursor=c-1"] = {"tasks": second, "count": 10, "next_cursor": None}
    stage.open(snapshot(queue=queue((0, 0, 60, 0))))
    rows, range_ = (
        stage.page.get_by_test_id("queued-task"),
        stage.page.get_by_test_id("queue-range"),
    )
    expect(range_).to_have_text("1–50 of 60")

    stage.page.get_by_role("button", name="Next").click()
    expect(range_).to_have_text("51–60 of 60")
    expect(rows).to_have_count(10)
    stage.page.get_by_role("button", name="Next").click(force=True)  # there is none
    stage.page.get_by_role("button", name="Previous").click()
    expect(range_).to_have_text("1–50 of 60")


def test_each_lane_tells_its_oldest_and_its_rates(stage: Stage) -> None:
    lane = {
        "queued": 7,
        "oldest_at": NOW - 9 * MINUTE,
        "added_per_min": 1.5,
        "drained_per_min": 240,
    }
    lanes = {"0": lane, "1": lane | {"oldest_at": None}, "2": lane, "3": lane}
    stage.open(snapshot(queue=queue((7, 0, 0, 0)) | {"lanes": lanes}))
    urgent = stage.page.locator('[data-lane-tile="0"]')
    expect(urgent.get_by_test_id("oldest")).to_have_text("9 min")
    expect(urgent.get_by_test_id("added")).to_have_text("+1.5")
    expect(urgent.get_by_test_id("drained")).to_have_text("−240")
    stage.patch(
        4712, queue=queue((8, 0, 0, 0)) | {"lanes": lanes | {"0": lane | {"added_per_min": 0}}}
    )
    expect(stage.page.get_by_test_id("lane-urgent")).to_have_text("8")
    expect(urgent.get_by_test_id("added")).to_have_text("+0")


# --- Charts


def test_charts_show_the_history_and_follow_the_socket(stage: Stage) -> None:
    minutes = [NOW - NOW % MINUTE - back * MINUTE for back in range(59, -1, -1)]
    stage.api[HISTORY] = {
        "minutes": 60,
        "step_s": 60,
        "points": [
            {"at": at, "completed": 4, "failed": 1, "depth": 9, "p95_ms": 1500} for at in minutes
        ],
    }
    stage.open(snapshot(queue=queue((0, 0, 12, 0))))
    expect(stage.page.locator("#charts canvas")).to_have_count(3)
    ended = points(stage.page, "ended")
    assert ended["at"] == [at / 1000 for at in minutes]
    assert ended["completed"] == [4] * 60
    assert ended["failed"] == [1] * 60
    assert points(stage.page, "depth")["depth"] == [9] * 59 + [12]
    assert points(stage.page, "p95")["p95"] == [1500] * 60

    done = event("task_complete", timestamp=minutes[-1] + 30, duration_ms=700)
    stage.send(type="events", seq=4712, data=[done, event("task_failed", timestamp=minutes[-1])])
    ended_now = stage.page.locator('[data-chart="ended"]')
    expect(ended_now).to_have_attribute("data-points", re.compile(r'"failed":\[[\d,]+,2\]'))
    assert points(stage.page, "ended")["completed"] == [4] * 59 + [5]


def test_a_day_is_counted_per_minute_too(stage: Stage) -> None:
    day = [
        {"at": NOW - (287 - n) * 300_000, "completed": 50, "failed": 5, "depth": 1, "p95_ms": 10}
        for n in range(288)
    ]
    stage.api[f"{HISTORY}?minutes=1440"] = {"minutes": 1440, "step_s": 300, "points": day}
    stage.open(snapshot())
    stage.page.get_by_role("button", name="24 h").click()
    stage.page.wait_for_selector("[data-chart=p95][data-points]")
    assert points(stage.page, "ended")["completed"] == [10] * 288
    expect(stage.page.locator('[data-latest="completed"]')).to_have_text("10")


# --- Recent tasks


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


# --- Dead letters by cause


def test_a_group_opens_and_one_of_its_tasks_is_retried(stage: Stage) -> None:
    open_with_group(stage)
    about = stage.page.get_by_test_id("dead-group")
    expect(about).to_contain_text("3 Boom")
    about.get_by_role("button", name="3 Boom").first.click()
    expect(stage.page.get_by_test_id("group-task")).to_have_count(3)

    about.get_by_role("button", name="Retry task-1").click()
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


def answer_retries(stage: Stage, refused: str = "") -> None:
    def answer(asked: dict[str, Any]) -> None:
        status = "not_found" if asked["task_id"] == refused else "requeued"
        stage.send(type="retry_result", task_id=asked["task_id"], status=status)

    stage.reactions["retry_task"] = answer


def asked_of(stage: Stage) -> list[str]:
    return [said["task_id"] for said in stage.heard if said["type"] == "retry_task"]


# --- Drawer


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


# --- Texts that would harm


def test_hostile_texts_stay_texts_in_every_panel(stage: Stage) -> None:
    long = HOSTILE + "x" * 16_384
    stage.page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    stage.api[QUEUE] = {
        "tasks": [
            queued(1, description=long, waiting=waiting("nobody_capable", missing=[HOSTILE]))
        ],
        "count": 1,
        "next_cursor": None,
    }
    stage.api["/api/dashboard/tasks/task-1"] = task(
        description=long,
        metadata={HOSTILE: HOSTILE},
        result={HOSTILE: long},
        last_error=long,
        needed_capabilities=[HOSTILE],
        history=[entry("task_failed", NOW, HOSTILE, error=long)],
    )
    letters = [dead_letter("task-1", description=long, last_error=long)]
    hostile = group(error=HOSTILE, agents=[HOSTILE], count=1)
    stage.api[DEAD] = {"groups": [hostile], "total": 1}
    stage.api[f"{DEAD}?group=boom&limit=50"] = {"tasks": letters, "count": 1, "next_cursor": None}
    lanes = queue((0, 0, 1, 0), dead_letter=1)
    stage.open(snapshot(dead_letter_tasks=letters, queue=lanes))
    noise = event("task_blocked", agent_id=HOSTILE, title=long, reason=long)
    stage.send(type="events", seq=4712, data=[noise])

    page = stage.page
    expect(page.get_by_test_id("queued-task")).to_contain_text(HOSTILE)
    expect(page.get_by_test_id("reason")).to_contain_text(HOSTILE)
    expect(page.locator("#activity-list li")).to_contain_text(HOSTILE)
    page.locator("[data-open]").click()
    expect(page.get_by_test_id("group-task")).to_contain_text(HOSTILE)
    page.locator("[data-retry-group]").click()
    expect(page.locator("#retry-cause")).to_have_text(HOSTILE)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_test_id("group-task").get_by_role("link").click()
    for section in ("description", "error", "facts", "history"):
        expect(page.locator(f'[data-section="{section}"]')).to_contain_text(HOSTILE)
    for section in ("metadata", "result"):  # as JSON, so its quotes are escaped
        expect(page.locator(f'[data-section="{section}"]')).to_contain_text(HOSTILE[:50])
    assert page.locator("main img, main script, dialog img, dialog script").count() == 0
    for width in (1440, 360):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing_grave_in_panels_drawer_and_dialog(stage: Stage, scheme: Any) -> None:
    stage.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    stage.api["/api/dashboard/tasks/task-1"] = task(status="dead_letter", last_error="Boom")
    lacking = queued(1, waiting=waiting("nobody_capable", missing=["gpu"]))
    stage.api[QUEUE] = {"tasks": [lacking], "count": 1, "next_cursor": None}
    open_with_group(stage)
    stage.patch(4712, queue=queue((0, 0, 1, 0), dead_letter=3))
    noise = [event("task_assigned", title="say hello"), event("task_failed", error="Boom")]
    stage.send(type="events", seq=4712, data=noise)
    page = stage.page
    page.locator("[data-open]").click()
    expect(page.get_by_test_id("group-task")).to_have_count(3)
    expect(page.get_by_test_id("queued-task")).to_have_count(1)
    expect(page.locator("#activity-list li")).to_have_count(2)
    assert grave(page) == []
    page.get_by_test_id("group-task").get_by_role("link").nth(1).click()
    expect(page.locator(".timeline li")).to_have_count(3)
    assert grave(page) == []
    page.keyboard.press("Escape")
    page.locator("[data-retry-group]").click()
    assert grave(page) == []
