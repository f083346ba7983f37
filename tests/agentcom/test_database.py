"""Reading beside the Writer: each reader serves its own callers, and so many of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from agentcom.database import Reader, checks, queries, viewers
from agentcom.errors import Unavailable
from fleet.models import Agent
from fleet.tokens import token_check


@pytest.fixture
async def viewer_at_length() -> AsyncIterator[None]:
    """Somebody looks at what takes the viewers' reader long."""
    began, end = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def look() -> None:
        loop.call_soon_threadsafe(began.set)
        end.wait()

    looking = asyncio.create_task(viewers.run(look))
    await began.wait()
    yield
    end.set()
    await looking


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("viewer_at_length")
async def test_viewers_hold_up_neither_tokens_nor_health_nor_submitters() -> None:
    assert await token_check.caller("unknown") is None
    assert await checks.run(Agent.objects.connected().count) == 0
    assert await queries.run(int) == 0


async def test_a_reader_refuses_those_that_it_has_no_room_for() -> None:
    reader = Reader("test", capacity=2)
    end = threading.Event()
    reads = [asyncio.create_task(reader.run(end.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="too many requests"):
        await reader.run(int)
    end.set()
    assert await asyncio.gather(*reads) == [True, True]
    assert await reader.run(int) == 0


async def test_who_gave_up_waiting_takes_no_room() -> None:
    reader = Reader("test", capacity=2)
    end = threading.Event()
    first = asyncio.create_task(reader.run(end.wait))
    await asyncio.sleep(0)
    given_up = asyncio.create_task(reader.run(int))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    second = asyncio.create_task(reader.run(int))
    await asyncio.sleep(0)
    end.set()
    assert (await first, await second) == (True, 0)
