"""`manage.py torture`: does violence to a hub of its own, see docs/torture.md."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import tempfile
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from lab.harness.hub import SERVERS
from lab.harness.store import on_postgresql
from lab.torture.ordeal import Options, Ordeal, Outcome

UNBROKEN = "\N{NO-BREAK SPACE}"


class Command(BaseCommand):
    help = "Does random violence to a hub of its own and checks that it keeps its promises."
    requires_system_checks: list[str] = []  # the hub checks its own settings

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seed", type=int, metavar="N", help="replays what N did before")
        parser.add_argument("--minutes", type=float, default=2, metavar="M", help="default: 2")
        parser.add_argument(
            "--webs",
            type=int,
            metavar="N",
            help="web processes; 0 is `manage.py hub` (default: 2 on PostgreSQL, else 0)",
        )
        parser.add_argument(
            "--workers", type=int, metavar="N", help="likewise (default: as many as web processes)"
        )
        parser.add_argument(
            "--server", choices=SERVERS, default=SERVERS[0], help="of the hub (%(default)s)"
        )
        parser.add_argument("--agents", type=int, default=30, metavar="N", help="default: 30")

    def handle(self, **options: Any) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of the with-blocks
        chosen = _chosen(options)
        self.stdout.write(_title(chosen))
        folder = Path(tempfile.mkdtemp(prefix="torture-", dir=settings.AGENTCOM_DATA_DIR))
        try:
            outcome = Ordeal(chosen, folder, self._say).run()
        except (KeyboardInterrupt, SystemExit):
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.stdout.write(_summary(outcome))
        if outcome.broken is not None:
            self.stdout.write(_verdict(outcome, chosen))
            self.stdout.write(f"  Logs:  {folder}")
            sys.exit(1)
        shutil.rmtree(folder, ignore_errors=True)
        self.stdout.write("\nNo promise was broken.")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _chosen(options: dict[str, Any]) -> Options:
    webs = options["webs"] if options["webs"] is not None else 2 * on_postgresql()
    return Options(
        seed=options["seed"] if options["seed"] is not None else secrets.randbelow(10**6),
        duration_s=60 * options["minutes"],
        webs=webs,
        workers=(options["workers"] if options["workers"] is not None else webs) if webs else 0,
        agents=options["agents"],
        server=options["server"],
    )


def _title(chosen: Options) -> str:
    parts = (
        f"{chosen.webs} web processes, {chosen.workers} workers" if chosen.webs else "one process"
    )
    database = "SQLite"
    if on_postgresql():
        database = "PostgreSQL and Redis" if os.environ.get("REDIS_URL") else "PostgreSQL"
    minutes = chosen.duration_s / 60
    hub = f"{parts} under {chosen.server} on {database}"
    return f"Seed {chosen.seed}: {minutes:g} min, {hub}, {chosen.agents} agents"


def _summary(outcome: Outcome) -> str:
    acts: dict[str, list[str]] = defaultdict(list)
    seen: dict[str, Any] = dict(outcome.figures)
    for what, times in sorted(outcome.done.items()):
        whom, is_act, kind = what.partition(": ")
        if is_act:
            acts[whom].append(f"{kind} {times}".replace(" ", UNBROKEN))
        else:
            seen[what] = times
    seen["longest time without an ack"] = f"{outcome.longest_outage_s:.1f} s"
    seen |= outcome.use
    return "\n".join(
        [
            *("", "  DONE TO"),
            *(_row(whom, " · ".join(kinds), 12) for whom, kinds in acts.items()),
            *("", "  SEEN"),
            *(_row(name, str(value), 1 + max(map(len, seen))) for name, value in seen.items()),
        ]
    )


def _row(name: str, value: str, width: int) -> str:
    indent = f"  {name:<{width}} "
    rest = " " * len(indent)
    lines = textwrap.fill(value, 100, initial_indent=indent, subsequent_indent=rest)
    return lines.replace(UNBROKEN, " ")


def _verdict(outcome: Outcome, chosen: Options) -> str:
    broken = outcome.broken
    assert broken is not None
    where = f" ({broken.task_id})" if broken.task_id else ""
    lines = [f"\nBROKEN: {broken.promise}", f"  {broken.evidence}{where}"]
    if broken.history:
        lines += ["\n  The task's journal:", *(f"    {entry}" for entry in broken.history)]
    lines += ["\n  Done last to the hub:", *(f"    {act}" for act in outcome.last_acts)]
    replay = f"manage.py torture --seed {chosen.seed} --minutes {chosen.duration_s / 60:g}"
    shape = f" --webs {chosen.webs} --workers {chosen.workers} --agents {chosen.agents}"
    shape += f" --server {chosen.server}"
    return "\n".join([*lines, f"\n  Again: {replay}{shape}"])
