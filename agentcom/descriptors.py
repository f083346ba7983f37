"""How near this process is to its limit of open files. Each socket is one of them."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys

if sys.platform != "win32":  # which has no such limit
    import resource

logger = logging.getLogger(__name__)

NEARLY = 0.9  # of the limit
COUNT_S = 5.0


class OpenFiles:
    def __init__(self) -> None:
        self.scarce = 0  # the limit, when nearly so many are open

    async def watch(self) -> None:
        """Count until cancelled."""
        while True:
            # in a thread, because with many it takes a while
            self.note(*await asyncio.to_thread(_used_and_limit))
            await asyncio.sleep(COUNT_S)

    def note(self, used: int, limit: int) -> None:
        """Say in the log when they become scarce, and when they no longer are."""
        was_scarce, self.scarce = self.scarce, limit if used >= NEARLY * limit > 0 else 0
        if self.scarce and not was_scarce:
            logger.warning(
                "%s of %s files are open, a socket each; at the limit, connections are reset. "
                "Raise it: LimitNOFILE in systemd, `ulimit -n` in a shell.",
                f"{used:,}",
                f"{limit:,}",
            )
        elif was_scarce and not self.scarce:
            logger.warning("There are files enough again: %s of %s", f"{used:,}", f"{limit:,}")


def _used_and_limit() -> tuple[int, int]:
    """A limit of 0 or less is none."""
    if sys.platform == "win32":
        return 0, 0
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return len(os.listdir("/dev/fd")), limit
    except OSError as error:  # to list them takes one more
        return (limit if error.errno in (errno.EMFILE, errno.ENFILE) else 0), limit


open_files = OpenFiles()
