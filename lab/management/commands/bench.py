"""`manage.py bench`: measure a hub of its own through its sockets, see docs/benchmarks.md."""

from __future__ import annotations

import json
import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from lab.bench import crowd, depth, failover, fleets, flow, page, servers, steering, wait
from lab.bench.report import Result, command_line, comparison, differences, surroundings, table
from lab.bench.scenario import Scenario, Stage
from lab.harness.hub import SERVERS
from lab.kit.sockets import Failed

PARTS = (flow, wait, steering, depth, crowd, servers, failover, page, fleets)
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
        results = []
        # Beside the data of a real hub: what a commit costs depends on the disk.
        with tempfile.TemporaryDirectory(
            prefix="bench-", dir=settings.AGENTCOM_DATA_DIR, ignore_cleanup_errors=True
        ) as folder:
            stage = Stage(Path(folder), options["quick"], options["webs"], options["server"])
            for name in options["scenario"] or SCENARIOS:
                results.append(self._measure(SCENARIOS[name], stage, repeat))
        self.stdout.write(f"\n{table(results)}\n")
        self.stdout.write("\n".join(f"{name}: {value}" for name, value in about.items()))
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

    def _measure(self, scenario: Scenario, stage: Stage, repeat: int) -> Result:
        result = Result(scenario)
        for number in range(1, repeat + 1):
            self.stderr.write(f"{scenario.name} {number}/{repeat}: {scenario.says}")
            try:
                result.outcomes.append(scenario.play(stage))
            except Failed as failed:
                self.stderr.write(f"{scenario.name} failed: {failed}")
                result.failure = str(failed)
                break
        return result


def _allow_many_sockets() -> None:
    """For this process and, inherited, for the hubs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
