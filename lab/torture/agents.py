"""Agents that work for the hub and misbehave: cheap ones, many in one process."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from lab.kit.sockets import BROKEN, TEXT, Failed, Message, WebSocket, frame
from lab.torture.ledger import ANSWERS, FENCED, HANDED, KEPT, LOST, Assignment
from lab.torture.plan import FOR_EVER, Act
from lab.torture.truth import BOUND_S, OFFLINE

if TYPE_CHECKING:
    from lab.torture.clients import Clients

ANSWER_S = 60.0  # the database or the process may be away for some seconds
AWAY_S = BOUND_S + 3  # longer than the hub's grace, and until the light must tell
PROMPT_S = 2.0  # far below each limit of the hub
SILENT_S = 12.0  # longer than the hub's patience
LATE_S = 7.0  # longer than the hub waits for an agent that is to stop
LONG_S = 6.0
SPEAK_EVERY_S = 3.0
# What an agent does when it is to stop: it stops and says so, soon or too late; it works on; or it
# is too old to be asked.
MANNERS = ("prompt", "prompt", "late", "stubborn", "deaf")
NO_TASK = "task-0000000000000000"
SIGNED_OFF, TOO_LARGE, RESTART, REPLACED = 1000, 1009, 1012, 4409
MALFORMED = (
    "{",
    "[]",
    '"task_complete"',
    '{"type":7}',
    '{"type":"task_complete"}',
    f'{{"type":"task_complete","task_id":"{NO_TASK}","generation":"1","result":{{}}}}',
    f'{{"type":"task_complete","task_id":"{NO_TASK}","generation":1,"result":[]}}',
    f'{{"type":"task_failed","task_id":"{NO_TASK}","generation":-1,"error":"x"}}',
    '{"type":"task_accepted","task_id":{"a":1}}',
    '{"type":"drop_all_tables"}',
    "[" * 5_000,
)
COMPLAINTS = {"invalid_json", "invalid_message", "unknown_message_type"}
STALE = {"retried", "requeued", "cancelled"}  # after these acks nothing more is to be said
REFUSALS = {"stale_generation", "invalid_state", "not_yours", "not_found"}
LOSSES = (Failed, OSError, TimeoutError)


class Line:
    """An agent's socket. Questions are answered in their order; pushes come in between."""

    def __init__(
        self, on_push: Callable[[Message], None], on_cancel: Callable[[Message], None]
    ) -> None:
        self._on_push = on_push
        self._on_cancel = on_cancel
        self._asked: deque[asyncio.Future[Message]] = deque()
        self.pushed: set[Assignment] = set()
        self.was_hurt = False
        # How the hub may close it: because of its own troubles, or of what was done here, of which
        # the hub may be slow to hear.
        self.ends = {BROKEN, RESTART, REPLACED}

    async def open(self, port: int) -> None:
        self.socket = await WebSocket.connect(port, "/ws", self._on_text)
        self.closed = self.socket.closed
        self.closed.add_done_callback(self._on_closed)

    async def ask(self, **message: Any) -> Message:
        """Raises `Failed` when the connection ends first."""
        return await self.ask_raw(orjson.dumps(message))

    async def ask_raw(self, text: bytes) -> Message:
        if self.closed.done():
            raise Failed("the socket is closed")
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        self.socket.send_raw(text)
        return await asyncio.wait_for(answer, ANSWER_S)

    def abort(self) -> None:
        self.socket.close()

    def _on_text(self, text: bytes) -> None:
        message: Message = orjson.loads(text)
        if message["type"] == "task_assign":
            self._on_push(message)
        elif message["type"] == "task_cancel":
            self._on_cancel(message)
        elif not message.get("error", "").startswith("task_progress"):  # else to no question
            if not self._asked:
                raise Failed(f"an answer to nothing: {message}")
            answer = self._asked.popleft()
            if not answer.done():
                answer.set_result(message)

    def _on_closed(self, _: object) -> None:
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(Failed("the socket was closed"))
                answer.exception()  # whoever asked may be gone


class ChaosAgent:
    def __init__(self, clients: Clients, name: str, token: str, skills: list[str]) -> None:
        self.name = name
        self._clients = clients
        self._ledger = clients.ledger
        self._token = token
        self._skills = skills
        self._chance = random.Random(f"{clients.seed} {name}")
        self._manner = self._chance.choice(MANNERS)
        self._says_its_name = self._chance.random() < 0.5
        self._given: Assignment | None = None  # the last one
        self._stopping: set[asyncio.Task[None]] = set()
        self._line: Line | None = None
        self._work: asyncio.Task[None] | None = None
        self._held: Assignment | None = None  # accepted, as far as it knows
        self._late: Assignment | None = None  # to be completed without asking after a return
        self._outcomes: list[tuple[str, Assignment]] = []  # that were acked
        self._away_s = 0.0

    async def run(self) -> None:
        """Come, work, and come back until cancelled."""
        while True:
            with suppress(*LOSSES):
                await self._session()
            self._note_lost()
            self._ledger.done["agents came back"] += 1
            await asyncio.sleep(self._chance.uniform(0.1, 1.0) + self._away_s)
            self._away_s = 0.0

    def _note_lost(self) -> None:
        if self._line is not None and SIGNED_OFF not in self._line.ends:
            self._clients.truth.begins(OFFLINE, self.name)
        self._line = None

    async def _session(self) -> None:
        self._line = line = await self._join()
        try:
            if self._late is not None:
                late, self._late = self._late, None
                await self._tell(line, "task_complete", late, result={})
            if self._held is not None:
                await self._recover(line, self._held)
            await line.closed
        finally:
            line.abort()
            for work in (*self._stopping, *([self._work] if self._work else [])):
                work.cancel()

    async def _join(self) -> Line:
        def on_push(message: Message) -> None:
            self._take(line, message)

        def on_cancel(message: Message) -> None:
            self._hear_of_cancel(line, message)

        line = Line(on_push, on_cancel)
        await line.open(self._clients.next_port())
        answer = await self._identify(line)
        if answer["type"] != "identified":
            line.abort()
            if answer["error"] != "unavailable":
                self._ledger.breaks(ANSWERS, f"{self.name} identified and was told {answer}")
            raise Failed("not identified")
        self._clients.truth.ends(OFFLINE, self.name)
        return line

    def _identify(self, line: Line) -> Coroutine[Any, Any, Message]:
        about: Message = {"token": self._token, "capabilities": self._skills}
        name, _, slot = self.name.partition("#")
        if slot:
            about["slot"] = int(slot)
        if self._says_its_name:  # the token does as well
            about["agent_id"] = name
        if self._manner != "deaf":
            about["accepts"] = ["cancel"]
        return line.ask(type="identify", **about)

    async def _recover(self, line: Line, held: Assignment) -> None:
        answer = await line.ask(type="task_recovering", task_id=held.task_id)
        if answer["type"] == "task_continue":
            held = Assignment(held.task_id, answer["generation"], self.name)
            self._ledger.accepted.add(held)
            await self._tell(line, "task_complete", held, result={"recovered": True})
        elif answer["type"] != "task_reassign" and answer.get("error") != "unavailable":
            self._ledger.breaks(ANSWERS, f"{self.name} recovered and was told {answer}")

    # --- A task

    def _take(self, line: Line, message: Message) -> None:
        given = Assignment(message["task_id"], message["generation"], self.name)
        self._ledger.pushed(given, line.pushed)
        line.pushed.add(given)
        if line is not self._line and self._line is not None and not self._line.closed.done():
            return  # a second socket that is given up at once
        if self._work is not None:
            self._work.cancel()
        self._given = given
        self._work = asyncio.create_task(self._do(line, given, message["metadata"]))
        self._work.add_done_callback(_report)

    async def _do(self, line: Line, given: Assignment, metadata: Mapping[str, Any]) -> None:
        fate = str(metadata["fate"])
        is_first = given.generation == 1 or fate in FOR_EVER
        if not is_first or self._clients.calm:
            fate = "plain"
        else:
            self._ledger.done[f"task: {fate}"] += 1
        work_s = 0.0 if self._clients.calm else metadata["work_s"]
        if fate in LONG:
            self._ledger.running.add(given.task_id)
        try:
            with suppress(*LOSSES):
                await DEEDS[fate](self, line, given, work_s)
        finally:
            self._ledger.running.discard(given.task_id)

    async def _accept(self, line: Line, given: Assignment) -> bool:
        accepted = await self._tell(line, "task_accepted", given)
        if accepted:
            self._held = given
        return accepted

    async def _complete(self, line: Line, given: Assignment) -> bool:
        return await self._tell(line, "task_complete", given, result={}, tokens_used=3)

    async def _plain(self, line: Line, given: Assignment, work_s: float) -> None:
        if await self._accept(line, given):
            accepted_at = time.monotonic()
            await asyncio.sleep(work_s)
            is_prompt = time.monotonic() - accepted_at < PROMPT_S
            done = await self._complete(line, given)
            is_wanted = given.task_id not in self._ledger.to_cancel
            if not done and is_prompt and is_wanted and self._is_well(line):
                text = f"{self.name} was done {work_s} s after it accepted, and was refused"
                self._ledger.breaks(KEPT, text, given.task_id)

    def _is_well(self, line: Line) -> bool:
        """No pause of the hub and no jump of its clock is a reason to take its task away; that
        one of several processes stood still is, and what was done to the agent may be."""
        return self._clients.has_one_process and not line.was_hurt and not line.closed.done()

    async def _report_progress(self, line: Line, given: Assignment, work_s: float) -> None:
        if await self._accept(line, given):
            for percent in (10, 50, 90):
                about = {"task_id": given.task_id, "generation": given.generation}
                line.socket.send(type="task_progress", progress=percent, **about)
                await asyncio.sleep(work_s / 3)
            await self._complete(line, given)

    async def _complete_twice(self, line: Line, given: Assignment, work_s: float) -> None:
        if await self._accept(line, given):
            both = (self._complete(line, given), self._complete(line, given))
            first, second = await asyncio.gather(*both)
            if first and not second:
                text = f"{given.agent_id} completed it twice; only the first was acked"
                self._ledger.breaks(ANSWERS, text, given.task_id)

    async def _complete_first(self, line: Line, given: Assignment, work_s: float) -> None:
        await self._complete(line, given)
        if await self._tell(line, "task_accepted", given):
            self._ledger.breaks(FENCED, "accepted after its completion", given.task_id)

    async def _accept_twice(self, line: Line, given: Assignment, work_s: float) -> None:
        both = (self._accept(line, given), self._accept(line, given))
        if all(await asyncio.gather(*both)):
            await self._complete(line, given)

    async def _block(self, line: Line, given: Assignment, work_s: float) -> None:
        if await self._accept(line, given):
            await self._tell(line, "task_blocked", given, reason="a person must look at it")
            await asyncio.sleep(work_s)
            await self._tell(line, "task_unblocked", given)
            await self._complete(line, given)

    async def _reject(self, line: Line, given: Assignment, work_s: float) -> None:
        await self._tell(line, "task_rejected", given, reason="not today")

    async def _fail(self, line: Line, given: Assignment, work_s: float) -> None:
        if await self._accept(line, given):
            await asyncio.sleep(work_s / 3)
            await self._tell(line, "task_failed", given, error="exit status 1")

    async def _fail_for_good(self, line: Line, given: Assignment, work_s: float) -> None:
        if await self._accept(line, given):
            await self._tell(line, "task_failed", given, error="no such file", retryable=False)

    async def _fail_until(self, line: Line, given: Assignment, work_s: float) -> None:
        if await self._accept(line, given):
            await self._tell(line, "task_failed", given, error="busy", retry_after_s=2 * work_s)

    async def _work_long(self, line: Line, given: Assignment, work_s: float) -> None:
        if await self._accept(line, given):
            about = {"task_id": given.task_id, "generation": given.generation}
            for second in range(int(LONG_S)):
                line.socket.send(type="task_progress", message=f"second {second}", **about)
                await asyncio.sleep(1)
            await self._complete(line, given)

    async def _fail_twice(self, line: Line, given: Assignment, work_s: float) -> None:
        both = (self._tell(line, "task_failed", given, error="twice") for _ in range(2))
        if all(await asyncio.gather(*both)):
            text = f"generation {given.generation} failed twice"
            self._ledger.breaks(FENCED, text, given.task_id)

    async def _say_other_generations(self, line: Line, given: Assignment, work_s: float) -> None:
        """Of the task that it holds, as when an answer to an earlier assignment comes late."""
        if await self._accept(line, given):
            for step in (-1, 1):
                other = replace(given, generation=given.generation + step)
                await self._must_be_refused(line, other, "task_failed", error="late")
                await self._must_be_refused(line, other, "task_complete", result={})
            await self._complete(line, given)

    async def _never_accept(self, line: Line, given: Assignment, work_s: float) -> None:
        await asyncio.sleep(SILENT_S)
        await self._complete(line, given)

    async def _fall_silent(self, line: Line, given: Assignment, work_s: float) -> None:
        """For good: it must be taken back, or the task is never done."""
        if await self._accept(line, given):
            self._held = None
            await self._clients.calmed.wait()
            await asyncio.sleep(SILENT_S)  # then even it speaks, in case the hub waits for that
            await self._complete(line, given)

    async def _leave(self, line: Line, given: Assignment, work_s: float) -> None:
        if await self._accept(line, given):
            self._held, self._late = None, given
            self._away_s = AWAY_S
            line.abort()

    # --- To be cancelled

    def _hear_of_cancel(self, line: Line, message: Message) -> None:
        given = Assignment(message["task_id"], message["generation"], self.name)
        if self._manner == "deaf":
            text = f"{self.name} was asked to cancel, which it does not understand"
            self._ledger.breaks(ANSWERS, text, given.task_id)
        holder = self._ledger.holders.get((given.task_id, given.generation), self.name)
        if holder != self.name:
            text = f"{self.name} was asked to cancel what was pushed to {holder}"
            self._ledger.breaks(HANDED, text, given.task_id)
        self._ledger.done[f"asked to cancel: {self._manner}"] += 1
        if line is not self._line and self._line is not None and not self._line.closed.done():
            return
        if self._manner == "prompt" or self._clients.calm:
            self._stop(line, given, 0)
        elif self._manner == "late":
            self._stop(line, given, LATE_S)

    def _stop(self, line: Line, given: Assignment, after_s: float) -> None:
        if self._work is not None and self._given == given:
            self._work.cancel()
        stopping = asyncio.create_task(self._confirm(line, given, after_s))
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)
        stopping.add_done_callback(_report)

    async def _confirm(self, line: Line, given: Assignment, after_s: float) -> None:
        await asyncio.sleep(after_s)
        with suppress(*LOSSES):
            about: Message = {"result": {"stopped": True}, "tokens_used": 2}
            await self._tell(line, "task_cancelled", given, **about)

    async def speak_now_and_then(self) -> None:
        """When all is calm: the hub may wait for a word about the last task. Until cancelled."""
        while True:
            await asyncio.sleep(SPEAK_EVERY_S)
            line, given = self._line, self._given
            is_idle = self._work is None or self._work.done()
            if line is not None and given is not None and is_idle and not line.closed.done():
                with suppress(*LOSSES):
                    await self._tell(line, "task_cancelled", given)

    async def _tell(self, line: Line, type: str, given: Assignment, **more: Any) -> bool:
        """Give whether the hub did it; it refuses what came too late."""
        about = {"task_id": given.task_id, "generation": given.generation, **more}
        answer = await line.ask(type=type, **about)
        if answer.get("error") == "unavailable":
            await asyncio.sleep(0.5)
            return await self._tell(line, type, given, **more)
        if type not in ("task_accepted", "task_blocked", "task_unblocked") and self._held == given:
            self._held = None
        if answer["type"] == "task_ack" and answer["task_id"] == given.task_id:
            self._ledger.acked(answer["status"], given, type)
            self._outcomes.append((answer["status"], given))
            return True
        if not is_refusal(answer):
            text = f"{given.agent_id} said {type}, generation {given.generation}, and got {answer}"
            self._ledger.breaks(ANSWERS, text, given.task_id)
        return False

    # --- Violence

    async def suffer(self, act: Act) -> None:
        line = self._line
        if line is None or line.closed.done():
            return
        self._ledger.done[f"agent: {act.kind}"] += 1
        line.was_hurt = True
        with suppress(*LOSSES):
            await AGENT_ACTS[act.kind](self, line, act)

    async def _cut(self, line: Line, act: Act) -> None:
        line.abort()

    async def _stop_reading(self, line: Line, act: Act) -> None:
        await stop_reading(line.socket, act.lasts_s)

    async def _half_frame(self, line: Line, act: Act) -> None:
        whole = frame(TEXT, b'{"type":"status","status":"fine"}')
        line.socket.transport.write(whole[: len(whole) // 2])
        await asyncio.sleep(0.05)  # or it would not be sent at all
        line.abort()

    async def _send_malformed(self, line: Line, act: Act) -> None:
        for text in MALFORMED:
            answer = await line.ask_raw(text.encode())
            if answer.get("error") not in COMPLAINTS:
                self._ledger.breaks(ANSWERS, f"{text[:80]} was answered with {answer}")

    async def _send_oversized(self, line: Line, act: Act) -> None:
        line.socket.send(type="status", status="x" * 300 * 1024)
        line.ends.add(TOO_LARGE)
        await self._expect_close(line, TOO_LARGE, "a frame of 300 KiB")

    async def _identify_again(self, line: Line, act: Act) -> None:
        answer = await self._identify(line)
        if answer.get("error") != "invalid_message":
            self._ledger.breaks(ANSWERS, f"a second identify was answered with {answer}")

    async def _second_socket(self, line: Line, act: Act) -> None:
        newer = await self._join()
        if not newer.closed.done():
            await self._expect_close(line, REPLACED, "a newer socket of the same agent")
        newer.abort()

    async def _expect_close(self, line: Line, code: int, why: str) -> None:
        """Or an end for another reason that there was; but an end."""
        try:
            closed = await asyncio.wait_for(asyncio.shield(line.closed), ANSWER_S)
        except TimeoutError:
            closed = 0
        if closed not in line.ends:
            self._ledger.breaks(ANSWERS, f"{why}: the socket was closed with {closed}, not {code}")

    async def _sign_off(self, line: Line, act: Act) -> None:
        self._held = None
        if self._work is not None:
            self._work.cancel()
        line.ends.add(SIGNED_OFF)
        await line.ask(type="sign_off")

    async def _complete_foreign(self, line: Line, act: Act) -> None:
        ends = self._ledger.holders
        others = [place for place, holder in list(ends.items())[-60:] if holder != self.name]
        for task_id, generation in self._chance.sample(others, min(8, len(others))):
            await self._must_be_refused(line, Assignment(task_id, generation, self.name))

    async def _complete_stale(self, line: Line, act: Act) -> None:
        gone = [given for status, given in self._outcomes if status in STALE]
        for given in gone[-3:]:
            await self._must_be_refused(line, given)

    async def _must_be_refused(
        self, line: Line, given: Assignment, type: str = "task_complete", **more: Any
    ) -> None:
        about = {
            "task_id": given.task_id,
            "generation": given.generation,
            **(more or {"result": {}}),
        }
        answer = await line.ask(type=type, **about)
        if not is_refusal(answer) and answer.get("error") != "unavailable":
            text = f"{self.name} said {type}, generation {given.generation}, and was not refused"
            self._ledger.breaks(FENCED, f"{text}: {answer}", given.task_id)

    async def _complete_again(self, line: Line, act: Act) -> None:
        done = [given for status, given in self._outcomes if status == "complete"]
        for given in done[-3:]:
            if not await self._tell(line, "task_complete", given, result={"again": True}):
                text = f"{self.name} completed it, was acked, said so again and was refused"
                self._ledger.breaks(LOST, text, given.task_id)


LONG = ("work long", "accept and fall silent", "never accept, complete late")
Deed = Callable[[ChaosAgent, Line, Assignment, float], Coroutine[Any, Any, None]]
DEEDS: dict[str, Deed] = {
    "plain": ChaosAgent._plain,
    "report progress": ChaosAgent._report_progress,
    "complete twice": ChaosAgent._complete_twice,
    "complete before accepting": ChaosAgent._complete_first,
    "accept twice": ChaosAgent._accept_twice,
    "block and unblock": ChaosAgent._block,
    "reject": ChaosAgent._reject,
    "unwanted": ChaosAgent._reject,
    "fail": ChaosAgent._fail,
    "fail for good": ChaosAgent._fail_for_good,
    "fail, and say when again": ChaosAgent._fail_until,
    "work long": ChaosAgent._work_long,
    "fail twice with one generation": ChaosAgent._fail_twice,
    "hopeless": ChaosAgent._fail,
    "end other generations": ChaosAgent._say_other_generations,
    "never accept, complete late": ChaosAgent._never_accept,
    "accept and fall silent": ChaosAgent._fall_silent,
    "miss the deadline": ChaosAgent._fall_silent,
    "leave and complete late": ChaosAgent._leave,
}
AGENT_ACTS: dict[str, Callable[[ChaosAgent, Line, Act], Coroutine[Any, Any, None]]] = {
    "cut": ChaosAgent._cut,
    "stop reading": ChaosAgent._stop_reading,
    "half a frame, then cut": ChaosAgent._half_frame,
    "malformed frames": ChaosAgent._send_malformed,
    "oversized frame": ChaosAgent._send_oversized,
    "identify again": ChaosAgent._identify_again,
    "identify on a second socket": ChaosAgent._second_socket,
    "sign off": ChaosAgent._sign_off,
    "complete another's task": ChaosAgent._complete_foreign,
    "complete an old generation": ChaosAgent._complete_stale,
    "complete again": ChaosAgent._complete_again,
}


def is_refusal(answer: Message) -> bool:
    return str(answer.get("error", "")).rpartition(": ")[2] in REFUSALS


async def stop_reading(socket: WebSocket, seconds: float) -> None:
    socket.transport.pause_reading()
    await asyncio.sleep(seconds)
    if not socket.transport.is_closing():
        socket.transport.resume_reading()


def _report(task: asyncio.Task[None]) -> None:
    """What nobody awaits must not fail in silence."""
    if not task.cancelled() and (error := task.exception()) is not None:
        context = {"message": "an agent's work failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
