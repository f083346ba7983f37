"""The queue's panel and the charts: why tasks wait, pages, lanes, and what was over time."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.snapshots import MINUTE, NOW, queue, snapshot
from tests.browser.stage import Stage
from tests.browser.tasks import HISTORY, QUEUE, event, points, queued, waiting


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
