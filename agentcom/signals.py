"""Which signals stop a process, and how they are handled until a graceful stop is possible.

Imported before anything heavy. A process that is stopped while it starts has nothing to lose, so it
exits at once, with code 0.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

# The terminal was closed. Not every platform has this signal.
HANGUP = getattr(signal, "SIGHUP", None)


def stop_signals() -> list[signal.Signals]:
    """SIGTERM, Ctrl-C, and a hangup unless the process was started with `nohup`."""
    signals = [signal.SIGTERM, signal.SIGINT]
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        signals.append(HANGUP)
    return signals


def end_at_once() -> None:
    """Exit on these signals until `shutdown.on_stop_signal` or the worker handles them."""
    for signum in stop_signals():
        signal.signal(signum, _exit_now)


def _exit_now(signum: int, frame: FrameType | None) -> None:
    os._exit(0)  # rather than an exception, which code that is loading or migrating might catch
