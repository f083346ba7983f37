"""`manage.py runworker`: the worker as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

from channels import DEFAULT_CHANNEL_LAYER
from channels.management.commands import runworker
from django.core.management import CommandError, CommandParser
from django.db import connection

from agentcom import shutdown
from agentcom.errors import Unavailable
from agentcom.faults import refuse_schema
from agentcom.journal import journal
from agentcom.signals import stop_signals
from agentcom.writer import writer
from worker.tick import Worker


class Command(runworker.Command):
    help = (
        "Run AgentCom's worker: reclaims, health, pruning. Several may run; one of them acts. "
        "With channel names, run Channels' worker for these instead."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--layer",
            default=DEFAULT_CHANNEL_LAYER,
            help="Channel layer alias to use, if not the default.",
        )
        parser.add_argument("channels", nargs="*", help="Channels to listen on.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["channels"]:
            super().handle(*args, **options)
            return
        try:
            refuse_schema()
        finally:
            connection.close()  # this thread needs it no more
        try:
            asyncio.run(_work())
        except Unavailable as error:
            raise CommandError(f"The worker cannot start: {error.detail}.") from error


async def _work() -> None:
    """Run the worker in a thread, and the journal on the loop: it notifies other processes."""
    stop = threading.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        shutdown.arm_forced_exit()
        stop.set()

    for signum in stop_signals():
        loop.add_signal_handler(signum, end)
    await journal.start()
    tail = loop.create_task(journal.run())
    tail.add_done_callback(lambda _: stop.set())
    try:
        await asyncio.to_thread(Worker().run, stop)
        await asyncio.to_thread(writer.stop)
    finally:
        tail.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await tail
