"""What Daphne lacks: a monotonic clock for its timers, and a graceful shutdown.

At SIGTERM, Daphne by itself aborts the requests that are being answered, and accepts connections
until it ends. So we handle the signal, and stop Daphne when everything is finished.
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

FORCED_EXIT_S = 8.0  # from SIGTERM until the process exits, whatever it is still waiting for


def served_by_daphne() -> bool:
    return "daphne.server" in sys.modules


def use_monotonic_clock() -> None:
    """Make Twisted's timers and Daphne's timeouts use a monotonic clock.

    Both use the time of day. If it is set back, no socket is pinged until it has caught up; if it
    is set forward, connections in their handshake are dropped. To be called before Daphne listens,
    so that no timer is running yet.
    """
    import daphne.http_protocol
    import daphne.server
    import daphne.ws_protocol
    from twisted.internet import reactor

    steady = SimpleNamespace(time=time.monotonic)  # they use nothing else of the time module
    for module in (daphne.http_protocol, daphne.server, daphne.ws_protocol):
        module.time = steady
    reactor.seconds = time.monotonic


def is_daphne() -> bool:
    """Whether this process was started as `daphne` rather than by one of our commands."""
    return "daphne.cli" in sys.modules


def call_soon(call: Callable[[], None]) -> None:
    """Call it on the event loop once the loop runs; Daphne has no hook for this."""
    from twisted.internet import reactor

    reactor.callLater(0, call)


def on_stop_signal(begin: Callable[[], None]) -> None:
    """Call `begin` on SIGTERM, Ctrl-C or a hangup; a second signal stops Daphne at once.

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
            loop.call_soon_threadsafe(end_server)

    for signum in stop_signals():
        signal.signal(signum, handler)


def stop_listening() -> None:
    """Refuse new connections, so that a load balancer uses another process."""
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


def arm_forced_exit() -> None:
    """Exit after a timeout, even if a thread still waits for an unavailable database."""
    timer = threading.Timer(FORCED_EXIT_S, _exit)
    timer.daemon = True
    timer.start()


def _exit() -> None:
    logger.warning("A graceful stop timed out, probably waiting for the database; exiting")
    logging.shutdown()
    os._exit(0)
