"""What torture plans and what it would notice. That it runs is in tests/flow/test_torture.py."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from lab.harness.hub import Ended, Server
from lab.torture import ledger as promises
from lab.torture.ledger import Assignment, Ledger
from lab.torture.plan import Parts, order, plan
from lab.torture.truth import BOUND_S, JUMPED, OFFLINE, Truth, untold

PARTS = Parts(
    webs=["web-0", "web-1"],
    workers=["worker-0", "worker-1"],
    stores=["postgresql", "redis"],
    agents=[f"agent-{number}" for number in range(30)],
    viewers=["viewer-0", "viewer-1"],
)
GIVEN = Assignment("task-1", 1, "agent-1")


def snapshot(**changes):
    queue = {"by_status": {"queued": 1}, "by_priority": {"0": 1}, "dead_letter": 0}
    lists: dict[str, list[Any]] = {"agents": [], "dead_letter_tasks": [], "recent_completions": []}
    return {"seq": 7, "queue": queue, **lists, **changes}


def broken(ledger: Ledger) -> bool:
    return ledger.broken is not None


def test_the_same_seed_does_the_same():
    assert plan(1, 60, PARTS) == plan(1, 60, PARTS)
    assert plan(1, 60, PARTS) != plan(2, 60, PARTS)
    assert order(1, "submitter-0/5") == order(1, "submitter-0/5")


def test_acts_on_one_part_do_not_overlap_and_end_in_time():
    acts = plan(1, 600, PARTS)

    by_subject = defaultdict(list)
    for act in acts:
        by_subject[act.subject].append(act)
        assert act.at_s + act.lasts_s <= 600
    for own in by_subject.values():
        for earlier, later in itertools.pairwise(own):
            assert earlier.at_s + earlier.lasts_s < later.at_s


def test_nobody_is_spared():
    hurt = {(act.subject, act.kind) for act in plan(1, 1800, PARTS)}

    for process in (*PARTS.webs, *PARTS.workers):
        assert {(process, kind) for kind in ("kill", "restart", "freeze")} <= hurt
    for store in PARTS.stores:
        assert {(store, kind) for kind in ("cut", "refuse", "stall")} <= hurt
    assert {subject for subject, _ in hurt} >= {*PARTS.agents, *PARTS.viewers, "all workers"}
    assert {("clock", "jump forward"), ("clock", "jump back")} <= hurt


def test_what_is_wrong_for_long_must_be_told_by_the_light():
    truth = Truth()
    truth.begins(OFFLINE, "agent-1", now=100)
    assert truth.must_be_told(now=100 + BOUND_S - 0.1) == set()
    wrong = truth.must_be_told(now=100 + BOUND_S)
    assert wrong == {(OFFLINE, "agent-1")}

    def light(*codes: str) -> dict[str, Any]:
        return {"details": [{"code": code} for code in codes]}

    assert untold(wrong, light()) == untold(wrong, light(JUMPED)) == ["agent_offline: agent-1"]
    assert untold(wrong, light(OFFLINE)) == untold(wrong, light("worker_silent")) == []
    truth.ends(OFFLINE, "agent-1")
    assert truth.must_be_told(now=200) == set()


def test_the_light_has_time_after_what_was_done_to_the_hub():
    truth = Truth()
    truth.begins(JUMPED, "clock", now=0)
    with truth.disturbed():
        assert truth.must_be_told(now=time.monotonic() + 100) == set()
    assert truth.must_be_told(now=time.monotonic()) == set()
    truth.begins(JUMPED, "clock")
    assert truth.must_be_told(now=time.monotonic() + BOUND_S) == {(JUMPED, "clock")}


@pytest.mark.parametrize(
    ("pushes", "accepts", "promise"),
    [
        ([GIVEN, Assignment("task-1", 1, "agent-2")], [], promises.HANDED),
        ([GIVEN, GIVEN], [GIVEN], promises.HANDED),
        ([GIVEN, GIVEN], [], None),  # over another connection, for it had never accepted
        ([GIVEN, Assignment("task-1", 3, "agent-2")], [GIVEN], None),
    ],
)
def test_notices_what_is_handed_out_twice(pushes, accepts, promise):
    first, then = pushes
    ledger = Ledger()
    ledger.pushed(first, set())
    for given in accepts:
        ledger.acked("accepted", given)
    ledger.pushed(then, set())

    assert (ledger.broken and ledger.broken.promise) == promise


def test_notices_a_second_push_over_one_connection():
    ledger = Ledger()
    ledger.pushed(GIVEN, set())
    ledger.pushed(GIVEN, {GIVEN})

    assert ledger.broken
    assert ledger.broken.promise == promises.HANDED


def test_notices_another_answer_to_the_same_key():
    ledger = Ledger()
    ledger.submitted("key", ["task-1"])
    ledger.submitted("key", ["task-1"])
    assert not broken(ledger)
    ledger.submitted("key", ["task-2"])

    assert ledger.broken
    assert ledger.broken.promise == promises.LOST


def test_notices_two_pictures_of_one_moment():
    ledger = Ledger()
    ledger.saw(snapshot())
    ledger.saw(snapshot(uptime_ms=5))
    assert not broken(ledger)
    ledger.saw(snapshot(recent_completions=[{"task_id": "x", "agent_id": "y", "completed_at": 1}]))

    assert ledger.broken
    assert ledger.broken.promise == promises.PATCHES
    assert "recent_completions" in ledger.broken.evidence


def test_a_process_that_ended_before_it_was_looked_at_has_no_memory(tmp_path: Path):
    server = Server([sys.executable, "-c", ""], {}, tmp_path / "server.log")
    server.launch()
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(Ended):
        _ = server.resident_kb
    assert not server.is_running
