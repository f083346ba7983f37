"""How close this process is to its limit of open files. Each socket is one of them."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys

if sys.platform != "win32":  # Windows has no such limit
    import resource

logger = logging.getLogger(__name__)

SCARCE_SHARE = 0.9  # of the limit
COUNT_S = 5.0


class OpenFiles:
    def __init__(self) -> None:
        self.scarce = 0  # the limit if it is nearly reached, else 0

    async def watch(self) -> None:
        """Runs until cancelled."""
        while True:
            # in a thread, because listing many files takes a while
            self.note(*await asyncio.to_thread(_used_and_limit))
            await asyncio.sleep(COUNT_S)

    def note(self, used: int, limit: int) -> None:
        """Log when files become scarce, and when they no longer are."""
        was_scarce, self.scarce = self.scarce, limit if used >= SCARCE_SHARE * limit > 0 else 0
        if self.scarce and not was_scarce:
            logger.warning(
                "%s of %s files are open, a socket each; at the limit, connections are reset. "
                "Raise it: LimitNOFILE in systemd, `ulimit -n` in a shell.",
                f"{used:,}",
                f"{limit:,}",
            )
        elif was_scarce and not self.scarce:
            logger.warning("There are enough files again: %s of %s", f"{used:,}", f"{limit:,}")


def _used_and_limit() -> tuple[int, int]:
    """The number of open files and their limit; 0 or less means no limit."""
    if sys.platform == "win32":
        return 0, 0
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return len(os.listdir("/dev/fd")), limit
    except OSError as error:  # listing them takes a file itself
        return (limit if error.errno in (errno.EMFILE, errno.ENFILE) else 0), limit


open_files = OpenFiles()
