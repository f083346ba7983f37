"""The submitter's socket, `/ws/tasks`: tells a program when the tasks that it waits for have ended.

A task is looked up when it is watched for, and again whenever the journal says that it ended. Both
put its id into the socket's outbox, which is read in steps: large results reach a client no faster
than it reads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable

from agentcom import __version__
from agentcom.access import FORBIDDEN
from agentcom.audit.entries import Act, What
from agentcom.audit.gathered import note_refusal
from agentcom.clock import clock
from agentcom.database import consistent_read, millis, queries
from agentcom.errors import Unavailable
from agentcom.fields import text, texts
from agentcom.limits import failures
from agentcom.models import Event
from agentcom.rights import Caller, Right
from agentcom.sockets import IdentifiedSocket
from agentcom.wire import encode
from fleet.names import MAX_ID
from fleet.protocol import (
    CLOSE_NOT_IDENTIFIED,
    CLOSE_SILENT,
    CLOSE_WRONG_TOKEN,
    EARLY_ERRORS,
    Field,
    Frame,
    Message,
    ProtocolError,
    error,
    parse,
)
from fleet.token_uses import token_uses
from fleet.tokens import token_check
from tasks.listing import task_json
from tasks.models import Status, Task

logger = logging.getLogger(__name__)

MAX_WATCHED = 10_000  # tasks of one socket
MAX_AT_ONCE = 1_000  # in one message
STEP = 20  # tasks that are read at once
DRAIN_S = 0.05  # between two looks whether the client has read
RETRY_S = 1.0

ENDED = (Status.COMPLETED, Status.CANCELLED, Status.DEAD_LETTER)
ENDS = frozenset({"task_complete", "task_cancelled", "task_dead_letter"})

# What a client may send, with the fields of each message.
TASK_IDS = {"task_ids": Field(texts(MAX_AT_ONCE, text(MAX_ID, min_length=1)), required=True)}
MESSAGES: dict[str, dict[str, Field]] = {
    "identify": {"token": Field(text(512), required=True)},
    "watch": TASK_IDS,
    "unwatch": TASK_IDS,
    "ping": {},
}


class OutcomeConsumer(IdentifiedSocket):
    caller: Caller | None = None  # whose token it is, once identified
    _errors = 0
    _sender: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        self.watched: set[str] = set()
        self._outbox: dict[str, None] = {}  # ids in the order of their arrival
        self._filled = asyncio.Event()
        await failures.slow_down(self.address)
        await self.accept()
        self.expect_soon(CLOSE_SILENT)

    def gone(self) -> None:
        watchers.leave(self)
        self.identified()
        if self._sender is not None:
            self._sender.cancel()

    def look_at(self, task_ids: Iterable[str]) -> None:
        """Tell the client about those that have ended."""
        self._outbox.update(dict.fromkeys(task_ids))
        self._filled.set()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        try:
            message = parse(text_data or "", MESSAGES)
            if not self.caller and message.type != "identify":
                raise ProtocolError("not_identified")
            await HANDLERS[message.type](self, message)
        except ProtocolError as wrong:
            more = {"detail": wrong.detail} if wrong.detail else {}
            await self.send_json(error(wrong.code, **more))
            self._errors += 1
            if not self.caller and self._errors >= EARLY_ERRORS:
                await self.close(CLOSE_NOT_IDENTIFIED)
        except Unavailable as unavailable:
            await self.send_json(error("unavailable", detail=unavailable.detail))

    async def _identify(self, message: Message) -> None:
        if self.caller:
            raise ProtocolError("invalid_message", "this socket has identified itself already")
        caller = await token_check.caller(message["token"], self.address)
        if caller is None:
            failures.add(self.address)
            await failures.slow_down(self.address)
            raise ProtocolError("invalid_token")
        if not caller.may(Right.READ):
            note_refusal(Act(What.IDENTIFY), caller, self.address, FORBIDDEN)
            raise ProtocolError("invalid_token", caller.refusal_to(Right.READ))
        token_uses.note(caller.token_hash, self.address)
        self.caller = caller
        self.identified()
        watchers.join(self)
        if token_check.is_revoked(caller.token_hash):  # meanwhile
            await self.close(CLOSE_WRONG_TOKEN)
            return
        self._sender = asyncio.get_running_loop().create_task(self._send_outcomes())
        await self.send_json({"type": "identified", "name": caller.name, "version": __version__})

    async def _watch(self, message: Message) -> None:
        wanted = dict.fromkeys(message["task_ids"])
        if len(self.watched | wanted.keys()) > MAX_WATCHED:
            detail = f"a socket waits for at most {MAX_WATCHED:,} tasks"
            raise ProtocolError("too_many_tasks", detail)
        watchers.watch(self, wanted)
        await self._say_watching()
        self.look_at(wanted)

    async def _unwatch(self, message: Message) -> None:
        watchers.unwatch(self, message["task_ids"])
        await self._say_watching()

    async def _ping(self, message: Message) -> None:
        await self.send_json({"type": "pong", "timestamp": millis(clock.now())})

    async def _say_watching(self) -> None:
        await self.send_json({"type": "watching", "count": len(self.watched)})

    async def _send_outcomes(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._outbox:
                step = list(self._outbox)[:STEP]
                try:
                    await self._tell(step)
                except Unavailable:
                    await asyncio.sleep(RETRY_S)
                    continue
                except Exception:  # a task must not be waited for in vain because of another one
                    logger.exception("The outcomes of %s cannot be sent", step)
                    await asyncio.sleep(RETRY_S)
                    continue

    async def _tell(self, step: list[str]) -> None:
        wanted = [task_id for task_id in step if task_id in self.watched]
        # From here on, an end that the journal tells is put into the outbox again.
        for task_id in step:
            del self._outbox[task_id]
        try:
            assert self.caller is not None
            looked = await queries.run(_look_up, wanted, self.caller) if wanted else ([], [])
            ended, unknown = looked
        except BaseException:
            self.look_at(wanted)
            raise
        for task_id, frame in ended:
            await self._until_read()
            if task_id in self.watched:
                await self.send_text(frame)
                watchers.unwatch(self, [task_id])
        for task_id in unknown:
            await self.send_json({"type": "task_unknown", "task_id": task_id})
            watchers.unwatch(self, [task_id])

    async def _until_read(self) -> None:
        while self.server_connection.is_behind:  # noqa: ASYNC110 – rare, servers tell one only
            await asyncio.sleep(DRAIN_S)


def _look_up(task_ids: list[str], caller: Caller) -> tuple[list[tuple[str, str]], list[str]]:
    """The frames for those that have ended, and the ids that do not exist for this caller."""
    with consistent_read():
        tasks_of = Task.objects.filter(task_id__in=task_ids)
        found = {
            task_id: status
            for task_id, status, submitted_by, assigned_to in tasks_of.values_list(
                "task_id", "status", "submitted_by", "assigned_to"
            )
            if caller.owns(submitted_by, assigned_to)
        }
        ended = [task_id for task_id in task_ids if found.get(task_id) in ENDED]
        tasks = Task.objects.in_bulk(ended, field_name="task_id")
    frames = [(task_id, encode(task_ended(tasks[task_id])).decode()) for task_id in ended]
    return frames, [task_id for task_id in task_ids if task_id not in found]


def task_ended(task: Task) -> Frame:
    """`task` is as in lists: without its history."""
    return {"type": "task_ended", "task": task_json(task)}


HANDLERS = {
    "identify": OutcomeConsumer._identify,
    "watch": OutcomeConsumer._watch,
    "unwatch": OutcomeConsumer._unwatch,
    "ping": OutcomeConsumer._ping,
}


class Watchers:
    """Who waits for which task, in this process. Lives on the event loop, follows the journal."""

    def __init__(self) -> None:
        self._sockets: set[OutcomeConsumer] = set()
        self._waiting: dict[str, set[OutcomeConsumer]] = defaultdict(set)  # by task id

    def join(self, socket: OutcomeConsumer) -> None:
        self._sockets.add(socket)

    def leave(self, socket: OutcomeConsumer) -> None:
        self._sockets.discard(socket)
        self.unwatch(socket, list(socket.watched))

    def watch(self, socket: OutcomeConsumer, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            socket.watched.add(task_id)
            self._waiting[task_id].add(socket)

    def unwatch(self, socket: OutcomeConsumer, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            socket.watched.discard(task_id)
            sockets = self._waiting.get(task_id)
            if sockets is not None:
                sockets.discard(socket)
                if not sockets:
                    del self._waiting[task_id]

    def on_events(self, events: list[Event]) -> None:
        for event in events:
            if event.kind in ENDS:
                for socket in self._waiting.get(event.task_id or "", ()):
                    socket.look_at([event.task_id or ""])
            elif event.kind == "token_revoked":
                for socket in self._sockets:
                    if socket.caller and socket.caller.token_hash == event.data["token_hash"]:
                        socket.close_soon(CLOSE_WRONG_TOKEN)


watchers = Watchers()
