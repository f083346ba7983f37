"""`manage.py bench`: measure a hub of its own through its sockets, see docs/benchmarks.md."""

from __future__ import annotations

import json
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from lab.bench import crowd, depth, failover, fleets, floods, flow, page, servers, steering, wait
from lab.bench.report import (
    Result,
    against,
    command_line,
    comparison,
    differences,
    in_words,
    surroundings,
    table,
)
from lab.bench.scenario import Scenario, Stage
from lab.bench.worktree import worktree
from lab.harness.hub import SERVERS
from lab.kit.sockets import Failed

PARTS = (flow, wait, steering, depth, crowd, servers, failover, page, fleets, floods)
SCENARIOS = {scenario.name: scenario for part in PARTS for scenario in part.SCENARIOS}
FILES = 10_000  # sockets of the largest scenario, and some


class Command(BaseCommand):
    help = "Measures how fast the hub is: starts hubs of its own and puts load on them."
    requires_system_checks: list[str] = []  # the hubs check their own settings

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--scenario",
            action="append",
            choices=SCENARIOS,
            metavar="NAME",
            help=f"only this one; may be given again. One of: {', '.join(SCENARIOS)}",
        )
        parser.add_argument(
            "--webs",
            type=int,
            default=0,
            metavar="N",
            help="so many web processes and a worker (default: `manage.py hub`, one process)",
        )
        parser.add_argument(
            "--server", choices=SERVERS, default=SERVERS[0], help="of the hubs (%(default)s)"
        )
        parser.add_argument(
            "--compare", type=Path, metavar="FILE", help="set the figures beside an earlier --json"
        )
        parser.add_argument(
            "--against",
            metavar="COMMIT",
            help="measure the hub of this commit too, in turns, and set the figures beside its",
        )
        parser.add_argument(
            "--against-server",
            choices=SERVERS,
            default=SERVERS[0],
            help="of that commit's hubs (%(default)s)",
        )
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
        parser.add_argument(
            "--repeat", type=int, metavar="N", help="runs of each (default: 3; with --quick: 1)"
        )
        parser.add_argument(
            "--quick", action="store_true", help="small sizes, to see that it works; no figures"
        )

    def handle(self, **options: Any) -> None:
        _allow_many_sockets()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of the with-blocks
        about = surroundings(command_line(), options["webs"], options["server"])
        repeat = options["repeat"] or (1 if options["quick"] else 3)
        earlier = json.loads(options["compare"].read_text()) if options["compare"] else None
        measured = []  # for each scenario the results of each stage
        with _stages(options) as stages:
            for name in options["scenario"] or SCENARIOS:
                measured.append(self._measure(SCENARIOS[name], stages, repeat))
        results = [own for own, *_ in measured]
        self.stdout.write(f"\n{table(results)}\n")
        self.stdout.write("\n".join(f"{name}: {value}" for name, value in about.items()))
        if options["against"]:
            theirs = [other for _, other in measured]
            self.stdout.write(f"\n{against(options['against'], theirs, results)}")
        if earlier:
            changed = ["What is not the same:", *differences(earlier, about)]
            self.stdout.write(f"\n{comparison(earlier, results)}\n" + "\n  ".join(changed))
        if options["json"]:
            document = {
                "about": about,
                "quick": options["quick"],
                "repeat": repeat,
                "results": [result.as_json() for result in results],
            }
            options["json"].write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    def _measure(self, scenario: Scenario, stages: Sequence[Stage], repeat: int) -> list[Result]:
        """One result for each stage. They take turns, so that all see the same machine."""
        results = [Result(scenario) for _ in stages]
        for number in range(1, repeat + 1):
            self.stderr.write(f"{scenario.name} {number}/{repeat}: {scenario.says}")
            for stage, result in zip(stages, results, strict=True):
                if not result.failure:
                    self._play(stage, result)
        return results

    def _play(self, stage: Stage, result: Result) -> None:
        try:
            outcome = result.scenario.play(stage)
            result.outcomes.append(outcome)
            self.stderr.write(f"  {in_words(outcome.figures)}")
        except Failed as failed:
            self.stderr.write(f"{result.scenario.name} failed: {failed}")
            result.failure = str(failed)


@contextmanager
def _stages(options: dict[str, Any]) -> Iterator[list[Stage]]:
    """This checkout's, and with `--against` another commit's."""
    # Beside the data of a real hub: what a commit costs depends on the disk.
    with tempfile.TemporaryDirectory(
        prefix="bench-", dir=settings.AGENTCOM_DATA_DIR, ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        size = (options["quick"], options["webs"])
        own = Stage(folder / "own", *size, options["server"])
        if not options["against"]:
            yield [own]
            return
        try:
            with worktree(options["against"], folder / "worktree") as root:
                yield [own, Stage(folder / "other", *size, options["against_server"], root)]
        except Failed as failed:
            raise CommandError(str(failed)) from None


def _allow_many_sockets() -> None:
    """For this process and, inherited, for the hubs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
