from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import httpx
from django.core.management.base import BaseCommand, CommandError, CommandParser

from agentcom_client import Refused, RequestRefused
from fleet.simulator import SUBMITTER, Plan, Simulation, Tally

LINE_EVERY_S = 5.0
REDRAW_EVERY_S = 0.25
ERASE_LINE = "\r\x1b[K"


class Command(BaseCommand):
    help = "Runs simulated agents against a hub, over real sockets, and submits tasks for them."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        plan = Plan()
        parser.add_argument("--url", default=plan.url, help="the hub (default: %(default)s)")
        parser.add_argument(
            "--agents", type=_count, default=plan.agents, help="how many (default: %(default)s)"
        )
        parser.add_argument(
            "--rate",
            type=_positive,
            default=plan.rate,
            help="tasks to submit per second, 0 for as fast as possible (default: %(default)s)",
        )
        parser.add_argument(
            "--failure-rate", type=_share, default=plan.failure_rate, help="default: %(default)s"
        )
        parser.add_argument(
            "--drop-rate",
            type=_share,
            default=plan.drop_rate,
            help="chance per task that the socket is cut in the middle (default: %(default)s)",
        )
        parser.add_argument(
            "--deaf-rate",
            type=_share,
            default=plan.deaf_rate,
            help="share of the agents that do not listen to cancels (default: %(default)s)",
        )
        parser.add_argument(
            "--think",
            type=_range,
            default=plan.think_ms,
            metavar="MS",
            help="time per task: one number, or a range (default: 500-3000)",
        )
        parser.add_argument(
            "--duration", type=_positive, metavar="S", help="end after so many seconds"
        )
        parser.add_argument(
            "--tasks", type=_count, help="submit exactly so many, wait for their outcomes, and end"
        )
        parser.add_argument("--seed", type=int, help="the same seed submits the same tasks")
        parser.add_argument(
            "--tokens",
            type=Path,
            metavar="FILE",
            help="JSON, agent id to token; for a hub with another database. A submitter's token"
            f" under the name {SUBMITTER} is what it submits with",
        )

    def handle(self, **options: Any) -> None:
        plan = Plan(
            url=options["url"].rstrip("/"),
            agents=options["agents"],
            rate=options["rate"],
            failure_rate=options["failure_rate"],
            drop_rate=options["drop_rate"],
            deaf_rate=options["deaf_rate"],
            think_ms=options["think"],
            duration_s=options["duration"],
            tasks=options["tasks"],
            seed=options["seed"],
        )
        for chatty in ("httpx", "agentcom_client"):  # the live line shows the progress
            logging.getLogger(chatty).setLevel(logging.WARNING)
        try:
            self._wait_for_hub(plan.url)
            tally = asyncio.run(self._simulate(plan, _tokens(plan, options["tokens"])))
        except Refused as refused:
            raise CommandError(
                f"The hub refuses {refused}."
                " If it runs on another database than this command, give it --tokens."
            ) from refused
        except RequestRefused as refused:
            raise CommandError(f"The hub refuses the tasks: {refused}") from refused
        except KeyboardInterrupt:
            return
        self._summarise(tally)

    def _wait_for_hub(self, url: str) -> None:
        waiting = False
        while True:
            try:
                if httpx.get(f"{url}/health", timeout=5).is_success:
                    return
            except httpx.UnsupportedProtocol as error:
                raise CommandError(f"{url} is not the address of a hub: {error}") from error
            except httpx.TransportError:
                pass
            if not waiting:
                self.stdout.write(f"Waiting for the hub at {url} ...")
                waiting = True
            time.sleep(0.5)

    async def _simulate(self, plan: Plan, tokens: dict[str, str]) -> Tally:
        simulation = Simulation(plan, tokens)
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, simulation.stop)
        running = asyncio.create_task(simulation.run())
        in_place = self.stdout.isatty()
        while not running.done():
            await asyncio.wait({running}, timeout=REDRAW_EVERY_S if in_place else LINE_EVERY_S)
            if in_place:
                self.stdout.write(f"{ERASE_LINE}{simulation.tally}", ending="")
                self.stdout.flush()
            elif not running.done():
                self.stdout.write(str(simulation.tally))
        if in_place:
            self.stdout.write()
        return running.result()

    def _summarise(self, tally: Tally) -> None:
        self.stdout.write(
            f"{tally.completed} of {tally.submitted} tasks completed in {tally.elapsed_s:.1f} s"
            f" ({tally.per_second:.1f} tasks/s), {tally.dead_letter} in the dead letter,"
            f" {tally.cancelled} cancelled;"
            f" failed attempts: {tally.failed}, cut sockets: {tally.dropped}."
        )


def _tokens(plan: Plan, file: Path | None) -> dict[str, str]:
    if file is None:
        # imported here: with a file of tokens, neither this module nor its database is needed
        from agentcom.faults import refuse_schema
        from agentcom.rights import Grant, TokenKind
        from fleet.tokens import issue

        refuse_schema()
        submitter = issue([SUBMITTER], Grant(TokenKind.SUBMITTER))
        return {**issue(plan.agent_ids), **submitter}
    try:
        tokens: dict[str, str] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CommandError(f"{file} cannot be read as JSON: {error}") from error
    if missing := [agent_id for agent_id in plan.agent_ids if agent_id not in tokens]:
        raise CommandError(f"{file} has no token for {', '.join(missing[:5])}")
    return tokens


def _positive(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError("must be 0 or more")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ArgumentTypeError("must be 1 or more")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError("must be between 0 and 1")
    return value


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    span = (_positive(low), _positive(high or low))
    if span[0] > span[1]:
        raise ArgumentTypeError(
            "must be one number of ms, or two with a hyphen between them, the smaller first"
        )
    return span
