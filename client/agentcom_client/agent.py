"""An agent: connects to a hub, receives tasks, does them with a function, and reports outcomes."""

from __future__ import annotations

import asyncio
import inspect
import signal
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import cast

from agentcom_client import addresses, config
from agentcom_client.connection import Observer
from agentcom_client.slot import Slot, Work
from agentcom_client.threads import PlainWork, in_threads


class Agent:
    """Receives tasks from a hub until it is stopped.

        def work(task):
            task.progress(50, "half way")
            return {"summary": task.description.upper()}

        Agent("http://127.0.0.1:4000", TOKEN, work, capabilities=["write"]).serve()

    `work` is a coroutine function that takes a `Task`, or a plain function that takes a
    `ThreadTask` and runs in a thread of its own. The dict that it returns (or None) is the task's
    result; an exception is its error. It may raise `Reject`, `NoRetry` or `RetryAfter`. When the
    task is cancelled, a coroutine gets `asyncio.CancelledError`, a plain function is told by
    `ThreadTask.is_cancelled`; both may clean up and return what they have.

    A coroutine must not block the event loop: while it does, the hub gets no answer to its pings,
    and takes the agent for dead after about 50 s. What blocks belongs into a plain function.

    - `url`: the hub's address, or several of the same hub; each attempt to connect uses the next.
      Without `url` or `token`, they are those of the environment or of `agentcom-client login`.
    - `concurrency`: how many tasks at once. Each has a socket and an identity of its own: the first
      is the agent's name, the others are called `NAME#2`, `NAME#3`, …; one token is enough.
    - `agent_id`: only for hubs of before 0.2; later ones know whose token it is.
    - `capabilities`: what it can do. `name`: for display.
    - `accepts`: what the hub may send besides tasks. Without "cancel" it never asks, and ends a
      cancelled task by itself.
    - `heartbeat_s`: sends a sign of life so often while work is in progress. Without it, work that
      says nothing for 30 minutes is given to another agent; with it, nobody notices work that
      hangs, except by the task's `run_timeout_s`.
    - `first_delay_s`, `longest_delay_s`: the delay before an attempt to connect is random, below a
      bound that doubles from the one to the other, so that the agents of a fleet do not all
      reconnect at once. A hub that restarts sends a bound of its own.
    - `observe`: called with every frame from the hub.

    Raises `ConfigError` when there is no token.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None,
        token: str | None,
        work: Work | PlainWork,
        *,
        agent_id: str | None = None,
        concurrency: int = 1,
        name: str | None = None,
        capabilities: Iterable[str] = (),
        accepts: Iterable[str] = ("cancel",),
        first_delay_s: float = 0.5,
        longest_delay_s: float = 30.0,
        heartbeat_s: float | None = None,
        observe: Observer | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        urls, token = config.addresses_and_token(url, token)
        sockets = [addresses.socket(each, "/ws") for each in urls]
        capabilities, accepts = list(capabilities), list(accepts)
        self.slots = [
            Slot(
                sockets,
                token,
                as_coroutine_function(work),
                agent_id=agent_id,
                number=number if number > 1 else None,
                name=name if name is None or number == 1 else f"{name} #{number}",
                capabilities=capabilities,
                accepts=accepts,
                first_delay_s=first_delay_s,
                longest_delay_s=longest_delay_s,
                heartbeat_s=heartbeat_s,
                observe=observe,
            )
            for number in range(1, concurrency + 1)
        ]
        self._stopping: asyncio.Future[None] | None = None

    @property
    def agent_id(self) -> str:
        """Its name; empty before it has connected for the first time, unless it was given."""
        return self.slots[0].agent_id

    @property
    def connected(self) -> bool:
        """Whether all of its slots are connected."""
        return all(slot.connected for slot in self.slots)

    async def run(self) -> None:
        """Serve until `stop`. Raises `Refused` where connecting again would not help."""
        running = [asyncio.ensure_future(slot.run()) for slot in self.slots]
        try:
            await asyncio.gather(*running)
        finally:
            for slot in running:
                slot.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def stop(self) -> None:
        """Stop the work, sign off once it has ended, and let `run` return. Signing off gives the
        current tasks back: earlier, another agent could begin one while this one cleans up."""
        await asyncio.gather(*(slot.stop() for slot in self.slots))

    async def drain(self) -> None:
        """Begin no other task, deliver the outcomes of the current ones when they have ended, and
        then sign off and let `run` return."""
        await asyncio.gather(*(slot.drain() for slot in self.slots))

    def stop_soon(self, *, drain: bool = False) -> None:
        """`stop` or `drain`, for callers that are no coroutine, on the agent's event loop."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self.drain() if drain else self.stop())

    def cut(self) -> None:
        """Drop the sockets without a close frame, to test the hub's reaction; `run` reconnects."""
        for slot in self.slots:
            slot.cut()

    def serve(self, *, drain: bool = False) -> None:
        """`run` for a program without an event loop, until Ctrl-C or SIGTERM: then its work is
        stopped and its tasks are given back; with `drain`, they are done first. A second signal
        ends it at once.

        Raises `Refused` where connecting again would not help.
        """
        asyncio.run(self._serve(drain))

    async def _serve(self, drain: bool) -> None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)
            self.stop_soon(drain=drain)

        with suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop)
        await self.run()
        if self._stopping is not None:
            await self._stopping


def as_coroutine_function(work: Work | PlainWork) -> Work:
    called = vars(type(work)).get("__call__")  # of an object that can be called
    if inspect.iscoroutinefunction(work) or inspect.iscoroutinefunction(called):
        return cast(Work, work)
    return in_threads(cast(PlainWork, work))
