"""The page by itself: what it shows of a snapshot, of patches, and of texts that would harm it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from dashboard.templatetags import dashboard as filters
from tests.browser.snapshots import (
    MINUTE,
    NOW,
    agent,
    by_state,
    completion,
    condition,
    dead_letter,
    health,
    lost_agent,
    queue,
    snapshot,
)
from tests.browser.stage import ADDRESS, Stage

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\" ' & שלום 🚀"
WRITTEN = """async (numbers) => {
  const format = await import("/static/dashboard/format.js");
  const writers = [format.span, format.duration, format.count, format.figure];
  return numbers.map((number) => writers.map((write) => write(number)));
}"""


def chips(stage: Stage) -> list[str]:
    subjects = stage.page.get_by_test_id("condition").locator("[data-field=subjects] li")
    return subjects.all_text_contents()


def busy() -> dict[str, Any]:
    offline = condition()
    failing = condition(code="high_failure_rate", severity="critical", message="Most fail")
    return snapshot(
        health=health("critical", offline, failing | {"subjects": [f"task-{n}" for n in range(9)]}),
        agents=[
            agent("reader-1", fsm_state="working", current_task_id="task-1", capabilities=[]),
            agent("writer-1", name="The writer", capabilities=["write", "translate"]),
        ],
        offline_agents=[lost_agent(current_task_id="task-7")],
        queue=queue((3, 41, 1180, 88), assigned=1, completed=1_254_321, dead_letter=102),
        dead_letter_tasks=[dead_letter(), dead_letter("task-2", last_error="e" * 5000)],
        recent_completions=[completion(), completion("task-3", duration_ms=4_000_000)],
        throughput={
            "completed_last_hour": 4213,
            "avg_completion_ms": 2350,
            "total_tokens_hour": 18_213_455,
        },
    )


@pytest.mark.parametrize("shown", [snapshot(), busy()], ids=["empty", "busy"])
def test_the_server_paints_what_the_scripts_paint(
    browser: Browser, stage: Stage, shown: dict[str, Any]
) -> None:
    """So it is useful before they run, and nothing jumps when they do."""
    context = browser.new_context(java_script_enabled=False, viewport=stage.page.viewport_size)
    still = Stage(context.new_page())
    still.snapshot = shown
    still.page.goto(f"{ADDRESS}/dashboard")
    painted = still.page.inner_text("main").replace("127.0.0.1:4000", "hub.test")
    light = still.page.inner_text(".health")
    context.close()

    stage.open(shown)

    assert stage.page.inner_text("main") == painted
    assert stage.page.inner_text(".health") == light


def test_figures_are_written_alike_by_server_and_scripts(stage: Stage) -> None:
    stage.open(snapshot())
    draw = random.Random(1)
    numbers = [0, 999, 1000, 59_999, 60_000, 999_999, 1_000_000, 9_999_999, 10_000_000]
    numbers += [int(10 ** draw.uniform(0, 11)) for _ in range(500)]
    writers = (filters.span, filters.duration, filters.count, filters.figure)
    assert stage.page.evaluate(WRITTEN, numbers) == [[as_(n) for as_ in writers] for n in numbers]


def test_patches_change_only_what_they_name(stage: Stage) -> None:
    stage.open(snapshot(agents=[agent("a"), agent("c")]))
    rows = stage.page.get_by_test_id("agent")
    rows.first.evaluate("(row) => { row.mark = 'the same element' }")

    working = agent("c", fsm_state="working", current_task_id="task-5")
    stage.patch(4712, agents={"upsert": [agent("b"), working], "remove": []})

    assert [row.get_attribute("data-agent") for row in rows.all()] == ["a", "b", "c"]
    assert rows.first.evaluate("(row) => row.mark") == "the same element"
    expect(rows.last).to_contain_text("task-5")
    none = {"upsert": [], "remove": ["a", "b", "c"]}
    stage.patch(4713, agents=none, agents_by_state=by_state([], []))
    expect(stage.page.get_by_test_id("agents-empty")).to_be_visible()


def test_health_is_shown_and_announced(stage: Stage) -> None:
    stage.open(snapshot())
    expect(stage.page.get_by_test_id("announcement")).to_be_empty()
    stage.patch(4712, health=health("warning", condition(message="1 agent is offline")))
    expect(stage.page.get_by_test_id("health")).to_contain_text("warning")
    expect(stage.page.get_by_test_id("condition")).to_contain_text("1 agent is offline")
    expect(stage.page.get_by_test_id("announcement")).to_contain_text("1 agent is offline")
    expect(stage.page).to_have_title("(1) warning · AgentCom")
    # A new number in the same condition is no news for the ear.
    stage.patch(4713, health=health("warning", condition(message="2 agents are offline")))
    expect(stage.page.get_by_test_id("condition")).to_contain_text("2 agents are offline")
    expect(stage.page.get_by_test_id("announcement")).not_to_contain_text("2 agents")


def test_a_condition_links_whom_it_concerns(stage: Stage) -> None:
    task_id = "task-00000000000000aa"
    stage.open(snapshot(health=health("warning", condition(subjects=["a-1", task_id]))))
    stage.page.get_by_test_id("health").locator("summary").click()
    expect(stage.page.get_by_role("link", name=task_id)).to_have_attribute(
        "href", f"?task={task_id}"
    )
    holder = agent(current_task_id=task_id, current_task_title="say hello")
    stage.open(snapshot(health=health("warning", condition(subjects=[task_id])), agents=[holder]))
    assert chips(stage) == ["say hello"]
    many = condition(subjects=[f"task-{number}" for number in range(9)])
    stage.patch(4712, health=health("warning", many))
    assert chips(stage) == [*(f"task-{number}" for number in range(8)), "and 1 more"]


def test_a_condition_links_webhooks_to_the_admin(stage: Stage) -> None:
    webhook = "hook-00000000000000aa"
    stage.open(snapshot(health=health("warning", condition(subjects=[webhook]))))
    stage.page.get_by_test_id("health").locator("summary").click()
    link = stage.page.get_by_role("link", name=webhook)
    expect(link).to_have_attribute("href", f"admin/webhooks/endpoint/{webhook}/change/")
    assert link.get_attribute("data-show-agents") is None


def test_texts_full_of_markup_stay_texts(stage: Stage) -> None:
    long = HOSTILE + "x" * 16_384
    hostile = snapshot(
        health=health("warning", condition(message=HOSTILE, subjects=[HOSTILE])),
        agents=[agent(HOSTILE, name=HOSTILE, capabilities=[HOSTILE])],
        offline_agents=[lost_agent(HOSTILE)],
        dead_letter_tasks=[dead_letter(HOSTILE, description=long, last_error=long)],
        recent_completions=[completion(HOSTILE, description=long, agent_id=HOSTILE)],
    )
    stage.open(hostile)
    stage.page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    stage.patch(4712, agents={"upsert": [agent("z", name=HOSTILE)], "remove": []})

    assert stage.page.locator("main img, main script").count() == 0
    for part in ("agent", "dead-letter", "completion", "condition"):
        expect(stage.page.get_by_test_id(part).first).to_contain_text(HOSTILE)
    assert no_sideways_scroll(stage.page)


@pytest.mark.parametrize("width", [360, 820, 1440])
@pytest.mark.parametrize("shown", [snapshot(), busy()], ids=["empty", "busy"])
def test_nothing_scrolls_sideways(stage: Stage, width: int, shown: dict[str, Any]) -> None:
    stage.page.set_viewport_size({"width": width, "height": 900})
    stage.open(shown)
    assert no_sideways_scroll(stage.page)


def test_ages_follow_the_hubs_clock(stage: Stage) -> None:
    """The snapshot's clock and the browser's are far apart here; the ages know only the hub's."""
    stage.open(snapshot(recent_completions=[completion(completed_at=NOW - 9 * MINUTE)]))
    expect(stage.page.get_by_test_id("completion")).to_contain_text("9 min ago")


def no_sideways_scroll(page: Page) -> bool:
    fits: bool = page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    return fits
