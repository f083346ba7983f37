"""What came out: a table for people, JSON for whoever compares."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import django
import psycopg

from lab.bench.scenario import Cpu, Figures, Outcome, Scenario
from lab.bench.worktree import git
from lab.harness.store import on_postgresql

CODE = (
    "agentcom",
    "counters",
    "dashboard",
    "fleet",
    "lab",
    "metrics",
    "tasks",
    "webhooks",
    "worker",
)
HEADINGS = ("scenario", "figures", "bars", "met", "processor: hub · client · others")


@dataclass
class Result:
    """A scenario's repeats. Figures are medians; when one repeat failed, there are none."""

    scenario: Scenario
    outcomes: list[Outcome] = field(default_factory=list)
    failure: str = ""

    @property
    def figures(self) -> Figures:
        if self.failure or not self.outcomes:
            return {}
        return {name: statistics.median(self._runs(name)) for name in self.outcomes[0].figures}

    @property
    def is_met(self) -> bool:
        return all(bar.is_met(self.figures) for bar in self.scenario.bars)

    @property
    def cpu(self) -> Cpu:
        """Of all repeats together."""
        parts = [asdict(outcome.cpu) for outcome in self.outcomes]
        return Cpu(*(sum(part[name] for part in parts) for name in Cpu.__dataclass_fields__))

    def _runs(self, name: str) -> list[float]:
        return [outcome.figures[name] for outcome in self.outcomes]

    def as_json(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario.name,
            "says": self.scenario.says,
            "figures": self.figures,
            "runs": [outcome.figures for outcome in self.outcomes],
            "bars": [{"bar": str(b), "met": b.is_met(self.figures)} for b in self.scenario.bars],
            "met": self.is_met,
            "failure": self.failure,
            "cpu": asdict(self.cpu),
        }

    def as_row(self) -> tuple[str, ...]:
        figures = in_words(self.figures)
        cpu, wall_s = self.cpu, self.cpu.wall_s or 1.0
        shares = (f"{100 * s / wall_s:.0f} %" for s in (cpu.hub_s, cpu.client_s, cpu.others_s))
        return (
            self.scenario.name,
            self.failure.partition("\n")[0] or figures,
            "; ".join(map(str, self.scenario.bars)),
            "yes" if self.is_met else "NO",
            " · ".join(shares),
        )


def in_words(figures: Figures) -> str:
    return "; ".join(f"{name} {_short(value)}" for name, value in figures.items())


def table(results: Sequence[Result]) -> str:
    """In Markdown, so that it can be kept."""
    return _markdown(HEADINGS, [result.as_row() for result in results])


def _markdown(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [
        "| " + " | ".join(map(str.ljust, row, widths)) + " |"
        for row in (headings, tuple("-" * width for width in widths), *rows)
    ]
    return "\n".join(lines)


def surroundings(command: str, webs: int = 0, server: str = "daphne") -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "django": django.get_version(),
        "hub": f"{webs} web processes and a worker" if webs else "one process",
        "server": server,
        "database": _database(),
        "commit": _commit(),
        "command": command,
        "load_before": round(os.getloadavg()[0], 2),
    }


def command_line() -> str:
    return "manage.py " + " ".join(sys.argv[1:])


def comparison(earlier: dict[str, Any], results: Sequence[Result], called: str = "earlier") -> str:
    """Each figure beside the one of an earlier `--json` file, in Markdown."""
    before = {result["scenario"]: result["figures"] for result in earlier["results"]}
    rows = [
        (result.scenario.name, name, _short(was), _short(value), f"× {value / was:.2f}")
        for result in results
        for name, value in result.figures.items()
        if (was := before.get(result.scenario.name, {}).get(name))
    ]
    return _markdown(("scenario", "figure", called, "now", f"now/{called}"), rows)


def against(commit: str, theirs: Sequence[Result], ours: Sequence[Result]) -> str:
    """Each figure beside that of another commit, which was measured in turns with this one."""
    earlier = {"results": [result.as_json() for result in theirs]}
    failed = [
        f"{commit}: {result.scenario.name} failed: {result.failure}"
        for result in theirs
        if result.failure
    ]
    return "\n".join([comparison(earlier, ours, commit), *failed])


def differences(earlier: dict[str, Any], about: dict[str, Any]) -> list[str]:
    """Why the two may not be comparable: whatever of their surroundings is not the same."""
    was = earlier["about"]
    return [
        f"{name}: {was.get(name)} → {value}"
        for name, value in about.items()
        if name not in ("command", "load_before") and was.get(name) != value
    ]


def _database() -> str:
    if not on_postgresql():
        return f"SQLite {sqlite3.sqlite_version}, WAL, synchronous=FULL"
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        version, commit = (
            connection.execute(f"SHOW {name}").fetchone()[0]  # type: ignore[index]
            for name in ("server_version", "synchronous_commit")
        )
    redis = "Redis" if os.environ.get("REDIS_URL") else "no Redis"
    return f"PostgreSQL {version.partition(' ')[0]}, synchronous_commit={commit}, {redis}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gb() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)


def _commit() -> str:
    """Of the checkout, with a note when the code differs from it; empty without Git."""
    try:
        commit = git("rev-parse", "--short", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit} and changes" if changed else commit
