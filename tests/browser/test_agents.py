"""The table of agents: sorted, filtered, links, and of many only what is visible is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from lab.harness.hub import Hub
from tests.browser.snapshots import MINUTE, NOW, agent, condition, health, lost_agent, snapshot
from tests.browser.stage import Stage
from tests.browser.worker import Worker

FLEET = [
    agent("a-1", name="Zoe", fsm_state="working", current_task_id="task-00000000000000aa"),
    agent("b-2", fsm_state="idle", capabilities=["review"], completed_this_hour=12),
    agent("c-3", fsm_state="blocked", completed_this_hour=3, failed_this_hour=1),
]


def listed(stage: Stage) -> list[str | None]:
    rows = stage.page.get_by_test_id("agent").all()
    return [row.get_attribute("data-agent") for row in rows]


def head(stage: Stage, name: str) -> Locator:
    return stage.page.get_by_test_id("agents").get_by_role("button", name=name, exact=True)


def column(stage: Stage, name: str) -> Locator:
    return stage.page.get_by_test_id("agents").get_by_role("columnheader", name=name)


def test_is_sorted_by_a_column_and_back(stage: Stage) -> None:
    stage.open(snapshot(agents=FLEET, offline_agents=[lost_agent("d-4")]))
    assert listed(stage) == ["b-2", "c-3", "d-4", "a-1"]  # by name
    head(stage, "State").click()
    assert listed(stage) == ["c-3", "d-4", "a-1", "b-2"]  # what wants an eye first
    expect(column(stage, "State")).to_have_attribute("aria-sort", "ascending")
    head(stage, "Done/h").click()
    assert listed(stage)[:2] == ["b-2", "c-3"]
    expect(column(stage, "Done/h")).to_have_attribute("aria-sort", "descending")
    head(stage, "Done/h").click()
    assert listed(stage)[2:] == ["c-3", "b-2"]


def test_tasks_are_called_by_their_titles_and_found_by_their_ids(stage: Stage) -> None:
    holding = [
        agent("a-1", current_task_id="task-00000000000000aa", current_task_title="Write a poem"),
        agent("b-2", current_task_id="task-00000000000000bb", current_task_title="draw a map"),
    ]
    gone = lost_agent("d-4", current_task_id="task-00000000000000cc", current_task_title="Count")
    stage.open(snapshot(agents=[*holding, agent("c-3")], offline_agents=[gone]))
    table = stage.page.get_by_test_id("agents")
    links = table.locator(".task").get_by_role("link")
    expect(links).to_have_text(["Write a poem", "draw a map", "Count"])
    expect(table).not_to_contain_text("task-")
    expect(links.first).to_have_attribute("href", "?task=task-00000000000000aa")
    head(stage, "Task").click()
    assert listed(stage) == ["c-3", "d-4", "b-2", "a-1"]
    for words, found in (("a POEM", ["a-1"]), ("00bb", ["b-2"])):
        stage.page.get_by_role("searchbox", name="Filter agents").fill(words)
        assert listed(stage) == found


def test_stays_sorted_while_things_happen(stage: Stage) -> None:
    stage.open(snapshot(agents=FLEET))
    head(stage, "State").click()
    stage.patch(4712, agents={"upsert": [agent("b-2", fsm_state="blocked")], "remove": []})
    assert listed(stage) == ["b-2", "c-3", "a-1"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("zoe", ["a-1"]),
        ("REVIEW idle", ["b-2"]),
        ("00aa", ["a-1"]),
        ("offline", ["d-4"]),
        ("nobody", []),
    ],
)
def test_is_filtered_by_every_word(stage: Stage, words: str, found: list[str]) -> None:
    stage.open(snapshot(agents=FLEET, offline_agents=[lost_agent("d-4")]))
    stage.page.get_by_role("searchbox", name="Filter agents").fill(words)
    assert listed(stage) == found
    expect(stage.page.locator("#agents-summary")).to_have_text(f"{len(found)} of 4")
    expect(stage.page.locator("#agents-none-match")).to_be_visible(visible=not found)


def test_a_state_in_the_header_lists_its_agents(stage: Stage) -> None:
    stage.open(snapshot(agents=FLEET))
    stage.page.get_by_test_id("fleet").get_by_role("button", name="blocked").click()
    assert listed(stage) == ["c-3"]


def test_a_condition_leads_to_its_agent(stage: Stage) -> None:
    lost = health("warning", condition(subjects=["d-4"]))
    stage.open(snapshot(agents=FLEET, offline_agents=[lost_agent("d-4")], health=lost))
    stage.page.get_by_test_id("health").locator("summary").click()
    stage.page.get_by_test_id("conditions").get_by_role("link", name="d-4").click()
    assert listed(stage) == ["d-4"]
    expect(stage.page.get_by_test_id("conditions")).to_be_hidden()


def test_tells_what_an_agent_did(stage: Stage) -> None:
    stage.open(snapshot(agents=[agent(last_seen=NOW - MINUTE, completed_this_hour=1234)]))
    row = stage.page.get_by_test_id("agent")
    expect(row.locator("[data-field=completed]")).to_have_text("1,234")
    expect(row.locator("[data-field=failed]")).to_have_text("–")  # an older hub does not say
    expect(row.locator("[data-field=seen]")).to_have_text("1 min")


def test_of_thousands_only_what_is_visible_is_in_the_document(stage: Stage) -> None:
    stage.open(snapshot(agents=[agent(f"agent-{number:04}") for number in range(5000)]))
    rows = stage.page.get_by_test_id("agent")
    assert rows.count() < 60
    table = stage.page.locator("#agents-table")
    expect(table.locator("table")).to_have_attribute("aria-rowcount", "5001")
    table.evaluate("(box) => { box.scrollTop = box.scrollHeight }")
    last = stage.page.locator('[data-agent="agent-4999"]')
    expect(last).to_be_in_viewport()
    expect(last).to_have_attribute("aria-rowindex", "5001")
    assert rows.count() < 60
    stage.page.get_by_role("searchbox", name="Filter agents").fill("agent-0007")
    expect(stage.page.locator('[data-agent="agent-0007"]')).to_be_in_viewport()


def test_forgetting_says_what_came_of_it(stage: Stage) -> None:
    stage.open(snapshot(offline_agents=[lost_agent("d-4")]))
    stage.page.get_by_role("button", name="Forget d-4").click()
    asked = {"type": "forget_agent", "agent_id": "d-4"}
    stage.send(type="forget_result", agent_id="d-4", status="agent_holds_task")
    expect(stage.page.locator("#forget-note")).to_contain_text("d-4: Not forgotten")
    stage.page.get_by_role("button", name="Forget d-4").click()
    stage.send(type="forget_result", agent_id="d-4", status="forgotten")
    expect(stage.page.get_by_test_id("announcement")).to_contain_text("d-4: Forgotten.")
    assert [message for message in stage.heard if message == asked] == [asked, asked]


def test_who_lacks_the_permission_to_forget_is_told_so(stage: Stage) -> None:
    stage.open(snapshot(offline_agents=[lost_agent("d-4")]))
    stage.page.get_by_role("button", name="Forget d-4").click()
    stage.send(type="forget_result", agent_id="d-4", status="forbidden", detail="…")
    expect(stage.page.locator("#forget-note")).to_have_text(
        "d-4: Your account lacks the permission for this."
    )


def test_a_lost_agent_is_forgotten_at_a_real_hub(page: Page, hub: Hub) -> None:
    page.goto(f"{hub.url}/dashboard")
    with Worker(hub, "lost-1"):
        row = page.locator('[data-agent="lost-1"]')
        expect(row).to_have_attribute("data-state", "idle")
    expect(row).to_have_attribute("data-state", "offline")
    page.get_by_role("button", name="Forget lost-1").click()
    expect(row).to_have_count(0)


def test_the_empty_table_teaches_what_the_readme_does(stage: Stage) -> None:
    readme = Path(__file__).parents[2].joinpath("README.md").read_text()
    steps = [block.partition("```")[0] for block in readme.split("```sh\n")[1:3]]
    stage.open(snapshot())
    shown = stage.page.get_by_test_id("agents-empty").locator("pre").all_inner_texts()
    wanted = [step.replace("127.0.0.1:4000", "hub.test").strip() for step in steps]
    assert [text.strip() for text in shown] == wanted
