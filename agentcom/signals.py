"""Which signals stop a process, and how they are handled until a graceful stop is possible.

Imported before anything heavy. A process that is stopped while it starts has nothing to lose, so it
exits at once, with code 0.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from types import FrameType

# The terminal was closed. Not every platform has this signal.
HANGUP = getattr(signal, "SIGHUP", None)


def stop_signals() -> list[signal.Signals]:
    """SIGTERM, Ctrl-C, and a hangup unless the process was started with `nohup`."""
    signals = [signal.SIGTERM, signal.SIGINT]
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        signals.append(HANGUP)
    return signals


def is_server_command() -> bool:
    """Whether this process was started as `daphne` or `uvicorn`, not by one of our commands.

    The processes of uvicorn's `--workers` are none: it has set their signals before they load us.
    """
    if multiprocessing.parent_process() is not None:
        return False
    return "daphne.cli" in sys.modules or _started_module() == "uvicorn"


def _started_module() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)  # of `python -m`
    return spec.name.partition(".")[0] if spec is not None else os.path.basename(sys.argv[0])


def end_at_once() -> None:
    """Exit on these signals until `shutdown.on_stop_signal` or the worker handles them."""
    for signum in stop_signals():
        signal.signal(signum, _exit_now)


def _exit_now(signum: int, frame: FrameType | None) -> None:
    os._exit(0)  # rather than an exception, which code that is loading or migrating might catch
