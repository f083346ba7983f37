"""A fleet of simulated agents that process plausible tasks over real sockets.

A `Plan` says what to do, `Simulation.run` does it, a `Tally` counts the outcomes.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from agentcom_client import Agent, AsyncHub, Task
from agentcom_client.connection import Message

CAPABILITIES = ("code", "research", "review", "write", "test", "data")
WORK = {
    "code": (
        "Add retries to {}",
        "Move {} off the deprecated API",
        "Fix the flaky timeout in {}",
    ),
    "research": (
        "Compare three vendors for {}",
        "Find out why {} slowed down last week",
        "Read up on {} and report",
    ),
    "review": (
        "Review the change to {}",
        "Check {} for missing error handling",
        "Look over the migration of {}",
    ),
    "write": (
        "Write the release notes for {}",
        "Explain {} to new users",
        "Draft the incident report on {}",
    ),
    "test": (
        "Cover {} with end-to-end tests",
        "Reproduce the crash in {}",
        "Load-test {} at twice the traffic",
    ),
    "data": (
        "Clean up duplicate rows in {}",
        "Backfill last month of {}",
        "Chart the growth of {}",
    ),
}
SUBJECTS = (
    "billing",
    "search",
    "the sign-up flow",
    "invoices",
    "the mobile app",
    "notifications",
    "the data export",
)
ERRORS = (
    "rate limited by the model",
    "tests failed: 3 of 48",
    "the repository does not build",
    "context too long",
)
QUESTIONS = (
    "May I delete the old table?",
    "Which of the two designs?",
    "Needs access to the staging account",
)
PRIORITIES = {"urgent": 1, "high": 3, "normal": 10, "low": 4}
ATTEMPTS = (1, 3, 3, 5)

SUBMITTER = "simulation"
LARGEST_BATCH = 100
SHORTEST_PAUSE_S = 0.05
PROGRESS_STEPS = 3
QUICK_S = 0.1
BACKLOG_PER_AGENT = 20
BLOCKED_SHARE = 0.03
CLEANUP_S = (0.1, 0.5)


class SimulatedFailure(Exception):
    """The agent fails this attempt on purpose."""


@dataclass(frozen=True)
class Plan:
    """What to simulate. Rates of failure and drop are shares of the attempts, 0 to 1; `deaf_rate`
    is the share of the agents that do not listen when a task is cancelled.

    `rate` is in tasks/s; 0 means as fast as the hub accepts them. With `tasks` the run ends when
    that many have been submitted and processed, with `duration_s` when the time is up, otherwise
    when it is stopped. The same `seed` gives the same tasks.
    """

    url: str = "http://127.0.0.1:4000"
    agents: int = 20
    rate: float = 5.0
    failure_rate: float = 0.1
    drop_rate: float = 0.05
    deaf_rate: float = 0.1
    think_ms: tuple[float, float] = (500, 3000)
    duration_s: float | None = None
    tasks: int | None = None
    seed: int | None = None

    @property
    def agent_ids(self) -> list[str]:
        return [f"sim-{number:03}" for number in range(1, self.agents + 1)]

    @property
    def socket_url(self) -> str:
        return "ws" + self.url.removeprefix("http").rstrip("/") + "/ws"


@dataclass
class Tally:
    """Counts so far: `failed` of attempts, `dropped` of cut sockets, the others of tasks."""

    started_at: float = field(default_factory=time.monotonic)
    agents: int = 0
    connected: int = 0
    submitted: int = 0
    completed: int = 0
    failed: int = 0
    dead_letter: int = 0
    cancelled: int = 0
    dropped: int = 0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_at

    @property
    def per_second(self) -> float:
        return self.completed / max(self.elapsed_s, 0.001)

    def __str__(self) -> str:
        return (
            f"{self.connected}/{self.agents} connected · {self.submitted} submitted · "
            f"{self.completed} completed · {self.failed} failed · "
            f"{self.dead_letter} dead letter · {self.cancelled} cancelled · "
            f"{self.dropped} dropped · "
            f"{self.per_second:.1f} tasks/s"
        )


class Simulation:
    """One run of a plan. `tokens` maps every agent id of the plan to its token, and `SUBMITTER` to
    the one to submit with; without it, the first agent submits."""

    def __init__(self, plan: Plan, tokens: Mapping[str, str]) -> None:
        self.plan = plan
        self.tokens = tokens
        self.chance = random.Random(plan.seed)  # what happens to the agents
        self.tasks = random.Random(plan.seed)
        self.skills = [_skills(number, self.tasks) for number in range(plan.agents)]
        self.fleet = [
            Agent(
                plan.socket_url,
                tokens[agent_id],
                self._work,
                agent_id=agent_id,
                name=agent_id.replace("sim-", "Simulated "),
                capabilities=skills,
                accepts=("cancel",) if listens else (),
                first_delay_s=1.0,
                longest_delay_s=10.0,
                observe=self._observe,
            )
            for agent_id, skills, listens in zip(
                plan.agent_ids, self.skills, _listening(plan), strict=True
            )
        ]
        self._open = 0  # tasks that have not ended
        self._tally = Tally(agents=plan.agents)
        self._ended = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def tally(self) -> Tally:
        self._tally.connected = sum(agent.connected for agent in self.fleet)
        return self._tally

    async def run(self) -> Tally:
        """Raises `agentcom_client.Refused` when the hub does not know the tokens, `RequestRefused`
        when it does not take the tasks.
        """
        self._tally.started_at = time.monotonic()
        fleet = [asyncio.create_task(agent.run()) for agent in self.fleet]
        work_is_over = asyncio.create_task(self._submit_and_drain())
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait(
                [*fleet, work_is_over, stopped],
                timeout=self.plan.duration_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for ended in done:
                ended.result()
            return self.tally
        finally:
            work_is_over.cancel()
            stopped.cancel()
            await self._sign_off(fleet)

    def stop(self) -> None:
        """End the run early; the agents sign off."""
        self._stopping.set()

    async def _sign_off(self, fleet: list[asyncio.Task[None]]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.gather(*(agent.stop() for agent in self.fleet))
                await asyncio.wait(fleet)
        for running in fleet:
            running.cancel()
        await asyncio.gather(*fleet, return_exceptions=True)

    # What the agents do

    async def _work(self, task: Task) -> dict[str, Any]:
        try:
            return await self._think(task)
        except asyncio.CancelledError:
            if task.cancel is None:  # the agent stops
                raise
            await asyncio.sleep(self.chance.uniform(*CLEANUP_S))
            summary = f"Stopped, and put away what was begun: {task.description}"
            return {"summary": summary, "tokens_used": self.chance.randint(100, 10_000)}

    async def _think(self, task: Task) -> dict[str, Any]:
        chance = self.chance
        thinking_s = chance.uniform(*self.plan.think_ms) / 1000
        steps = PROGRESS_STEPS if thinking_s > QUICK_S else 1
        fails = chance.random() < self.plan.failure_rate
        cut_at = chance.randrange(steps) if chance.random() < self.plan.drop_rate else None
        for step in range(steps):
            await asyncio.sleep(thinking_s / steps)
            await task.progress(100 * (step + 1) / (steps + 1), "thinking")
            if step == cut_at:
                self._tally.dropped += 1
                task.agent.cut()
        if chance.random() < BLOCKED_SHARE:
            await task.blocked(chance.choice(QUESTIONS))
            await asyncio.sleep(thinking_s)
            await task.unblocked()
        if fails:
            raise SimulatedFailure(chance.choice(ERRORS))
        return {"summary": f"Done: {task.description}", "tokens_used": chance.randint(200, 20_000)}

    def _observe(self, message: Message) -> None:
        if message["type"] == "task_ack" and message["status"] in ("retried", "dead_letter"):
            self._tally.failed += 1

    # Where the tasks come from

    async def _submit_and_drain(self) -> None:
        token = self.tokens.get(SUBMITTER) or self.tokens[self.plan.agent_ids[0]]
        async with AsyncHub(self.plan.url, token, patience_s=math.inf) as hub:
            counting: set[asyncio.Task[None]] = set()
            try:
                while (due := await self._due()) > 0:
                    ids = await hub.submit_many(self._new_task() for _ in range(due))
                    self._tally.submitted += len(ids)
                    self._open += len(ids)
                    count = asyncio.create_task(self._count(hub, ids))
                    counting.add(count)
                    count.add_done_callback(counting.discard)
                await asyncio.gather(*counting)
            finally:
                for count in counting:
                    count.cancel()

    async def _count(self, hub: AsyncHub, ids: list[str]) -> None:
        async for task in hub.as_ended(ids):
            self._open -= 1
            self._ended.set()
            match task.status:
                case "completed":
                    self._tally.completed += 1
                case "dead_letter":
                    self._tally.dead_letter += 1
                case "cancelled":
                    self._tally.cancelled += 1

    async def _due(self) -> int:
        """How many tasks to submit now; waits until there is at least one. 0 ends the plan."""
        submitted, rate = self._tally.submitted, self.plan.rate
        left = LARGEST_BATCH if self.plan.tasks is None else self.plan.tasks - submitted
        if rate:
            pause_s = (submitted + 1) / rate - self._tally.elapsed_s
            await asyncio.sleep(max(SHORTEST_PAUSE_S, pause_s))
            left = min(left, max(1, int(self._tally.elapsed_s * rate) - submitted))
        elif self.plan.tasks is None:
            # without an end, keep the fleet busy but do not fill the disk
            while self._open > BACKLOG_PER_AGENT * self.plan.agents:
                self._ended.clear()
                await self._ended.wait()
        return min(left, LARGEST_BATCH)

    def _new_task(self) -> Message:
        # only needs that some agent of the fleet meets, so that every task is done in the end
        skill = self.tasks.choice(self.tasks.choice(self.skills))
        return {
            "description": self.tasks.choice(WORK[skill]).format(self.tasks.choice(SUBJECTS)),
            "priority": self.tasks.choices(list(PRIORITIES), list(PRIORITIES.values()))[0],
            "needed_capabilities": [skill] if self.tasks.random() < 0.7 else [],
            "max_retries": self.tasks.choice(ATTEMPTS),
            "metadata": {"source": "simulate", "skill": skill},
        }


def _skills(number: int, random: random.Random) -> list[str]:
    """One to three of the capabilities; six agents together have all of them."""
    first = CAPABILITIES[number % len(CAPABILITIES)]
    return [first, *random.sample([c for c in CAPABILITIES if c != first], random.randint(0, 2))]


def _listening(plan: Plan) -> list[bool]:
    """Whether each agent listens when a task is cancelled; spread over the fleet."""
    share = plan.deaf_rate
    return [int(n * share) == int((n + 1) * share) for n in range(plan.agents)]
