"""People who steer the hub: they cancel, hold, retry and move tasks to other lanes, at random."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx

from lab.kit.sockets import HOST
from lab.torture.ledger import ANSWERS
from lab.torture.plan import SKILLS, Act

if TYPE_CHECKING:
    from lab.torture.clients import Clients

ANSWER_S = 60.0
LATELY = 60  # assignments among which most tasks to cancel are found: they may be running
LANES = ("urgent", "high", "normal", "low")
TIMEOUTS_S = (None, None, None, 0, 1)
HOLDS_MAX = 4  # in force, or little would be done


class Operator:
    def __init__(self, clients: Clients, name: str, token: str) -> None:
        self._clients = clients
        self._ledger = clients.ledger
        self._chance = random.Random(f"{clients.seed} {name}")
        self._headers = {"Authorization": f"Bearer {token}"}

    async def act(self, act: Act) -> None:
        self._ledger.done[f"operator: {act.kind}"] += 1
        with suppress(httpx.TransportError):
            await ACTS[act.kind](self)

    async def _ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        url = f"http://{HOST}:{self._clients.next_port()}/api{path}"
        async with httpx.AsyncClient(headers=self._headers, timeout=ANSWER_S) as http:
            return await http.request(method, url, json=body)

    def _expect(self, answer: httpx.Response, what: str, *codes: int) -> bool:
        """Whether it was done; that the hub cannot do anything at the moment is no fault."""
        if answer.status_code not in (*codes, 503):
            text = f"{what} was answered with {answer.status_code} {answer.text[:200]}"
            self._ledger.breaks(ANSWERS, text)
        return answer.is_success

    # --- Tasks

    async def _cancel(self) -> None:
        for task_id in self._some_tasks():
            await self._cancel_one(task_id)
            if self._chance.random() < 0.3:
                await self._cancel_one(task_id)

    async def _cancel_one(self, task_id: str) -> None:
        timeout_s = self._chance.choice(TIMEOUTS_S)
        body: dict[str, Any] = {"reason": "not needed any more"}
        if timeout_s is not None:
            body["timeout_s"] = timeout_s
        self._ledger.to_cancel.add(task_id)
        answer = await self._ask("POST", f"/tasks/{task_id}/cancel", body)
        if self._expect(answer, "cancel", 200, 202, 409) or answer.status_code == 409:
            said = answer.json()
            self._ledger.cancel_answered(str(said.get("status") or said["error"]), task_id)

    def _some_tasks(self) -> list[str]:
        known = self._ledger.open_tasks
        lately = list(dict.fromkeys(id_ for id_, _ in list(self._ledger.holders)[-LATELY:]))
        running = [task_id for task_id in lately if task_id in known]
        long = sorted(self._ledger.running & known)
        [among] = self._chance.choices((long or running, running, sorted(known)), (6, 2, 2))
        return self._chance.sample(among, min(len(among), self._chance.randint(1, 3)))

    async def _change_priorities(self) -> None:
        for task_id in self._some_tasks():
            body = {"priority": self._chance.choice(LANES)}
            answer = await self._ask("PATCH", f"/tasks/{task_id}", body)
            self._expect(answer, "another priority", 200, 409)

    async def _retry_dead_letters(self) -> None:
        answer = await self._ask("GET", "/tasks/dead-letter?limit=5")
        for task in answer.json().get("tasks", []):
            await self._retry(task["id"])

    async def _retry_cancelled(self) -> None:
        cancelled = [task_id for said, task_id in self._ledger.cancels if said == "cancelled"]
        for task_id in self._chance.sample(cancelled, min(len(cancelled), 2)):
            await self._retry(task_id)

    async def _retry(self, task_id: str) -> None:
        answer = await self._ask("POST", f"/tasks/{task_id}/retry")
        if self._expect(answer, "retry", 200, 404):
            self._ledger.done["retried by hand"] += 1
            self._ledger.open_tasks.add(task_id)

    # --- Holds

    async def _place_hold(self) -> None:
        if len(self._clients.holds) >= HOLDS_MAX:
            await self._lift_hold()
        agents = list(self._clients.agents)
        [scope] = self._chance.choices(("hub", "lane", "capability", "agent"), (1, 3, 2, 6))
        subjects = {"lane": LANES, "capability": SKILLS, "agent": agents}
        body: dict[str, Any] = {"scope": scope, "reason": "to see what happens"}
        if scope in subjects:
            body["subject"] = self._chance.choice(subjects[scope])
        if scope == "hub" or self._chance.random() < 0.5:
            body["until"] = int((self._clients.hub_time() + self._chance.uniform(2, 6)) * 1000)
        answer = await self._ask("POST", "/holds", body)
        # held up until the hold would have been over
        is_late = answer.status_code == 400 and answer.json().get("field") == "until"
        if not is_late and self._expect(answer, "a hold", 201):
            self._clients.holds.append(answer.json()["id"])

    async def _lift_hold(self) -> None:
        if self._clients.holds:
            hold_id = self._chance.choice(self._clients.holds)
            await self._lift(hold_id)

    async def _lift(self, hold_id: str) -> None:
        answer = await self._ask("DELETE", f"/holds/{hold_id}")
        self._expect(answer, "lifting a hold", 200, 404)
        if answer.status_code in (200, 404) and hold_id in self._clients.holds:
            self._clients.holds.remove(hold_id)

    async def lift_all(self) -> None:
        """Also those whose answers were lost."""
        while True:
            with suppress(httpx.TransportError):
                answer = await self._ask("GET", "/holds")
                if answer.status_code == 200:
                    holds = answer.json()["holds"]
                    if not holds:
                        return
                    for hold in holds:
                        await self._lift(hold["id"])
            await asyncio.sleep(0.5)


ACTS = {
    "retry dead letters": Operator._retry_dead_letters,
    "retry what was cancelled": Operator._retry_cancelled,
    "cancel tasks": Operator._cancel,
    "change priorities": Operator._change_priorities,
    "place a hold": Operator._place_hold,
    "lift a hold": Operator._lift_hold,
}
