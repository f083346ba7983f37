"""Which signals end a process, and what they do until it can end in good order.

Loaded before anything heavy: a process that is stopped while it still begins has nothing to lose,
and ends at once, as one that was stopped on purpose.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

HANGUP = getattr(signal, "SIGHUP", None)  # the terminal is gone; not everywhere there is one


def stop_signals() -> list[signal.Signals]:
    """SIGTERM, Ctrl-C, and a hangup, except for who was started with `nohup`."""
    signals = [signal.SIGTERM, signal.SIGINT]
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        signals.append(HANGUP)
    return signals


def end_at_once() -> None:
    """Until `on_signal` of shutdown.py, or the worker, takes them over."""
    for signum in stop_signals():
        signal.signal(signum, _leave)


def _leave(signum: int, frame: FrameType | None) -> None:
    os._exit(0)  # no exception: whatever is loaded or migrated just now might catch it
