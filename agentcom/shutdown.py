"""How a process ends: on which signal, and in which time at most."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from agentcom.signals import HANGUP, stop_signals

logger = logging.getLogger(__name__)

FORCED_EXIT_S = 8.0  # from SIGTERM until the process exits, whatever it is still waiting for


def on_stop_signal(begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Call `begin` on SIGTERM, Ctrl-C or a hangup, and `end` on a second signal.

    Except a second hangup: a terminal that closes sends one, and the shell in it another.
    """
    loop = asyncio.get_running_loop()
    has_begun = False

    def handler(signum: int, frame: Any) -> None:
        nonlocal has_begun
        if not has_begun:
            has_begun = True
            loop.call_soon_threadsafe(begin)
        elif signum != HANGUP:
            loop.call_soon_threadsafe(end)

    for signum in stop_signals():
        signal.signal(signum, handler)


def arm_forced_exit() -> None:
    """Exit after a timeout, even if a thread still waits for an unavailable database."""
    timer = threading.Timer(FORCED_EXIT_S, _exit)
    timer.daemon = True
    timer.start()


def _exit() -> None:
    logger.warning("A graceful stop timed out, probably waiting for the database; exiting")
    logging.shutdown()
    os._exit(0)
