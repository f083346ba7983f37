"""The queue's panel and the charts: why tasks wait, pages, lanes, and what was over time."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

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

STEPS = """(path) => {
  const isIn = (step) => path.isPointInFill(new DOMPoint(step + 0.5, 99.9));
  const steps = [...Array(60).keys()].filter(isIn);
  return [steps.at(0), steps.at(-1)];
}"""


def point(at: int, **fields: Any) -> dict[str, Any]:
    return {"at": at, "completed": 0, "failed": 0, "depth": None, "p95_ms": 0} | fields


def play_hour(stage: Stage, *newest: dict[str, Any]) -> list[int]:
    """The last points of an hour that was empty before; when its minutes began."""
    minutes = [NOW - NOW % MINUTE - back * MINUTE for back in range(59, -1, -1)]
    fields: list[dict[str, Any]] = [{}] * (60 - len(newest)) + list(newest)
    hour = [point(at, **each) for at, each in zip(minutes, fields, strict=True)]
    stage.api[HISTORY] = {"minutes": 60, "step_s": 60, "points": hour}
    return minutes


def play_day(stage: Stage, **fields: Any) -> None:
    day = [point(NOW - (287 - n) * 300_000, **fields) for n in range(288)]
    stage.api[f"{HISTORY}?minutes=1440"] = {"minutes": 1440, "step_s": 300, "points": day}
    stage.open(snapshot())
    stage.page.get_by_role("button", name="24 h").click()
    expect(stage.page.get_by_test_id("charts").locator("svg").first).to_have_attribute(
        "viewBox", "0 0 288 100"
    )


def plot(stage: Stage, chart: str) -> Locator:
    return stage.page.locator(f'[data-chart="{chart}"] svg')


def steps_of(stage: Stage, path: str) -> list[int]:
    """The first and the last step at which a path has a column."""
    steps: list[int] = stage.page.locator(f"#charts path{path}").evaluate(STEPS)
    return steps


def test_charts_show_the_history_and_follow_the_socket(stage: Stage) -> None:
    steady = {"completed": 4, "failed": 1, "depth": 9, "p95_ms": 1500}
    minutes = play_hour(stage, *[steady] * 60)
    stage.open(snapshot(queue=queue((0, 0, 12, 0))))
    expect(plot(stage, "ended")).to_have_attribute("viewBox", "0 0 60 100")
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


def test_the_minute_that_runs_looks_different_and_is_not_called_the_latest(stage: Stage) -> None:
    steady = {"completed": 40, "failed": 1, "depth": 9, "p95_ms": 1500}
    play_hour(stage, *[steady] * 59, steady | {"completed": 1, "p95_ms": 9000})
    stage.open(snapshot(queue=queue((0, 0, 12, 0))))
    page = stage.page
    expect(page.locator('[data-latest="completed"]')).to_have_text("40")
    expect(page.locator('[data-latest="p95"]')).to_have_text("1.5 s")
    expect(page.locator('[data-latest="depth"]')).to_have_text("12")  # true at any moment
    for series in ("completed", "failed"):
        assert steps_of(stage, f"[data-series={series}][data-steps=whole]") == [0, 58]
        assert steps_of(stage, f"[data-series={series}][data-steps=running]") == [59, 59]
    assert steps_of(stage, "[data-series=p95]") == [0, 58]
    expect(page.locator('[data-chart="p95"] .end')).to_have_text("2 s")  # no axis for a spike
    assert steps_of(stage, "[data-series=depth]") == [0, 59]
    dashes = "(path) => getComputedStyle(path).strokeDasharray"
    whole, running = (
        page.locator(f"path[data-series=completed][data-steps={steps}]").evaluate(dashes)
        for steps in ("whole", "running")
    )
    assert whole != running


def test_a_young_hub_shows_its_life_and_not_an_empty_hour(stage: Stage) -> None:
    minutes = play_hour(stage, {"depth": 0}, *[{"completed": 3, "depth": 0}] * 6)
    stage.open(snapshot())
    expect(plot(stage, "ended")).to_have_attribute("viewBox", "0 0 7 100")
    assert points(stage.page, "ended")["at"] == [at / 1000 for at in minutes[-7:]]
    play_hour(stage, {"completed": 3, "depth": 0})
    stage.page.reload()
    expect(plot(stage, "ended")).to_have_attribute("viewBox", "0 0 5 100")


def test_a_quiet_hour_of_an_old_hub_is_not_cut(stage: Stage) -> None:
    play_hour(stage, *[{"depth": 0}] * 60)
    stage.open(snapshot())
    expect(plot(stage, "ended")).to_have_attribute("viewBox", "0 0 60 100")


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_each_chart_fills_its_place_and_no_more(stage: Stage, width: int) -> None:
    stage.page.set_viewport_size({"width": width, "height": 900})
    play_hour(stage, *[{"completed": 3, "depth": 2, "p95_ms": 900}] * 60)
    stage.open(snapshot())
    expect(plot(stage, "ended")).to_have_attribute("viewBox", "0 0 60 100")
    for chart in ("ended", "depth", "p95"):
        box = plot(stage, chart).bounding_box()
        assert box
        assert 40 <= box["height"] <= 120
        assert width / 5 < box["width"] < width


def test_the_mouse_reads_one_minute_in_all_charts(stage: Stage) -> None:
    newest = {"completed": 8, "failed": 2, "depth": 5, "p95_ms": 61_000}
    minutes = play_hour(stage, *[{"depth": 0}] * 58, newest, {})
    stage.open(snapshot())
    expect(plot(stage, "ended")).to_have_attribute("viewBox", "0 0 60 100")
    box = plot(stage, "ended").bounding_box()
    assert box
    stage.page.mouse.move(box["x"] + box["width"] * 58.5 / 60, box["y"] + 5)
    note = stage.page.get_by_test_id("chart-note")
    time = stage.page.evaluate("(at) => new Date(at).toTimeString().slice(0, 5)", minutes[-2])
    expect(note).to_have_text(f"at {time}")
    for series, shown in (("completed", "8"), ("depth", "5"), ("p95", "1 min 1 s")):
        expect(stage.page.locator(f'[data-latest="{series}"]')).to_have_text(shown)
    stage.page.mouse.move(box["x"] + box["width"] * 59.5 / 60, box["y"] + 5)
    expect(note).to_contain_text("so far")
    stage.page.mouse.move(2, 2)
    expect(note).to_be_empty()


def test_a_day_is_counted_per_minute_too(stage: Stage) -> None:
    play_day(stage, completed=50, failed=5, depth=1, p95_ms=10)
    assert points(stage.page, "ended")["completed"] == [10] * 288
    expect(stage.page.locator('[data-latest="completed"]')).to_have_text("10")


@pytest.mark.parametrize(
    ("completed", "p95_ms", "ends"),
    [
        (2, 20, ("1", "20 ms")),  # 0.4 a minute
        (6, 3_100, ("2", "4 s")),
        (53, 1_100, ("15", "2 s")),
        (2_600, 61_000, ("600", "2 min")),
        (0, 0, ("", "")),
    ],
)
def test_axes_end_at_round_and_whole_numbers(
    stage: Stage, completed: int, p95_ms: int, ends: tuple[str, str]
) -> None:
    play_day(stage, completed=completed, depth=0, p95_ms=p95_ms)
    shown = [stage.page.locator(f'[data-chart="{chart}"] .end') for chart in ("ended", "p95")]
    assert tuple(end.text_content() for end in shown) == ends
