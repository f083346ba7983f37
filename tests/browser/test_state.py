"""state.js: a snapshot and the patches after it make the snapshot that the hub has now."""

from __future__ import annotations

from itertools import pairwise
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser

from tests.browser.snapshots import agent, completion, dead_letter, lost_agent, snapshot
from tests.browser.stage import ADDRESS, Stage

FOLD = """async ([snapshot, frames]) => {
  const { fromSnapshot, withPatch } = await import("/static/dashboard/state.js");
  return frames.reduce(withPatch, fromSnapshot(snapshot));
}"""

# Few ids, so that they meet; some beyond U+FFFF, which JavaScript by itself would sort wrongly.
ids = st.sampled_from(["a", "a-1", "B", "é", "\uffee", "\U0001f680"])
moments = st.integers(0, 3)
ROWS = {
    "agents": ("agent_id", st.builds(agent, ids, fsm_state=st.sampled_from(["idle", "working"]))),
    "offline_agents": ("agent_id", st.builds(lost_agent, ids, last_seen=moments)),
    "dead_letter_tasks": ("id", st.builds(dead_letter, ids, failed_at=moments)),
    "recent_completions": ("task_id", st.builds(completion, ids, completed_at=moments)),
}
NEWEST = {"dead_letter_tasks": "failed_at", "recent_completions": "completed_at"}


@st.composite
def snapshots(draw: st.DrawFn) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for section, (key, rows) in ROWS.items():
        found = draw(st.lists(rows, max_size=4, unique_by=itemgetter(key)))
        found.sort(key=itemgetter(key))
        if section in NEWEST:
            found.sort(key=itemgetter(NEWEST[section]), reverse=True)
        sections[section] = found
    sections["throughput"] = {"completed_last_hour": draw(moments)}
    return snapshot(**sections)


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The `data` of a patch, as docs/protocol/viewers.md has it."""
    data = {k: v for k, v in new.items() if k not in ROWS and v != old[k]}
    for section, (key, _) in ROWS.items():
        before = {row[key]: row for row in old[section]}
        after = {row[key]: row for row in new[section]}
        upsert = [row for id, row in after.items() if before.get(id) != row]
        remove = [id for id in before if id not in after]
        if upsert or remove:
            data[section] = {"upsert": upsert, "remove": remove}
    return data


@pytest.fixture(scope="module")
def fold(browser: Browser) -> Any:
    page = browser.new_page()
    Stage(page)
    page.goto(f"{ADDRESS}/static/dashboard/state.js")
    yield lambda first, frames: page.evaluate(FOLD, [first, frames])
    page.close()


@settings(deadline=None, max_examples=100)
@given(shots=st.lists(snapshots(), min_size=1, max_size=4))
def test_snapshot_and_patches_make_the_newest_snapshot(
    fold: Any, shots: list[dict[str, Any]]
) -> None:
    for seq, shot in enumerate(shots):
        shot["seq"] = seq
    frames = [
        {"type": "patch", "seq": new["seq"], "data": difference(old, new)}
        for old, new in pairwise(shots)
    ]
    assert fold(shots[0], frames) == shots[-1]


def test_a_patch_older_than_the_snapshot_changes_nothing(fold: Any) -> None:
    now = snapshot(seq=9, agents=[agent("a")])
    late = {"type": "patch", "seq": 8, "data": {"agents": {"upsert": [], "remove": ["a"]}}}
    assert fold(now, [late]) == now


def test_a_hub_that_names_no_lost_agents_has_none(fold: Any) -> None:
    bare = snapshot()
    del bare["offline_agents"]
    assert fold(bare, []) == snapshot()
