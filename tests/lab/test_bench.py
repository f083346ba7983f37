"""`manage.py bench`: that it measures and reports. What it measures is for docs/benchmarks.md."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.bench.report import Result, against, comparison, differences, table
from lab.bench.scenario import Bar, Cpu, Outcome, Scenario, percentile, run
from lab.bench.worktree import git
from lab.kit.sockets import Failed, frame

pytestmark = pytest.mark.sqlite_only

ROOT = Path(__file__).resolve().parent.parent.parent
CPU = Cpu(wall_s=2.0, hub_s=1.0, client_s=0.5, others_s=0.0)


def result_of(*values: float, bar: Bar) -> Result:
    scenario = Scenario("example", "an example", [bar], play=lambda stage: outcomes[0])
    outcomes = [Outcome({bar.figure: value}, CPU) for value in values]
    return Result(scenario, outcomes)


def test_measures_a_hub_of_its_own_and_writes_what_came_out(tmp_path):
    file = tmp_path / "figures.json"
    data_dir = tmp_path / "data"
    done = subprocess.run(
        [sys.executable, "manage.py", "bench", "--quick", "--scenario", "latency", "--json", file],
        cwd=ROOT,
        env={"AGENTCOM_DATA_DIR": str(data_dir), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert "| latency " in done.stdout
    document = json.loads(file.read_text())
    assert document["quick"] is True
    assert {"cpu", "cores", "python", "django", "database", "commit", "command"} <= document[
        "about"
    ].keys()
    [result] = document["results"]
    assert result["scenario"] == "latency"
    assert result["failure"] == ""
    assert 0 < result["figures"]["p50 ms"] <= result["figures"]["p99 ms"]
    assert [bar["bar"] for bar in result["bars"]] == ["p50 ms ≤ 20", "p99 ms ≤ 100"]
    assert result["cpu"]["wall_s"] > 0
    assert not list(data_dir.glob("bench-*")), "the hubs' folders are gone"


def bench(data_dir: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "manage.py", "bench", "--quick", *arguments],
        cwd=ROOT,
        env={"AGENTCOM_DATA_DIR": str(data_dir), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def checkouts_in(data_dir: Path) -> list[str]:
    return [path for path in git("worktree", "list").splitlines() if str(data_dir) in path]


def test_measures_another_commit_in_turns_and_sets_its_figures_beside(tmp_path):
    done = bench(tmp_path, "--scenario", "pipeline", "--against", "HEAD")
    out, complaints = done.communicate(timeout=120)

    assert done.returncode == 0, complaints
    assert "| now/HEAD" in out
    assert "| pipeline | hub CPU ms/task |" in out
    assert checkouts_in(tmp_path) == []


def test_the_other_commit_is_gone_after_ctrl_c(tmp_path):
    running = bench(tmp_path, "--scenario", "pipeline", "--against", "HEAD")
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("pipeline 1/1"):
            break
    assert len(checkouts_in(tmp_path)) == 1
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)

    assert running.returncode != 0
    assert checkouts_in(tmp_path) == []
    assert not list(tmp_path.glob("bench-*"))


def test_says_when_there_is_no_such_commit(tmp_path):
    done = bench(tmp_path, "--scenario", "pipeline", "--against", "no-such-commit")

    assert "no-such-commit is no commit" in done.communicate(timeout=60)[1]
    assert done.returncode == 1


def test_another_commit_that_fails_is_named():
    theirs = result_of(300, bar=Bar("tasks/s"))
    theirs.failure = "The hub ended as it began."

    assert "abc: example failed: The hub ended" in against("abc", [theirs], [])


def test_gives_the_median_of_the_repeats():
    assert result_of(300, 100, 200, bar=Bar("tasks/s", at_least=150)).figures == {"tasks/s": 200}


@pytest.mark.parametrize(
    ("bar", "value", "met"),
    [
        (Bar("ms", at_most=20), 20, True),
        (Bar("ms", at_most=20), 20.1, False),
        (Bar("tasks/s", at_least=300), 300, True),
        (Bar("tasks/s", at_least=300), 299, False),
    ],
)
def test_says_whether_a_bar_is_met(bar, value, met):
    assert result_of(value, bar=bar).is_met is met


def test_a_repeat_that_failed_leaves_no_figures():
    result = result_of(300, bar=Bar("tasks/s", at_least=150))
    result.failure = "not done within 180 s\nand more"

    assert result.figures == {}
    assert not result.is_met
    assert "| not done within 180 s |" in table([result])


def test_sets_figures_beside_earlier_ones_and_says_what_else_differs():
    earlier = {
        "about": {"database": "SQLite", "commit": "abc", "cores": 2},
        "results": [{"scenario": "example", "figures": {"tasks/s": 200}}],
    }
    about = {"database": "PostgreSQL", "commit": "def", "cores": 2}

    row = comparison(earlier, [result_of(300, bar=Bar("tasks/s"))]).splitlines()[-1]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        *("example", "tasks/s", "200", "300", "× 1.50")
    ]
    assert differences(earlier, about) == ["database: SQLite → PostgreSQL", "commit: abc → def"]


def test_a_figure_that_is_missing_meets_no_bar():
    assert not Bar("ms", at_most=20).is_met({})


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.95, 95), (0.99, 99), (1, 100)])
def test_percentiles_are_values_that_were_seen(share, value):
    assert percentile(list(range(100, 0, -1)), share) == value


@pytest.mark.parametrize(("size", "head"), [(125, 2), (126, 4), (65_535, 4), (65_536, 10)])
def test_a_client_frame_has_the_right_length(size, head):
    mask = 4
    assert len(frame(1, b"x" * size)) == head + mask + size


def test_a_scenario_that_takes_too_long_is_ended():
    with pytest.raises(Failed, match=r"not done within 0\.01 s"):
        run(asyncio.sleep(60), within_s=0.01)


def test_a_scenario_ends_with_the_first_thing_that_a_client_did_not_expect():
    async def wait_for_ever() -> None:
        asyncio.get_running_loop().call_soon(answer)
        await asyncio.Event().wait()

    def answer() -> None:
        raise Failed("agent-1: invalid_message")

    with pytest.raises(Failed, match="agent-1: invalid_message"):
        run(wait_for_ever(), within_s=60)
