"""One run: starts the hub and the fleet, carries out the plan, asks for audits, waits for calm."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from agentcom.harness.clients import HOST, Failed
from agentcom.harness.hub import Cluster, Hub, Server
from agentcom.harness.proxy import Proxy
from agentcom.torture import plan
from agentcom.torture.fleet import Fleet, agent_names, submitter_names, viewer_names
from agentcom.torture.ledger import (
    ALIVE,
    FORGOTTEN,
    LIGHT,
    PATCHES,
    QUIET,
    STEADY,
    Broken,
    Ledger,
    differing,
)
from agentcom.torture.plan import ALL_WORKERS, Act, Parts

TICK_S = 0.5
SETTINGS = {
    "AGENTCOM_RECLAIM_GRACE_S": "2",
    "AGENTCOM_ACCEPT_TIMEOUT_S": "5",
    "AGENTCOM_RECLAIM_AFTER_S": "8",
    "AGENTCOM_WORKER_TICK_S": str(TICK_S),
    "AGENTCOM_NODE_TIMEOUT_S": "3",
    "AGENTCOM_QUEUE_SAMPLE_S": "5",
}
SUBMITTERS, VIEWERS = 4, 4
RATE = 1.0  # submits a second and submitter, some of them arrays
AUDIT_EVERY_S = 30
DRAIN_S = 120  # for what is left when the violence is over
SETTLE_S = 20  # for pictures to agree after that
LIGHT_SLACK_MS = 500
WARM_S = 15  # of a process, until its memory counts
GROWTH_KB = 64 * 1024
SHAKEN_S = 30  # a process may end by itself so long after its database was away
SOME_FILES = 100  # of a process without connections
EVIDENCE_ACTS = 8
STORES = {"postgresql": "DATABASE_URL", "redis": "REDIS_URL"}
NOISE = re.compile(r"Traceback|\b(ERROR|CRITICAL)\b|[Uu]nhandled|never retrieved|never awaited")


@dataclass(frozen=True)
class Options:
    seed: int
    duration_s: float
    webs: int  # with 0 the hub is one process
    workers: int
    agents: int


@dataclass
class Outcome:
    broken: Broken | None
    done: dict[str, int]
    figures: dict[str, int]
    longest_outage_s: float
    last_acts: list[Act]
    use: dict[str, str]


@dataclass
class Life:
    """One process from its start to its end."""

    name: str
    began: float
    warm_kb: int = 0
    most_kb: int = 0
    most_files: int = 0


class Ordeal:
    """`say` gets a line now and then."""

    def __init__(self, options: Options, folder: Path, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._folder = folder
        self.ledger = Ledger()
        self._hub = self._make_hub()
        self._proxies: dict[str, Proxy] = {}
        self._servers = {server.name: server for server in self._hub.servers}
        self._hands = {name: asyncio.Lock() for name in self._servers}  # one act on a process
        self._absent: set[str] = set()
        self._no_worker_since_ms: float | None = None
        self._shaken_at: float = -SHAKEN_S
        self._lives: dict[int, Life] = {}
        self._read_logs: dict[str, int] = {}
        self._last_acts: deque[Act] = deque(maxlen=EVIDENCE_ACTS)
        self._figures: dict[str, int] = {}
        self._mistakes: list[BaseException] = []
        self._began = time.monotonic()

    def run(self) -> Outcome:
        """Raises `Failed`, and whatever a mistake of torture itself raises."""
        with ExitStack() as stack:
            for store, setting in STORES.items():
                if setting in self._hub.environment:
                    self._proxies[store] = stack.enter_context(self._hub.wire(setting))
            stack.callback(self._hub.kill)
            self._hub.start()
            asyncio.run(self._endure())
            if self.ledger.broken is None:
                self._hub.terminate()
                self._check_logs()
        return Outcome(
            self.ledger.broken,
            dict(self.ledger.done),
            self._figures,
            self.ledger.longest_outage_s,
            list(self._last_acts),
            self._use(),
        )

    def _use(self) -> dict[str, str]:
        """What the processes that lived longest took."""
        return {
            life.name: f"{life.warm_kb // 1024} → {life.most_kb // 1024} MiB, "
            f"{life.most_files} files at most"
            for life in sorted(self._lives.values(), key=lambda life: life.most_kb)
            if life.warm_kb
        }

    def _make_hub(self) -> Hub:
        webs, workers = self._options.webs, self._options.workers
        if webs:
            return Cluster(self._folder, webs, workers, **SETTINGS)
        return Hub(self._folder, **SETTINGS)

    # --- The whole, step by step

    async def _endure(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._note_mistake)
        names = [*agent_names(self._options.agents), *submitter_names(SUBMITTERS)]
        tokens = await asyncio.to_thread(self._hub.tokens, names)
        self._operator = tokens[names[-1]]
        self._fleet = Fleet(self._options.seed, self.ledger, self._hub.next_port, RATE)
        self._fleet.staff(tokens, self._options.agents, SUBMITTERS, VIEWERS)
        watch: list[Coroutine[Any, Any, None]] = [
            *(agent.run() for agent in self._fleet.agents.values()),
            *(viewer.run() for viewer in self._fleet.viewers.values()),
            *(self._watch_light(), self._watch_processes(), self._audit_now_and_then()),
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
            for part in (everything := (course, alarm, *running)):
                part.cancel()
            await asyncio.gather(*everything, return_exceptions=True)
        if self._mistakes:
            raise self._mistakes[0]
        if self.ledger.broken is not None:
            await self._add_history(self.ledger.broken)

    async def _course(self) -> None:
        submitting = [asyncio.ensure_future(s.run()) for s in self._fleet.submitters]
        self._began = time.monotonic()
        await self._carry_out(plan.plan(self._options.seed, self._options.duration_s, self._parts))
        self._say(f"{self._clock()}  the violence is over; honest agents work off what is left")
        self._fleet.calm = True
        await asyncio.gather(*submitting)
        await self._drain()
        await self._settle()

    @property
    def _parts(self) -> Parts:
        stores = list(self._proxies)
        if "postgresql" not in self._proxies:
            stores.append("sqlite")
        return Parts(
            webs=[server.name for server in self._hub.webs],
            workers=[server.name for server in self._hub.workers],
            stores=stores,
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
        if act.subject in self._fleet.agents:
            await self._fleet.agents[act.subject].suffer(act)
        elif act.subject in self._fleet.viewers:
            await self._fleet.viewers[act.subject].suffer(act)
        elif act.subject == "operator":
            await self._fleet.retry_dead_letters(self._operator)
        else:
            self._last_acts.append(act)
            await self._hurt(act)

    async def _hurt(self, act: Act) -> None:
        role = re.sub(r"-\d+$", "", act.subject)
        self.ledger.done[f"{role}: {act.kind}"] += 1
        if act.subject == "sqlite":
            await asyncio.to_thread(self._hold_write_lock, act.lasts_s)
            self._shaken_at = time.monotonic()
        elif act.subject in self._proxies:
            await self._hurt_store(self._proxies[act.subject], act)
        elif act.subject == ALL_WORKERS:
            group = [self._freeze(server, act.lasts_s) for server in self._hub.workers]
            await asyncio.gather(*group)
        elif act.kind == "freeze":
            await self._freeze(self._servers[act.subject], act.lasts_s)
        else:
            await self._replace(self._servers[act.subject], act)

    async def _hurt_store(self, proxy: Proxy, act: Act) -> None:
        self._shaken_at = time.monotonic()
        await asyncio.to_thread(getattr(proxy, act.kind))
        await asyncio.sleep(act.lasts_s)
        await asyncio.to_thread(proxy.restore)
        self._shaken_at = time.monotonic()

    def _hold_write_lock(self, seconds: float) -> None:
        database = sqlite3.connect(self._folder / "agentcom.sqlite3", timeout=20)
        try:
            database.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
        finally:
            database.close()

    async def _freeze(self, server: Server, seconds: float) -> None:
        async with self._hands[server.name]:
            if not server.is_running:
                return
            server.send(signal.SIGSTOP)
            self._note_absent(server)
            try:
                await asyncio.sleep(seconds)
            finally:
                self._note_back(server)
                server.send(signal.SIGCONT)

    async def _replace(self, server: Server, act: Act) -> None:
        async with self._hands[server.name]:
            await asyncio.to_thread(self._end, server, act.kind)
            self._note_absent(server)
            await asyncio.sleep(act.lasts_s)
            await self._start(server)

    def _end(self, server: Server, kind: str) -> None:
        if kind == "kill":
            server.kill()
            return
        try:
            server.terminate()
        except Failed as failed:
            self.ledger.breaks(ALIVE, f"{server.name}: {_ends_of(str(failed))}")

    async def _start(self, server: Server) -> None:
        """As systemd would do it: again, when it could not begin."""
        self._note_back(server)
        while True:
            try:
                await asyncio.to_thread(server.start)
            except Failed as failed:
                if not self._is_shaken:
                    self.ledger.breaks(ALIVE, _ends_of(str(failed)))
                    return
                await asyncio.sleep(1)
            else:
                self._lives[server.pid] = Life(server.name, time.monotonic())
                return

    def _note_absent(self, server: Server) -> None:
        self._absent.add(server.name)
        if all(worker.name in self._absent for worker in self._hub.workers):
            self._no_worker_since_ms = time.time() * 1000

    def _note_back(self, server: Server) -> None:
        self._absent.discard(server.name)
        if not server.port:
            self._no_worker_since_ms = None

    @property
    def _is_shaken(self) -> bool:
        """Whether the database was away a short time ago, without which nothing can begin."""
        return time.monotonic() - self._shaken_at < SHAKEN_S

    # --- What is looked at all the time

    async def _watch_light(self) -> None:
        async with httpx.AsyncClient(timeout=5) as http:
            while True:
                await asyncio.sleep(TICK_S)
                with suppress(httpx.TransportError):
                    answer = await http.get(_state_url(self._hub.next_port()))
                    if answer.status_code == 200:
                        self._check_light(answer.json())

    def _check_light(self, state: dict[str, Any]) -> None:
        since_ms = self._no_worker_since_ms
        if since_ms is None or not self._hub.workers:
            return
        silent_ms = state["timestamp"] - since_ms
        if silent_ms < 3 * TICK_S * 1000 + LIGHT_SLACK_MS:
            return
        self.ledger.done["light looked at without a worker"] += 1
        if state["health"]["status"] == "ok":
            text = f"no worker for {silent_ms / 1000:.1f} s, and the light is green"
            self.ledger.breaks(LIGHT, text)

    async def _watch_processes(self) -> None:
        while True:
            await asyncio.sleep(2)
            for server in self._hub.servers:
                if self._hands[server.name].locked():
                    continue
                if server.is_running:
                    self._check_use(server)
                    continue
                if not self._is_shaken:
                    self.ledger.breaks(ALIVE, f"{server.name} ended:\n{_ends_of(server.log)}")
                self.ledger.done["processes that could not begin without a database"] += 1
                async with self._hands[server.name]:
                    await self._start(server)

    def _check_use(self, server: Server) -> None:
        life = self._lives.setdefault(server.pid, Life(server.name, time.monotonic()))
        used_kb, files = server.resident_kb, server.open_files
        if time.monotonic() - life.began < WARM_S:
            return
        life.warm_kb = life.warm_kb or used_kb
        life.most_kb, life.most_files = max(life.most_kb, used_kb), max(life.most_files, files)
        if used_kb > life.warm_kb + GROWTH_KB:
            text = f"{server.name} grew from {life.warm_kb} to {used_kb} kB"
            self.ledger.breaks(STEADY, text)
        if files > SOME_FILES + 2 * self._options.agents:
            self.ledger.breaks(STEADY, f"{server.name} has {files} files open")

    def _check_logs(self) -> None:
        for server in self._hub.servers:
            log = server.log
            begin = self._read_logs.get(server.name, 0)
            lines = log[begin:].splitlines(keepends=True)
            if lines and not lines[-1].endswith("\n"):
                lines.pop()
            self._read_logs[server.name] = begin + sum(map(len, lines))
            for number, line in enumerate(lines):
                if NOISE.search(line):
                    text = "".join(lines[max(0, number - 1) : number + 12])
                    self.ledger.breaks(QUIET, f"{server.name} logged:\n{text}")
                    return

    async def _audit_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(AUDIT_EVERY_S)
            await self._audit()
            self._check_logs()
            figures, acts = self._figures, self._count_acts()
            self._say(
                f"{self._clock()}  {figures['tasks']:5} tasks, {figures['completed']:5} completed, "
                f"{figures['reclaimed']:4} reclaimed, {figures['failed attempts']:4} failed, "
                f"{acts:5} acts of violence"
            )

    async def _audit(self, **more: Any) -> dict[str, Any]:
        told = json.dumps({**self.ledger.as_json(), **more})
        module = ("-m", "agentcom.torture.audit")
        answer: dict[str, Any] = json.loads(
            await asyncio.to_thread(self._hub.python, *module, stdin=told)
        )
        self._figures = answer["figures"]
        for found in answer["broken"][:1]:
            self.ledger.report(Broken(**found))
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
            text = f"{DRAIN_S} s after the violence the fleet is not at rest: {queue}"
            self.ledger.breaks(FORGOTTEN, text)

    async def _settle(self) -> None:
        """All pictures must come to agree; then they are compared with the rows."""
        give_up_at = time.monotonic() + SETTLE_S
        while (unlike := self._unlike(states := await self._states())) is not None:
            if time.monotonic() > give_up_at:
                self.ledger.breaks(PATCHES, unlike)
                return
            await asyncio.sleep(0.5)
        for viewer in self._fleet.viewers.values():
            viewer.end_span()
        await self._audit(states=states)
        self._check_logs()

    def _unlike(self, states: dict[str, dict[str, Any]]) -> str | None:
        pictures = {name: viewer.folded for name, viewer in self._fleet.viewers.items()} | states
        name, like = next(iter(states.items()))
        for other, picture in pictures.items():
            if picture is None:
                return f"{other} has no picture"
            if (parts := _lasting_difference(like, picture)) is not None:
                return f"nothing happens any more, but {name} and {other} differ in {parts}"
        return None

    async def _states(self) -> dict[str, dict[str, Any]]:
        async with httpx.AsyncClient(timeout=30) as http:
            return {
                server.name: (await http.get(_state_url(server.port))).json()
                for server in self._hub.webs
            }

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


def _ends_of(text: str) -> str:
    return text if len(text) < 2_000 else f"{text[:200]} …\n… {text[-1_500:]}"


def _state_url(port: int) -> str:
    return f"http://{HOST}:{port}/api/dashboard/state"


def _is_at_rest(state: dict[str, Any], agents: int) -> bool:
    by_status = state["queue"]["by_status"]
    idle = sum(row["fsm_state"] == "idle" for row in state["agents"])
    return not by_status["queued"] and not by_status["assigned"] and idle == agents


def _lasting_difference(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    lasting = [name for name in one if name not in ("uptime_ms", "timestamp")]
    unlike = [name for name in lasting if one[name] != other.get(name)]
    if not unlike:
        return None
    [first, *_] = unlike
    return differing({first: one[first]}, {first: other.get(first)})
