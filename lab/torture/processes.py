"""The hub's processes, its database and Redis: violence to them, and whether they stand it."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
import time
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import httpx

from lab.harness.clock import HostClock
from lab.harness.hub import Ended, Hub, Server, Silent
from lab.harness.proxy import Proxy
from lab.kit.sockets import HOST, Failed
from lab.torture.ledger import ALIVE, LIGHT, QUIET, STEADY, Ledger
from lab.torture.plan import ALL_WORKERS, CLOCK, JUMPS_S, STORES, Act
from lab.torture.truth import JUMPED, Truth, untold

TICK_S = 0.5  # of the hub's workers
LIGHT_SLACK_MS = 500
STILL_S = 45  # a web process shows its state again within this, though its database was away
WARM_S = 15  # of a process, until its memory counts
GROWTH_KB = 64 * 1024
SHAKEN_S = 30  # a process may end by itself so long after its database was away
SOME_FILES = 100  # of a process without agents
WIRES = {"postgresql": "DATABASE_URL", "redis": "REDIS_URL"}
NOISE = re.compile(r"Traceback|\b(ERROR|CRITICAL)\b|[Uu]nhandled|never retrieved|never awaited")


@dataclass
class Life:
    """One process from its start to its end."""

    name: str
    began: float
    warm_kb: int = 0
    most_kb: int = 0
    most_files: int = 0


class Processes:
    def __init__(
        self, hub: Hub, clock: HostClock, ledger: Ledger, truth: Truth, agents: int
    ) -> None:
        self._hub = hub
        self._clock = clock
        self._ledger = ledger
        self._truth = truth
        self._most_files = SOME_FILES + 2 * agents
        self._servers = {server.name: server for server in hub.servers}
        self._hands = {name: asyncio.Lock() for name in self._servers}  # one act on a process
        self._proxies: dict[str, Proxy] = {}
        self._absent: set[str] = set()
        self._no_worker_since_ms: float | None = None
        self._shaken_at: float = -SHAKEN_S
        self._lives: dict[int, Life] = {}
        self._read_logs: dict[str, int] = {}

    def start(self, stack: ExitStack) -> None:
        """They are killed, and their wires cut, when the stack is left."""
        for store, setting in WIRES.items():
            if setting in self._hub.environment:
                self._proxies[store] = stack.enter_context(self._hub.wire(setting))
        stack.callback(self._hub.kill)
        self._hub.start()

    def stop(self) -> None:
        """In good order."""
        for server in self._hub.servers:
            self._end(server, "restart")
        self.check_logs()

    @property
    def stores(self) -> list[str]:
        """What `hurt` can take away beside the processes."""
        return list(self._proxies) if "postgresql" in self._proxies else [*self._proxies, "sqlite"]

    def use(self) -> dict[str, str]:
        """What the longest lives of each took."""
        return {
            f"{life.name}, memory and files": f"{life.warm_kb // 1024} → {life.most_kb // 1024} MiB"
            f", {life.most_files}"
            for life in sorted(self._lives.values(), key=lambda life: life.most_kb)
            if life.warm_kb
        }

    # --- Violence

    async def hurt(self, act: Act) -> None:
        role = re.sub(r"-\d+$", "", act.subject)
        self._ledger.done[f"{role}: {act.kind}"] += 1
        if act.subject == CLOCK:
            await self._set_clock(act)
            return
        with self._truth.disturbed():
            await self._harm(act)

    async def _harm(self, act: Act) -> None:
        if act.subject in STORES:
            self._shaken_at = time.monotonic()
            await self._hurt_store(act)
            self._shaken_at = time.monotonic()
        elif act.subject == ALL_WORKERS:
            group = [self._freeze(server, act.lasts_s) for server in self._hub.workers]
            await asyncio.gather(*group)
        elif act.kind == "freeze":
            await self._freeze(self._servers[act.subject], act.lasts_s)
        else:
            await self._replace(self._servers[act.subject], act)

    async def _set_clock(self, act: Act) -> None:
        """A worker that was kept from its work between the two jumps cannot know of them."""
        await self._jump(JUMPS_S[act.kind])
        jumped_at = time.monotonic()
        await asyncio.sleep(act.lasts_s)
        await self._jump(0)
        if self.is_the_hubs_clock and self._truth.is_undisturbed_since(jumped_at):
            self._truth.begins(JUMPED, CLOCK)

    async def _jump(self, ahead_s: float) -> None:
        """While all processes run: one that starts later cannot know how the clock was before."""
        async with AsyncExitStack() as stack:
            for hand in self._hands.values():
                await stack.enter_async_context(hand)
            self._clock.set_ahead(ahead_s)

    @property
    def is_the_hubs_clock(self) -> bool:
        """PostgreSQL has one of its own, which torture cannot set."""
        return "sqlite" in self.stores

    async def _hurt_store(self, act: Act) -> None:
        if act.subject == "sqlite":
            await asyncio.to_thread(self._hold_write_lock, act.lasts_s)
            return
        proxy = self._proxies[act.subject]
        await asyncio.to_thread(getattr(proxy, act.kind))
        await asyncio.sleep(act.lasts_s)
        await asyncio.to_thread(proxy.restore)

    def _hold_write_lock(self, seconds: float) -> None:
        database = sqlite3.connect(self._hub.data_dir / "agentcom.sqlite3", timeout=20)
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
        self._truth.ends(JUMPED, CLOCK)
        if kind == "kill":
            server.kill()
            return
        try:
            server.terminate()
        except Failed as failed:
            self._ledger.breaks(ALIVE, f"{server.name}: {_ends_of(str(failed))}")

    async def _start(self, server: Server) -> None:
        """As systemd would do it: again, when it could not begin."""
        self._note_back(server)
        while True:
            try:
                await asyncio.to_thread(server.start)
            except Failed as failed:
                if isinstance(failed, Silent) or not self._is_shaken:
                    self._ledger.breaks(ALIVE, _ends_of(str(failed)))
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

    async def watch(self) -> None:
        """Until cancelled; what is wrong goes to the ledger."""
        await asyncio.gather(self._watch_lives(), *(self._watch_web(web) for web in self._hub.webs))

    async def _watch_web(self, web: Server) -> None:
        """It answers again soon after whatever was done, and its light tells the truth."""
        answered_at = time.monotonic()
        async with httpx.AsyncClient(timeout=5) as http:
            while True:
                await asyncio.sleep(TICK_S)
                wrong = self._truth.must_be_told()
                answer = await _ask(http, web)
                now = time.monotonic()
                if answer is not None or self._hands[web.name].locked():
                    answered_at = now
                if answer is not None:
                    self._check_light(answer)
                    self._check_truth(wrong & self._truth.must_be_told(), answer["health"])
                elif now - answered_at > STILL_S:
                    text = f"{web.name} has shown no state for {now - answered_at:.0f} s"
                    self._ledger.breaks(ALIVE, text)

    def _check_light(self, state: dict[str, Any]) -> None:
        since_ms = self._no_worker_since_ms
        if since_ms is None or not self._hub.workers:
            return
        silent_ms = state["timestamp"] - since_ms
        if silent_ms < 3 * TICK_S * 1000 + LIGHT_SLACK_MS:
            return
        self._ledger.done["light looked at without a worker"] += 1
        told = [detail["code"] for detail in state["health"]["details"]]
        if "worker_silent" not in told:
            text = f"no worker for {silent_ms / 1000:.1f} s, and the light says {told or 'ok'}"
            self._ledger.breaks(LIGHT, text)

    def _check_truth(self, wrong: set[tuple[str, str]], health: dict[str, Any]) -> None:
        for code, _ in wrong:
            self._ledger.done[f"light looked at with {code.replace('_', ' ')}"] += 1
        if missing := untold(wrong, health):
            text = f"{missing} for seconds, and the light says {health['conditions'] or 'ok'}"
            self._ledger.breaks(LIGHT, text)
        told = [detail["code"] for detail in health["details"]]
        if JUMPED in told and not self.is_the_hubs_clock:
            text = f"the database's clock was not set, and the light says {health['conditions']}"
            self._ledger.breaks(LIGHT, text)

    async def _watch_lives(self) -> None:
        while True:
            await asyncio.sleep(2)
            for server in self._hub.servers:
                if self._hands[server.name].locked():
                    continue
                if server.is_running:
                    with suppress(Ended, OSError):  # in this very moment; the next look will tell
                        self._check_use(server)
                    continue
                if not self._is_shaken:
                    self._ledger.breaks(ALIVE, f"{server.name} ended:\n{_ends_of(server.log)}")
                self._ledger.done["processes that could not begin without a database"] += 1
                async with self._hands[server.name]:
                    with self._truth.disturbed():
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
            self._ledger.breaks(STEADY, text)
        if files > self._most_files:
            self._ledger.breaks(STEADY, f"{server.name} has {files} files open")

    def check_logs(self) -> None:
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
                    self._ledger.breaks(QUIET, f"{server.name} logged:\n{text}")
                    return


async def _ask(http: httpx.AsyncClient, web: Server) -> dict[str, Any] | None:
    """Its state; None when it gives none."""
    try:
        answer = await http.get(state_url(web))
    except httpx.TransportError:
        return None
    state: dict[str, Any] = answer.json()
    return state if answer.status_code == 200 else None


def state_url(web: Server) -> str:
    return f"http://{HOST}:{web.port}/api/dashboard/state"


def _ends_of(text: str) -> str:
    return text if len(text) < 2_000 else f"{text[:200]} …\n… {text[-1_500:]}"
