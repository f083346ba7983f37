"""One run: starts a hub and its clients, carries out the plan, asks for audits, waits for calm."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from lab.harness.clock import HostClock
from lab.harness.hub import Cluster, Hub
from lab.kit.sockets import Failed
from lab.torture import plan
from lab.torture.clients import Clients, agent_names, submitter_names, viewer_names
from lab.torture.ledger import FORGOTTEN, HOOKED, PATCHES, TOLD, Broken, Ledger, differing
from lab.torture.plan import Act, Parts
from lab.torture.processes import TICK_S, Processes, state_url
from lab.torture.receiver import SETTINGS as OF_WEBHOOKS
from lab.torture.receiver import ChaosReceiver
from lab.torture.truth import Truth

SETTINGS = {
    "AGENTCOM_RECLAIM_GRACE_S": "2",
    "AGENTCOM_ACCEPT_TIMEOUT_S": "5",
    "AGENTCOM_RECLAIM_AFTER_S": "8",
    "AGENTCOM_WORKER_TICK_S": str(TICK_S),
    "AGENTCOM_NODE_TIMEOUT_S": "3",
    "AGENTCOM_QUEUE_SAMPLE_S": "5",
    "AGENTCOM_CANCEL_TIMEOUT_S": "4",
    "AGENTCOM_REJECT_PAUSE_S": "2",
    "AGENTCOM_RETRY_BACKOFF_S": "0.3",
    "AGENTCOM_RETRY_BACKOFF_MAX_S": "3",
    **OF_WEBHOOKS,
}
UNTOLD = "SELECT COUNT(*) FROM webhooks_delivery WHERE ended_at IS NULL"
UNREAD = "SELECT COUNT(*) FROM agentcom_event WHERE seq > (SELECT MIN(seq) FROM webhooks_endpoint)"
SUBMITTERS, VIEWERS = 4, 4
RATE = 1.0  # submits a second and submitter, some of them arrays
AUDIT_EVERY_S = 30
DRAIN_S = 120  # for what is left when the violence is over
HOOKED_S = 60  # for what the receiver of webhooks has not accepted by then
SETTLE_S = 20  # for pictures to agree after that
EVIDENCE_ACTS = 8


@dataclass(frozen=True)
class Options:
    seed: int
    duration_s: float
    webs: int  # with 0 the hub is one process
    workers: int
    agents: int
    server: str = ""


@dataclass
class Outcome:
    broken: Broken | None
    done: dict[str, int]
    figures: dict[str, int]
    longest_outage_s: float
    last_acts: list[Act]
    use: dict[str, str]


class Ordeal:
    """`say` gets a line now and then."""

    def __init__(self, options: Options, folder: Path, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._folder = folder
        self.ledger = Ledger()
        self._truth = Truth()
        self._host_clock = HostClock(folder / "clock")
        self._hub = self._make_hub()
        self._processes = Processes(
            self._hub, self._host_clock, self.ledger, self._truth, options.agents
        )
        self._receiver = ChaosReceiver(options.seed)
        self._last_acts: deque[Act] = deque(maxlen=EVIDENCE_ACTS)
        self._figures: dict[str, int] = {}
        self._mistakes: list[BaseException] = []
        self._began = time.monotonic()

    def run(self) -> Outcome:
        """Raises `Failed`, and whatever a mistake of torture itself raises."""
        with ExitStack() as stack:
            stack.enter_context(self._receiver)
            self._processes.start(stack)
            asyncio.run(self._endure())
            if self.ledger.broken is None:
                self._processes.stop()
        return Outcome(
            self.ledger.broken,
            dict(self.ledger.done),
            self._figures,
            self.ledger.longest_outage_s,
            list(self._last_acts),
            self._processes.use(),
        )

    def _make_hub(self) -> Hub:
        webs, workers = self._options.webs, self._options.workers
        settings = {**SETTINGS, **self._host_clock.environment}
        if webs:
            return Cluster(self._folder, webs, workers, server=self._options.server, **settings)
        return Hub(self._folder, server=self._options.server, **settings)

    # --- The whole, step by step

    async def _endure(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._note_mistake)
        agents = [name for name in agent_names(self._options.agents) if "#" not in name]
        tokens: dict[str, str] = {}
        for kind, names in (
            ("agent", agents),
            ("submitter", submitter_names(SUBMITTERS)),
            ("operator", plan.OPERATORS),
        ):
            tokens |= await asyncio.to_thread(self._hub.tokens, names, kind)
        await asyncio.to_thread(self._receiver.listen_to, self._hub)
        self._clients = Clients(
            *(self._options.seed, self.ledger, self._truth, self._hub.next_port, RATE),
            hub_time=self._hub_time,
            has_one_process=not self._options.webs,
        )
        self._clients.staff(tokens, self._options.agents, SUBMITTERS, VIEWERS)
        watch: list[Coroutine[Any, Any, None]] = [
            *(agent.run() for agent in self._clients.agents.values()),
            *(viewer.run() for viewer in self._clients.viewers.values()),
            *(waiter.run() for waiter in self._clients.waiters),
            *(self._processes.watch(), self._audit_now_and_then()),
        ]
        running = [asyncio.ensure_future(part) for part in watch]
        course = asyncio.ensure_future(self._course())
        alarm = asyncio.ensure_future(self.ledger.alarm.wait())
        try:
            await asyncio.wait([course, alarm, *running], return_when=asyncio.FIRST_COMPLETED)
            for ended in (course, *running):
                if ended.done():
                    ended.result()
        finally:
            await _end([course, alarm, *running])
        if self._mistakes:
            raise self._mistakes[0]
        if self.ledger.broken is not None:
            await self._add_history(self.ledger.broken)

    async def _course(self) -> None:
        submitting = [asyncio.ensure_future(s.run()) for s in self._clients.submitters]
        self._began = time.monotonic()
        await self._carry_out(plan.plan(self._options.seed, self._options.duration_s, self._parts))
        self._say(f"{self._clock()}  the violence is over; honest agents drain the queue")
        self._clients.calmed.set()
        self._receiver.calm = True
        await asyncio.gather(*submitting)
        await self._clients.operators[plan.OPERATORS[0]].lift_all()
        agents = self._clients.agents.values()
        speaking = [asyncio.ensure_future(agent.speak_now_and_then()) for agent in agents]
        try:
            await self._drain()
        finally:
            for speech in speaking:
                speech.cancel()
            await asyncio.gather(*speaking, return_exceptions=True)
        await self._settle()

    def _hub_time(self) -> float:
        is_its = self._processes.is_the_hubs_clock
        return time.time() + (self._host_clock.ahead_s if is_its else 0)

    @property
    def _parts(self) -> Parts:
        return Parts(
            webs=[server.name for server in self._hub.webs],
            workers=[server.name for server in self._hub.workers],
            stores=self._processes.stores,
            agents=agent_names(self._options.agents),
            viewers=viewer_names(VIEWERS),
        )

    # --- Violence

    async def _carry_out(self, acts: list[Act]) -> None:
        async with asyncio.TaskGroup() as under_way:
            for act in acts:
                await asyncio.sleep(self._began + act.at_s - time.monotonic())
                under_way.create_task(self._do(act))
            await asyncio.sleep(self._began + self._options.duration_s - time.monotonic())

    async def _do(self, act: Act) -> None:
        if act.subject in self._clients.agents:
            await self._clients.agents[act.subject].suffer(act)
        elif act.subject in self._clients.viewers:
            await self._clients.viewers[act.subject].suffer(act)
        elif act.subject in self._clients.operators:
            await self._clients.operators[act.subject].act(act)
        else:
            self._last_acts.append(act)
            await self._processes.hurt(act)

    async def _audit_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(AUDIT_EVERY_S)
            await self._audit()
            self._processes.check_logs()
            figures, acts = self._figures, self._count_acts()
            self._say(
                f"{self._clock()}  {figures['tasks']:5} tasks, {figures['completed']:5} completed, "
                f"{figures['reclaimed']:4} reclaimed, {figures['failed attempts']:4} failed, "
                f"{acts:5} acts of violence"
            )

    async def _audit(self, **more: Any) -> dict[str, Any]:
        hooked = self._receiver.accepted()
        told = json.dumps({**self.ledger.as_json(), "hooked": hooked, **more})
        module = ("-m", "lab.torture.audit")
        answer: dict[str, Any] = json.loads(
            await asyncio.to_thread(self._hub.python, *module, stdin=told)
        )
        self._figures = answer["figures"]
        self.ledger.open_tasks -= set(answer["ended"])
        for found in answer["broken"][:1]:
            self.ledger.report(Broken(**found))
        for fault in self._receiver.faults[:1]:
            self.ledger.report(fault)
        self._figures["webhook requests"] = self._receiver.requests
        self._figures["webhooks accepted"] = len(hooked)
        return answer

    # --- The end

    async def _drain(self) -> None:
        give_up_at = time.monotonic() + DRAIN_S
        while time.monotonic() < give_up_at:
            states = await self._states()
            if all(_is_at_rest(state, self._options.agents) for state in states.values()):
                return
            await asyncio.sleep(0.5)
        await self._audit(states=await self._states())
        if self.ledger.broken is None:
            queue = [state["queue"] for state in (await self._states()).values()]
            text = f"{DRAIN_S} s after the violence the hub is not at rest: {queue}"
            self.ledger.breaks(FORGOTTEN, text)

    async def _settle(self) -> None:
        """All pictures must come to agree; then they are compared with the rows."""
        give_up_at = time.monotonic() + SETTLE_S
        while (unlike := self._unlike(states := await self._states())) is not None:
            if time.monotonic() > give_up_at:
                self.ledger.breaks(PATCHES, unlike)
                return
            await asyncio.sleep(0.5)
        for waiter in self._clients.waiters:
            with suppress(TimeoutError):
                await asyncio.wait_for(waiter.until_told(), SETTLE_S)
            if missing := sorted(waiter.missing):
                text = f"{waiter.name} was not told of {len(missing)} tasks"
                self.ledger.breaks(TOLD, text, missing[0])
        await self._until_hooked()
        for viewer in self._clients.viewers.values():
            viewer.end_span()
        await self._audit(states=states)
        self._processes.check_logs()

    async def _until_hooked(self) -> None:
        """All that has happened must come to the receiver of webhooks."""
        give_up_at = time.monotonic() + HOOKED_S
        while left := await asyncio.to_thread(self._unhooked):
            if time.monotonic() > give_up_at:
                text = f"{HOOKED_S} s after the violence {left} events are undelivered or unread"
                self.ledger.breaks(HOOKED, text)
                return
            await asyncio.sleep(0.5)

    def _unhooked(self) -> int:
        return sum(int(self._hub.rows(query)[0][0]) for query in (UNTOLD, UNREAD))

    def _unlike(self, states: dict[str, dict[str, Any]]) -> str | None:
        pictures = {name: viewer.folded for name, viewer in self._clients.viewers.items()} | states
        name, like = next(iter(states.items()))
        for other, picture in pictures.items():
            if picture is None:
                return f"{other} has no picture"
            if (parts := _lasting_difference(like, picture)) is not None:
                return f"nothing happens any more, but {name} and {other} differ in {parts}"
        return None

    async def _states(self) -> dict[str, dict[str, Any]]:
        """Waits for those that are slow; whoever is too slow breaks a promise elsewhere."""
        states: dict[str, dict[str, Any]] = {}
        async with httpx.AsyncClient(timeout=10) as http:
            for web in self._hub.webs:
                while web.name not in states:
                    with suppress(httpx.TransportError):
                        answer = await http.get(state_url(web))
                        if answer.status_code == 200:
                            states[web.name] = answer.json()
                            break
                    await asyncio.sleep(0.5)
        return states

    async def _add_history(self, broken: Broken) -> None:
        if broken.task_id and not broken.history:
            asked = [broken.task_id]
            with suppress(Failed):
                answer = await self._audit(histories=asked)
                history = answer["histories"][broken.task_id]
                self.ledger.broken = replace(broken, history=history)

    def _count_acts(self) -> int:
        return sum(n for what, n in self.ledger.done.items() if ": " in what)

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._began)
        return f"{seconds // 60:3}:{seconds % 60:02}"

    def _note_mistake(self, _: object, context: dict[str, Any]) -> None:
        """What a callback raises reaches nobody else."""
        self._mistakes.append(context.get("exception") or Failed(context["message"]))
        self.ledger.alarm.set()


def _is_at_rest(state: dict[str, Any], agents: int) -> bool:
    left = [state["queue"]["by_status"][name] for name in ("queued", "scheduled", "assigned")]
    idle = sum(row["fsm_state"] == "idle" for row in state["agents"])
    return not any(left) and idle == agents


def _lasting_difference(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    lasting = [name for name in one if name not in ("uptime_ms", "timestamp")]
    unlike = [name for name in lasting if one[name] != other.get(name)]
    if not unlike:
        return None
    [first, *_] = unlike
    return differing({first: one[first]}, {first: other.get(first)})


async def _end(parts: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel them until they have ended: before Python 3.12 `asyncio.wait_for` may swallow it."""
    while left := [part for part in parts if not part.done()]:
        for part in left:
            part.cancel()
        await asyncio.wait(left, timeout=1)
    await asyncio.gather(*parts, return_exceptions=True)
