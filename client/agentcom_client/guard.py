"""Ends the commands of an agent whose process has died: nobody would read what they do, and the hub
gives their tasks to another agent.

A process of its own, with nothing but the standard library. Reads lines from standard input: `+PID`
when the process group PID has begun, `-PID` when it has ended. When the input ends, the groups that
are left get SIGTERM, and SIGKILL after as many seconds as the first argument says.
"""

from __future__ import annotations

import os
import signal
import sys
import time

CHECK_S = 0.1


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # what ends the agent must not end its guard before
    groups: set[int] = set()
    for line in sys.stdin:
        change, group = line[0], int(line[1:])
        (groups.add if change == "+" else groups.discard)(group)
    send(groups, signal.SIGTERM)
    until = time.monotonic() + float(sys.argv[1])
    while groups and time.monotonic() < until:
        time.sleep(CHECK_S)
        groups = {group for group in groups if send({group}, 0)}
    send(groups, signal.SIGKILL)


def send(groups: set[int], number: int) -> int:
    """How many of the groups have a process still."""
    reached = 0
    for group in groups:
        try:
            os.killpg(group, number)
            reached += 1
        except (ProcessLookupError, PermissionError):
            pass
    return reached


if __name__ == "__main__":
    main()
