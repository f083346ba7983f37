"""Everybody who uses the hub: agents, submitters, viewers, an operator."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from agentcom_client.patches import fold
from lab.kit.sockets import HOST, Message, WebSocket
from lab.torture.agents import ANSWER_S, LOSSES, ChaosAgent, stop_reading
from lab.torture.ledger import ANSWERS, EVENTS, PATCHES, Ledger
from lab.torture.operators import Operator
from lab.torture.plan import DEADLINE_S, OPERATORS, SKILLS, Act, order
from lab.torture.truth import Truth
from lab.torture.waiters import ChaosWaiter

WAITERS = 2
OPEN_MAX = 150  # tasks under way, until submitters wait


class ChaosSubmitter:
    """Submits under a key, and again after a cut, until it has an answer."""

    def __init__(self, clients: Clients, name: str, token: str) -> None:
        self._clients = clients
        self._name = name
        self._headers = {"Authorization": f"Bearer {token}"}
        self._chance = random.Random(f"{clients.seed} {name}")

    async def run(self) -> None:
        """Until all are calm; what was begun is finished."""
        number = 0
        async with httpx.AsyncClient(headers=self._headers, timeout=ANSWER_S) as http:
            while not self._clients.calm:
                await asyncio.sleep(self._chance.expovariate(self._clients.rate))
                if len(self._clients.ledger.open_tasks) < OPEN_MAX:
                    number += 1
                    await self._submit(http, f"{self._name}/{number}")

    async def _submit(self, http: httpx.AsyncClient, key: str) -> None:
        wish = order(self._clients.seed, key)
        hang_up_s = wish.hang_up_s
        for _ in range(2 if wish.ask_again else 1):
            while not await self._post(http, key, wish.tasks, wish.is_array, hang_up_s):
                self._clients.ledger.done["submits sent again"] += 1
                hang_up_s = None
                await asyncio.sleep(self._chance.uniform(0.1, 0.6))

    async def _post(
        self,
        http: httpx.AsyncClient,
        key: str,
        tasks: list[dict[str, Any]],
        is_array: bool,
        hang_up_s: float | None,
    ) -> bool:
        dated = [self._made_concrete(task) for task in tasks]
        try:
            answer = await asyncio.wait_for(
                http.post(
                    f"http://{HOST}:{self._clients.next_port()}/api/tasks",
                    json=dated if is_array else dated[0],
                    headers={"Idempotency-Key": key},
                ),
                hang_up_s,
            )
        except (httpx.TransportError, TimeoutError):
            return False
        if answer.status_code == 201:
            body = answer.json()
            receipts = body["tasks"] if is_array else [body]
            self._clients.ledger.submitted(key, [receipt["task_id"] for receipt in receipts])
            return True
        # held up beyond the task's deadline; the next try has a new one
        is_late = answer.status_code == 400 and answer.json().get("field") == "complete_by"
        if answer.status_code != 503 and not is_late:
            text = f"key {key} was answered with {answer.status_code} {answer.text[:200]}"
            self._clients.ledger.breaks(ANSWERS, text)
        return False

    def _made_concrete(self, task: dict[str, Any]) -> dict[str, Any]:
        """With its times, by the clock that is right, and with the one agent that may have it."""
        about, more = task["metadata"], dict[str, Any]()
        if about["fate"] == "miss the deadline":
            more["complete_by"] = int((self._clients.hub_time() + DEADLINE_S) * 1000)
        if "starts_in_s" in about:
            more["not_before"] = int((time.time() + about["starts_in_s"]) * 1000)
        if "only" in about:
            number = about["only"] % len(self._clients.agents)
            more["assign_to"] = agent_name(number)
            wanted = set(task["needed_capabilities"]) & set(skills_of(number))
            more["needed_capabilities"] = sorted(wanted)
        return {**task, **more}


class ChaosViewer:
    """A dashboard that folds patches and counts events."""

    def __init__(self, clients: Clients, name: str) -> None:
        self.name = name
        self.folded: dict[str, Any] | None = None
        self._clients = clients
        self._ledger = clients.ledger
        self._socket: WebSocket | None = None
        self._span = (0, 0, 0)

    async def run(self) -> None:
        while True:
            self.folded = None
            with suppress(*LOSSES):
                port = self._clients.next_port()
                self._socket = socket = await WebSocket.connect(
                    port, "/ws/dashboard", self._on_text
                )
                socket.send(type="subscribe", patches=True)
                await socket.closed
            self.end_span()
            self._ledger.done["viewers came back"] += 1
            await asyncio.sleep(0.5)

    def end_span(self) -> None:
        if self._span[2]:
            self._ledger.spans.append(self._span)
        self._span = (0, 0, 0)

    async def suffer(self, act: Act) -> None:
        socket = self._socket
        if socket is None or socket.closed.done():
            return
        self._ledger.done[f"viewer: {act.kind}"] += 1
        if act.kind == "cut":
            socket.close()
        elif act.kind == "stop reading":
            await stop_reading(socket, act.lasts_s)
        else:
            for _ in range(50):
                if socket.closed.done():
                    return
                socket.send(type="request_snapshot")
                await asyncio.sleep(0.02)

    def _on_text(self, text: bytes) -> None:
        message: Message = orjson.loads(text)
        if message["type"] == "snapshot":
            self._on_snapshot(message["data"])
        elif message["type"] == "patch":
            self._on_patch(message)
        elif message["type"] == "events":
            begin, until, count = self._span
            if message["seq"] < until:
                text_ = f"{self.name}: a frame up to seq {message['seq']} came after {until}"
                self._ledger.breaks(EVENTS, text_)
            tasks = sum(event["type"] == "task_event" for event in message["data"])
            self._span = (begin, message["seq"], count + tasks)

    def _on_snapshot(self, snapshot: dict[str, Any]) -> None:
        if self.folded is None:
            self._span = (snapshot["seq"], snapshot["seq"], 0)
        self.folded = snapshot
        self._ledger.saw(snapshot)

    def _on_patch(self, patch: Message) -> None:
        if self.folded is None:
            self._ledger.breaks(PATCHES, f"{self.name}: a patch came before the snapshot")
            return
        try:
            self.folded = fold(self.folded, patch)
        except KeyError as missing:
            self._ledger.breaks(PATCHES, f"{self.name}: a patch removes {missing}, which is not")
            return
        self._ledger.saw(self.folded)


@dataclass
class Clients:
    """Everybody who uses the hub. Calm, its agents complete what they get at once."""

    seed: int
    ledger: Ledger
    truth: Truth
    next_port: Callable[[], int]
    rate: float  # submits a second and submitter
    hub_time: Callable[[], float]  # s since the epoch, as the hub has it
    has_one_process: bool
    calmed: asyncio.Event = field(default_factory=asyncio.Event)
    holds: list[str] = field(default_factory=list)  # that operators have placed

    @property
    def calm(self) -> bool:
        return self.calmed.is_set()

    def staff(self, tokens: Mapping[str, str], agents: int, submitters: int, viewers: int) -> None:
        """`tokens`: by name; the slots of an agent have its token."""
        self.agents = {
            name: ChaosAgent(self, name, tokens[name.partition("#")[0]], skills_of(number))
            for number, name in enumerate(agent_names(agents))
        }
        self.submitters = [ChaosSubmitter(self, n, tokens[n]) for n in submitter_names(submitters)]
        self.viewers = {name: ChaosViewer(self, name) for name in viewer_names(viewers)}
        self.waiters = [
            ChaosWaiter(
                *(self.seed, f"waiter-{number}", tokens[OPERATORS[0]]),
                *(self.next_port, self.ledger, self.calmed),
            )
            for number in range(min(WAITERS, submitters))
        ]
        self.operators = {name: Operator(self, name, tokens[name]) for name in OPERATORS}


def skills_of(number: int) -> list[str]:
    """Some can do all, others lack one."""
    lacking = number % (len(SKILLS) + 1)
    return [skill for place, skill in enumerate(SKILLS) if place != lacking]


def agent_names(count: int) -> list[str]:
    return [agent_name(number) for number in range(count)]


def agent_name(number: int) -> str:
    """Of every ten, one is the second slot of the one before it."""
    return f"agent-{number - 1:02}#2" if number % 10 == 3 else f"agent-{number:02}"


def submitter_names(count: int) -> list[str]:
    return [f"submitter-{number}" for number in range(count)]


def viewer_names(count: int) -> list[str]:
    return [f"viewer-{number}" for number in range(count)]
