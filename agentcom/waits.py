"""Waiting on the event loop."""

from __future__ import annotations

import asyncio


async def event_or_timeout(event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set, for at most `seconds`; clear it. Returns whether it was set.

    Not with `asyncio.wait_for`: before Python 3.12 it may swallow a cancellation, and a loop around
    it may then never end.
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True


def end_if_cancelled() -> None:
    """Raise a cancellation of this task that a library swallowed. Not for use inside a timeout."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
