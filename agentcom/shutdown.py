"""How a web process keeps time and how a process ends, where Daphne leaves something out.

Left alone, Daphne breaks off at SIGTERM whatever is being answered, and takes connections until
its last moment. So the signal comes to us first, and Daphne is told to end when all is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from agentcom.signals import HANGUP, stop_signals

logger = logging.getLogger(__name__)

GONE_S = 8.0  # from SIGTERM until a process is gone, whatever it still waits for


def served_by_daphne() -> bool:
    return "daphne.server" in sys.modules


def measure_by_the_steady_clock() -> None:
    """Have Twisted's timers, and what Daphne measures, go by a clock that nobody sets.

    Both take the time of day: set back, no socket would be pinged for as long; set forward, those
    that connect just then would be cut. Before Daphne listens, so that no timer runs yet.
    """
    import daphne.http_protocol
    import daphne.server
    import daphne.ws_protocol
    from twisted.internet import reactor

    steady = SimpleNamespace(time=time.monotonic)  # they use nothing else of that module
    for module in (daphne.http_protocol, daphne.server, daphne.ws_protocol):
        module.time = steady
    reactor.seconds = time.monotonic


def is_daphne() -> bool:
    """Whether this process was started as `daphne`, and not by a command of ours."""
    return "daphne.cli" in sys.modules


def soon(call: Callable[[], None]) -> None:
    """Call it on the event loop once that runs; Daphne itself offers no such hook."""
    from twisted.internet import reactor

    reactor.callLater(0, call)


def on_signal(begin: Callable[[], None]) -> None:
    """Have SIGTERM, Ctrl-C and a hangup begin the end; a second one ends Daphne at once.

    Not a second hangup: a terminal that closes sends one, and the shell in it another.
    """
    loop = asyncio.get_running_loop()
    has_begun = False

    def handler(signum: int, frame: Any) -> None:
        nonlocal has_begun
        if not has_begun:
            has_begun = True
            loop.call_soon_threadsafe(begin)
        elif signum != HANGUP:
            loop.call_soon_threadsafe(end_server)

    for signum in stop_signals():
        signal.signal(signum, handler)


def stop_listening() -> None:
    """From here on a connection is refused, so that a load balancer takes another process."""
    from twisted.internet import reactor
    from twisted.internet.interfaces import IListeningPort

    for reader in reactor.getReaders():
        if IListeningPort.providedBy(reader):
            reader.stopListening()


def end_server() -> None:
    from twisted.internet import reactor
    from twisted.internet.error import ReactorNotRunning

    with contextlib.suppress(ReactorNotRunning):
        reactor.stop()


def end_by_force() -> None:
    """A thread that waits for a database which does not answer must not hold up the end."""
    timer = threading.Timer(GONE_S, _exit)
    timer.daemon = True
    timer.start()


def _exit() -> None:
    logger.warning("Something still waits, probably for the database; ended all the same")
    logging.shutdown()
    os._exit(0)
