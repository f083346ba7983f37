"""The dashboard's socket: `/ws/dashboard`. Messages that it does not understand are ignored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any

import orjson
from django.conf import settings

from agentcom import actors
from agentcom.access import FORBIDDEN, SESSION_ENDED, Forbidden, actor_of, may_see_dashboard
from agentcom.api import BadInput, read_body
from agentcom.audit import acting
from agentcom.audit.entries import Auditable, Entry
from agentcom.audit.gathered import gathered
from agentcom.clock import clock
from agentcom.database import millis
from agentcom.errors import Refused, Unavailable
from agentcom.limits import Crowd, failures
from agentcom.models import Outcome
from agentcom.rights import Caller, Right
from agentcom.shapes import MS, Shape, record
from agentcom.sockets import CLOSE_RATE_LIMITED, SocketConsumer
from agentcom.wire import fault
from dashboard.asking import read_window
from dashboard.group import Viewer, group
from dashboard.sessions import sessions
from fleet.authentication import bearer
from fleet.holds import LiftHold, PlaceHold, read_hold
from fleet.presence import Forget
from fleet.shapes import HOLD, NEW_HOLD
from fleet.token_uses import token_uses
from fleet.tokens import token_check
from tasks.api import CANCEL_FIELDS, CANCEL_SHAPE, PRIORITY_BODY, read_priority
from tasks.models import WAITING, Status
from tasks.steering import Cancel, Cancelled, Retry, SetPriority

CLOSE_SESSION_ENDED = 4403
RETRY_AFTER_MS = 10_000  # for one of too many
viewers_of = Crowd("it has too many dashboards open")


class DashboardConsumer(SocketConsumer):
    viewer: Viewer | None = None
    cookies: Mapping[str, str] = {}
    caller: Caller | None = None  # whose token came with the handshake
    _counted = False  # among the viewers of its address

    async def connect(self) -> None:
        await failures.slow_down(self.address)
        self.cookies = _cookies(self.scope)
        self.caller = await self._caller()
        if self.caller is None and not await may_see_dashboard(self.cookies):
            await self.close()  # not accepted yet, so the client gets a 403
            return
        await self.accept()
        self._counted = True
        limit = settings.AGENTCOM_VIEWERS_PER_ADDRESS
        if viewers_of.enter(self.address) > limit > 0:
            viewers_of.note(self.address)
            failures.add(self.address)
            await self.send_json({"type": "rate_limited", "retry_after_ms": RETRY_AFTER_MS})
            await self.close(CLOSE_RATE_LIMITED, "too many viewers with this address")
            return
        sessions.join(self)
        self.viewer = group.join(self)

    def gone(self) -> None:
        if self._counted:
            viewers_of.leave(self.address)
            self._counted = False
        sessions.leave(self)
        if self.viewer is not None:
            group.leave(self.viewer)
            self.viewer = None

    async def _caller(self) -> Caller | None:
        """The owner of a token that lets see the dashboard. Browsers cannot send one."""
        header = dict(self.scope["headers"]).get(b"authorization", b"").decode("latin-1")
        caller = (
            await token_check.caller(token, self.address) if (token := bearer(header)) else None
        )
        if caller is None or not caller.may(Right.LOOK):
            return None
        token_uses.note(caller.token_hash, self.address)
        return caller

    async def _actor(self, permission: str) -> str:
        """Raises `Refused` and `Unavailable`, as `actor_of`."""
        if self.caller is None:
            return await actor_of(self.cookies, permission)
        if await token_check.caller_of(self.caller.token_hash) is None:
            raise Refused(SESSION_ENDED)
        if not self.caller.may(Right.OPERATE):
            actor = actors.token(self.caller.name)
            raise Forbidden(actor, self.caller.refusal_to(Right.OPERATE))
        return actors.token(self.caller.name)

    async def _actor_for(self, act: Act, command: Callable[[str], Auditable]) -> str:
        """The same for an act; a refusal goes to the audit trail."""
        try:
            return await self._actor(act.permission)
        except Unavailable:
            raise
        except Refused as refused:
            actor = refused.actor if isinstance(refused, Forbidden) else actors.ANYONE
            asked = command(actor).act()
            gathered.note(Entry(asked, actor, self.address, Outcome.REFUSED, refused.code))
            raise

    async def end_session(self) -> None:
        """The login behind this socket has ended. From now on it receives and does nothing."""
        if self.viewer is not None:
            group.leave(self.viewer)
            self.viewer = None
        await self.send_json({"type": "session_ended"})
        await self.close(CLOSE_SESSION_ENDED)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.viewer is None:
            return
        match _parse(text_data or ""):
            case {"type": "ping"}:
                await self.send_json({"type": "pong", "timestamp": millis(clock.now())})
            case {"type": "request_snapshot"}:
                group.request_snapshot(self.viewer)
            case {"type": "subscribe", "patches": True, **more}:
                await self._subscribe(self.viewer, more.get("agents"))
            case {"type": str(type), **fields} if type in ACTS:
                await self._act(ACTS[type], {str(name): value for name, value in fields.items()})

    async def _subscribe(self, viewer: Viewer, agents: Any) -> None:
        """`agents`: the window of the agents that it wants; None: all."""
        try:
            group.subscribe(viewer, None if agents is None else read_window(agents))
        except BadInput as error:
            answer = {"type": "subscribe_result", "status": "invalid"}
            await self.send_json({**answer, "detail": error.answer["error"]})

    async def _act(self, act: Act, fields: dict[str, Any]) -> None:
        """Run the command as the viewer. The answer has what became of it, or why it was refused.

        The permission is checked each time, so withdrawing it takes effect at once.
        """
        answer = {"type": act.answer, **{name: fields.get(name) for name in act.subject}}
        try:
            if not all(isinstance(fields.get(name), str) for name in act.subject):
                return  # as any other message that is not understood
            command = act.command(fields)
            actor = await self._actor_for(act, command)
            result = await acting.do(command(actor), self.address)
            answer |= act.done(result)
        except BadInput as error:
            answer |= {"status": "invalid", "detail": error.answer["error"]}
        except Refused as refused:
            if refused.code == SESSION_ENDED:
                sessions.leave(self)
                await self.end_session()
                return
            answer |= {"status": refused.code}
            if refused.code == FORBIDDEN:
                answer["detail"] = refused.detail
        await self.send_json(answer)


# --- What viewers may do

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Act:
    """A message that asks for a change."""

    permission: str
    answer: str  # the type of the answer
    subject: tuple[str, ...]  # the fields that say what it is about; repeated in the answer
    # raises `BadInput`; the command is made once the actor is known
    command: Callable[[Fields], Callable[[str], Auditable]]
    done: Callable[[Any], Fields]  # from the command's result
    # what `done` may give: the fields besides each status
    statuses: Mapping[str, Mapping[str, Shape]]
    refusals: tuple[str, ...]  # the statuses of a command that is refused
    # the fields besides the subject, as `command` reads them
    body: Shape = field(default_factory=lambda: record({}))


def _cancel(fields: Fields) -> Callable[[str], Auditable]:
    task_id = fields.pop("task_id")
    given = read_body(fields, CANCEL_FIELDS)
    return lambda actor: Cancel(task_id, actor, given.get("reason", ""), given.get("timeout_s"))


def _cancelled(cancelled: Cancelled) -> Fields:
    if cancelled.deadline is None:
        return {"status": "cancelled"}
    return {"status": "cancelling", "deadline": millis(cancelled.deadline)}


def _set_priority(fields: Fields) -> Callable[[str], Auditable]:
    task_id = fields.pop("task_id")
    priority = read_priority(fields)
    return lambda actor: SetPriority(task_id, actor, priority)


def _place_hold(fields: Fields) -> Callable[[str], Auditable]:
    given = read_hold(fields)
    return lambda actor: PlaceHold(actor, **given)


ACTS: dict[str, Act] = {
    "retry_task": Act(
        permission="tasks.change_task",
        answer="retry_result",
        subject=("task_id",),
        command=lambda fields: lambda actor: Retry(fields["task_id"], actor),
        done=lambda _: {"status": "requeued"},
        statuses={"requeued": {}},
        refusals=("not_found",),
    ),
    "cancel_task": Act(
        permission="tasks.change_task",
        answer="cancel_result",
        subject=("task_id",),
        command=_cancel,
        done=_cancelled,
        statuses={"cancelled": {}, "cancelling": {"deadline": MS}},
        refusals=("too_late", "not_found"),
        body=CANCEL_SHAPE,
    ),
    "set_priority": Act(
        permission="tasks.change_task",
        answer="priority_result",
        subject=("task_id",),
        command=_set_priority,
        done=lambda status: {"status": status},
        statuses={status: {} for status in (*WAITING, Status.DEAD_LETTER)},
        refusals=("too_late", "not_found"),
        body=PRIORITY_BODY,
    ),
    "forget_agent": Act(
        permission="agents.change_agent",
        answer="forget_result",
        subject=("agent_id",),
        command=lambda fields: lambda actor: Forget(fields["agent_id"], actor),
        done=lambda _: {"status": "forgotten"},
        statuses={"forgotten": {}},
        refusals=("agent_not_found", "agent_connected", "agent_holds_task"),
    ),
    "place_hold": Act(
        permission="agents.change_hold",
        answer="hold_result",
        subject=(),
        command=_place_hold,
        done=lambda hold: {"status": "held", "hold": hold},
        statuses={"held": {"hold": HOLD}},
        refusals=("too_many_holds",),
        body=NEW_HOLD,
    ),
    "lift_hold": Act(
        permission="agents.change_hold",
        answer="hold_result",
        subject=("hold_id",),
        command=lambda fields: lambda actor: LiftHold(fields["hold_id"], actor),
        done=lambda _: {"status": "lifted"},
        statuses={"lifted": {}},
        refusals=("hold_not_found",),
    ),
}


def _parse(text: str) -> Any:
    """None if it is not JSON, or contains what a database cannot store."""
    try:
        frame = orjson.loads(text)
    except ValueError:
        return None
    return frame if fault(frame) is None else None


def _cookies(scope: dict[str, Any]) -> dict[str, str]:
    cookies: SimpleCookie = SimpleCookie()
    for name, value in scope["headers"]:
        if name == b"cookie":
            try:
                cookies.load(value.decode("latin-1"))
            except CookieError:
                continue
    return {name: morsel.value for name, morsel in cookies.items()}
