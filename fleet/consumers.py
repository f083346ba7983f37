"""The agent's socket: `/ws`. Parse a frame, carry out its command, answer."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agentcom.access import FORBIDDEN
from agentcom.audit.entries import Act, What
from agentcom.audit.gathered import note_refusal
from agentcom.clock import clock
from agentcom.database import millis, queries
from agentcom.errors import Refused, Unavailable
from agentcom.limits import failures
from agentcom.models import Event
from agentcom.nodes import NODE_ID
from agentcom.rights import Right
from agentcom.sockets import CLOSE_RESTART, IdentifiedSocket, reconnect_reason
from agentcom.work import Command
from agentcom.writer import writer
from fleet import protocol
from fleet.dispatcher import AgentSocket, dispatcher, frees
from fleet.models import AgentState
from fleet.names import check_agent_id, slot_id
from fleet.presence import (
    Identified,
    Identify,
    Leave,
    Recover,
    Said,
    SetStatus,
    TokenRefused,
    connected_agents,
)
from fleet.progress import Progress
from fleet.protocol import (
    CLOSE_NOT_IDENTIFIED,
    CLOSE_REPLACED,
    CLOSE_SILENT,
    CLOSE_WRONG_TOKEN,
    EARLY_ERRORS,
    Frame,
    Message,
    ProtocolError,
)
from fleet.token_uses import token_uses
from fleet.tokens import token_check
from tasks import queue
from tasks.queue import OnTask

logger = logging.getLogger(__name__)

RETRY_S = 1.0
WRONG_TOKENS = 3

Ending = tuple[int, str | None]  # code and reason of a close


@dataclass(frozen=True, slots=True)
class Verb:
    """What an agent may do with its task: the command, the ack's status, the error's prefix."""

    command: Callable[[str, Message], OnTask]
    ack: Callable[[Any], str | None]
    refused: str


VERBS: dict[str, Verb] = {
    "task_accepted": Verb(
        lambda agent, m: queue.Accept(m["task_id"], agent, m["generation"]),
        lambda _: "accepted",
        "task_accept_failed",
    ),
    "task_progress": Verb(
        lambda agent, m: queue.Progress(
            m["task_id"], agent, m["generation"], m["progress"], m["message"]
        ),
        lambda _: None,
        "task_progress_failed",
    ),
    "task_complete": Verb(
        lambda agent, m: queue.Complete(
            m["task_id"], agent, m["generation"], m["result"], m["tokens_used"]
        ),
        lambda _: "complete",
        "task_complete_failed",
    ),
    "task_failed": Verb(
        lambda agent, m: queue.Fail(
            m["task_id"],
            agent,
            m["generation"],
            m["error"],
            m["retryable"] is not False,
            m["retry_after_s"],
        ),
        lambda result: result,
        "task_fail_failed",
    ),
    "task_cancelled": Verb(
        lambda agent, m: queue.ConfirmCancel(
            m["task_id"], agent, m["generation"], m["result"], m["tokens_used"]
        ),
        lambda _: "cancelled",
        "task_cancel_failed",
    ),
    "task_rejected": Verb(
        lambda agent, m: queue.Reject(m["task_id"], agent, m["generation"], m["reason"] or ""),
        lambda result: result,
        "task_reject_failed",
    ),
    "task_blocked": Verb(
        lambda agent, m: queue.Block(m["task_id"], agent, m["generation"], m["reason"] or ""),
        lambda _: "blocked",
        "task_block_failed",
    ),
    "task_unblocked": Verb(
        lambda agent, m: queue.Unblock(m["task_id"], agent, m["generation"]),
        lambda _: "working",
        "task_unblock_failed",
    ),
}


class Departures:
    """Records sockets that were closed, and what they said last. Outlives them, and retries until
    each command is committed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def note(self, command: Command) -> None:
        task = asyncio.get_running_loop().create_task(self._record(command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def all_recorded(self) -> None:
        await asyncio.gather(*self._tasks)

    async def _record(self, command: Command) -> None:
        while True:
            try:
                await writer.do(command)
                return
            except Unavailable:
                await asyncio.sleep(RETRY_S)
            except Refused:
                return  # the task has moved on


departures = Departures()


class AgentConsumer(IdentifiedSocket):
    """One agent's connection. Its messages are handled one after the other."""

    agent_id = ""  # until identified
    _claimed_id = ""  # the id it asked for; the database may have it even if no answer came
    token_hash = ""
    joined_seq = 0  # of its `agent_joined`
    capabilities: frozenset[str] = frozenset()
    presence = False
    accepts: tuple[str, ...] = ()
    hears_limits = False
    _progress: Progress | None = None  # from its first progress on
    wrong_tokens = 0
    early_errors = 0

    async def connect(self) -> None:
        self.connection = secrets.token_hex(16)
        await failures.slow_down(self.address)
        await self.accept()
        self.expect_soon(CLOSE_SILENT)

    def gone(self) -> None:
        if self._progress is not None and (said := self._progress.take()) is not None:
            departures.note(self._command(VERBS[said.type], said))
        if self._claimed_id:
            dispatcher.leave(self)
            by_hub = bool(self.farewell)
            departures.note(Leave(self._claimed_id, self.connection, by_hub=by_hub))
        self.identified()

    async def dismiss(self) -> None:
        dispatcher.leave(self)
        await super().dismiss()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        try:
            message = protocol.parse(text_data or "")
            if not self.agent_id and message.type != "identify":
                raise ProtocolError("not_identified")
            if message.type == "task_progress":
                await self._report(message)
                return
            if self._progress is not None and message.type != "ping":
                await self._progress.flush()
            if message.type in VERBS:
                await self._carry_out(VERBS[message.type], message)
            else:
                await HANDLERS[message.type](self, message)
        except ProtocolError as error:
            more = {"detail": error.detail} if error.detail else {}
            await self.send_json(protocol.error(error.code, **more))
            if not self.agent_id:
                await self._count_early_error()
        except Unavailable as error:
            await self.send_json(protocol.error("unavailable", detail=error.detail))

    async def _count_early_error(self) -> None:
        self.early_errors += 1
        if self.early_errors >= EARLY_ERRORS:
            await self.close(CLOSE_NOT_IDENTIFIED)

    async def _report(self, message: Message) -> None:
        if self._progress is None:
            self._progress = Progress(self._commit_progress)
        await self._progress.say(message, self._soon)

    async def _commit_progress(self, message: Message) -> None:
        try:
            await self._carry_out(VERBS[message.type], message)
        except Unavailable as error:
            await self.send_json(protocol.error("unavailable", detail=error.detail))

    def _command(self, verb: Verb, message: Message) -> Said:
        return Said(verb.command(self.agent_id, message), message)

    async def _carry_out(self, verb: Verb, message: Message) -> None:
        task_id = message["task_id"]
        try:
            result = await writer.do(self._command(verb, message))
        except Unavailable:
            raise
        except Refused as refused:
            error = f"{verb.refused}: {refused.code}"
            await self.send_json(protocol.error(error, task_id=task_id))
            return
        status = verb.ack(result)
        if status is not None:
            noted = {"detail": ". ".join(message.notes)} if message.notes else {}
            await self.send_json(
                {"type": "task_ack", "task_id": task_id, "status": status, **noted}
            )

    async def _identify(self, message: Message) -> None:
        if self.agent_id:
            raise ProtocolError("invalid_message", "this socket has identified itself already")
        capabilities = tuple(message["capabilities"] or ())
        self.accepts = tuple(message["accepts"] or ())
        self.hears_limits = "rate_limited" in self.accepts
        try:
            token_hash, agent_id = await self._speaks_for(message)
            self._claimed_id = agent_id
            identified: Identified = await writer.do(
                Identify(
                    agent_id,
                    token_hash,
                    self.connection,
                    NODE_ID,
                    message["name"],
                    message["status"],
                    capabilities,
                    self.accepts,
                    message["slot"],
                )
            )
        except TokenRefused as refused:
            await self._refuse_token(refused)
            return
        self.identified()
        self.agent_id, self.token_hash = agent_id, token_hash
        self.capabilities = frozenset(capabilities)
        self.presence = bool(message["presence"])
        self.joined_seq = identified.seq
        await self.send_json(protocol.identified(agent_id))
        ending = ending_of(self)
        if ending is not None:
            await self.close(*ending)
            return
        older = dispatcher.join(self)
        if older is not None:
            older.close_soon(CLOSE_REPLACED)
        for push in (identified.push, self._cancelled_since(identified.seq)):
            if push is not None:
                await self.send_json(push)

    async def _speaks_for(self, message: Message) -> tuple[str, str]:
        """The hash of its token, and the agent; without `agent_id`, the one whose token it is.

        What is refused here does not reach the Writer, however often it is tried.
        """
        caller = await token_check.caller(message["token"], self.address)
        if caller is None:
            raise TokenRefused("invalid_token")
        if not caller.may(Right.WORK):
            note_refusal(Act(What.IDENTIFY), caller, self.address, FORBIDDEN)
            raise TokenRefused("invalid_token", caller.refusal_to(Right.WORK))
        if message["agent_id"] not in (None, caller.name):
            note_refusal(Act(What.IDENTIFY), caller, self.address, "token_agent_mismatch")
            raise TokenRefused("token_agent_mismatch")
        try:
            agent_id: str = check_agent_id(slot_id(caller.name, message["slot"]))
        except ValueError as error:
            raise ProtocolError("invalid_message", f"agent_id: with its slot it {error}") from None
        token_uses.note(caller.token_hash, self.address)
        return caller.token_hash, agent_id

    def _cancelled_since(self, seq: int) -> Frame | None:
        """The request to cancel, if it was committed between `identify` and the socket's joining.
        An older one is known to `Identified.push`, or the task has ended since in another process.
        """
        asked_seq, frame = cancellations.get(self.agent_id, (0, None))
        return frame if asked_seq > seq and "cancel" in self.accepts else None

    async def _refuse_token(self, refused: TokenRefused) -> None:
        self.wrong_tokens += 1
        failures.add(self.address)
        await failures.slow_down(self.address)
        more = {"detail": refused.detail} if refused.detail else {}
        await self.send_json(protocol.error(refused.code, **more))
        if self.wrong_tokens >= WRONG_TOKENS:
            await self.close(CLOSE_WRONG_TOKEN)

    async def _recover(self, message: Message) -> None:
        task_id = message["task_id"]
        generation = await writer.do(Recover(task_id, self.agent_id))
        if generation is None:
            await self.send_json({"type": "task_reassign", "task_id": task_id})
        else:
            answer = {"type": "task_continue", "task_id": task_id, "generation": generation}
            await self.send_json(answer)

    async def _set_status(self, message: Message) -> None:
        await writer.do(SetStatus(self.agent_id, message["status"]))
        await self.send_json({"type": "status_updated"})

    async def _list_agents(self, message: Message) -> None:
        await self.send_json({"type": "agents", "agents": await queries.run(connected_agents)})

    async def _ping(self, message: Message) -> None:
        await self.send_json({"type": "pong", "timestamp": millis(clock.now())})

    async def _sign_off(self, message: Message) -> None:
        dispatcher.leave(self)
        await writer.do(Leave(self.agent_id, self.connection, signed_off=True))
        self.agent_id = self._claimed_id = ""
        await self.send_json({"type": "signed_off"})
        await self.close(1000)


HANDLERS: dict[str, Callable[[AgentConsumer, Message], Any]] = {
    "identify": AgentConsumer._identify,
    "task_recovering": AgentConsumer._recover,
    "status": AgentConsumer._set_status,
    "list_agents": AgentConsumer._list_agents,
    "ping": AgentConsumer._ping,
    "sign_off": AgentConsumer._sign_off,
}


# --- What the journal means for the sockets of this process


def follow_journal(events: list[Event]) -> None:
    """Wake the dispatcher, close superseded sockets, push presence to those that asked for it."""
    dispatcher.on_events(events)
    for event in events:
        if frees(event):
            cancellations.pop(event.agent_id or "", None)
        react = REACTIONS.get(event.kind)
        if react is not None:
            react(event)


# The event that ends a connection may arrive before its socket has joined: both can be committed
# in one group, and a hint from another process may be late. So it is kept for `_identify`.
newest_joins: dict[str, int] = {}  # `seq` of each agent's last join, in any process
newest_departures: dict[str, str] = {}  # the connection that each agent lost last
# the requests to cancel that agents have not answered yet, as far as this process knows, with the
# `seq` of each
cancellations: dict[str, tuple[int, Frame]] = {}


def ending_of(socket: AgentSocket) -> Ending | None:
    """The close code and reason for a socket that no longer speaks for its agent, or None."""
    if token_check.is_revoked(socket.token_hash):
        return CLOSE_WRONG_TOKEN, None
    if newest_joins.get(socket.agent_id, 0) > socket.joined_seq:
        return CLOSE_REPLACED, None
    if newest_departures.get(socket.agent_id) == socket.connection:
        return CLOSE_RESTART, reconnect_reason("this process was taken for dead")
    return None


def _close_if_ended(agent_id: str) -> None:
    socket = dispatcher.sockets.get(agent_id)
    ending = ending_of(socket) if socket is not None else None
    if socket is not None and ending is not None:
        dispatcher.leave(socket)  # from now on it gets no task
        socket.close_soon(*ending)


def _joined(event: Event) -> None:
    agent_id = event.agent_id or ""
    newest_joins[agent_id] = event.seq
    _close_if_ended(agent_id)
    _push_presence(event)


def _left(event: Event) -> None:
    """It signed off or lost its socket, or a worker considers this process dead."""
    agent_id = event.agent_id or ""
    newest_departures[agent_id] = event.data["connection"]
    _close_if_ended(agent_id)
    _push_presence(event)


def _revoked(event: Event) -> None:
    token_hash = event.data["token_hash"]
    token_check.revoke(token_hash)
    held = [s.agent_id for s in dispatcher.sockets.values() if s.token_hash == token_hash]
    for agent_id in held:
        _close_if_ended(agent_id)


def _cancel(event: Event) -> None:
    agent_id, data = event.agent_id or "", event.data
    frame = protocol.task_cancel(
        event.task_id or "", data["generation"], data["reason"], data["deadline"]
    )
    cancellations[agent_id] = (event.seq, frame)
    socket = dispatcher.sockets.get(agent_id)
    if socket is not None and "cancel" in socket.accepts:
        socket.send_soon(frame)


def _ended(event: Event) -> None:
    """Perhaps without the agent: one that was not asked before is told now."""
    agent_id, data = event.agent_id or "", event.data
    was_asked = cancellations.pop(agent_id, None) is not None
    socket = dispatcher.sockets.get(agent_id)
    if socket is None or was_asked or data["agent"] != AgentState.STOPPING:
        return
    if "cancel" in socket.accepts:
        held, at = data["generation"] - 1, millis(event.at)
        frame = protocol.task_cancel(event.task_id or "", held, data["reason"], at)
        socket.send_soon(frame)


def _push_presence(event: Event) -> None:
    agent = event.data.get("agent")
    about = {"agent": agent} if agent else {"agent_id": event.agent_id}
    frame = {"type": event.kind, **about}
    for socket in dispatcher.sockets.values():
        if socket.presence and socket.agent_id != event.agent_id:
            socket.send_soon(frame)


REACTIONS: dict[str, Callable[[Event], None]] = {
    "agent_joined": _joined,
    "agent_left": _left,
    "status_changed": _push_presence,
    "token_revoked": _revoked,
    "task_cancel_requested": _cancel,
    "task_cancelled": _ended,
    "task_reclaimed": _ended,
}
