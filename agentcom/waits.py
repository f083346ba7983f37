"""Waiting on the event loop."""

from __future__ import annotations

import asyncio


async def event_or_timeout(event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set, but no longer than `seconds`; clear it. Give whether it was set.

    `asyncio.wait_for` may swallow a cancellation before Python 3.12, and a loop that is built on
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
    """Raise the cancellation of this task that a library swallowed. Not inside a timeout."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
