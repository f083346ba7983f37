"""What an audit entry says, and the commands that add entries.

A command that people give says by `act` what it does. `Audited` wraps it, so that its change and
its entry are one commit. An entry never contains a token, a password, or a task's text.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from agentcom import actors, rows
from agentcom.addresses import MAX_ADDRESS
from agentcom.models import AuditEntry, Outcome
from agentcom.texts import plain
from agentcom.work import Command, Wanted, Work


class What(StrEnum):
    """What was done or tried."""

    TASK_SUBMIT = "task.submit"
    TASK_CANCEL = "task.cancel"
    TASK_RETRY = "task.retry"
    TASK_MOVE = "task.move"
    AGENT_FORGET = "agent.forget"
    HOLD_PLACE = "hold.place"
    HOLD_LIFT = "hold.lift"
    TOKEN_CREATE = "token.create"
    TOKEN_ROTATE = "token.rotate"
    TOKEN_REVOKE = "token.revoke"
    TOKEN_WRONG = "token.wrong"  # somebody came with one that is unknown, revoked or expired
    ENROLMENT_CREATE = "enrolment.create"
    ENROLMENT_USE = "enrolment.use"
    WEBHOOK_ADD = "webhook.add"
    WEBHOOK_CHANGE = "webhook.change"
    WEBHOOK_SECRET = "webhook.secret"  # a new one
    WEBHOOK_ENABLE = "webhook.enable"
    WEBHOOK_DISABLE = "webhook.disable"
    WEBHOOK_REMOVE = "webhook.remove"
    WEBHOOK_TEST = "webhook.test"
    DELIVERY_REPLAY = "delivery.replay"
    DELIVERY_DISCARD = "delivery.discard"
    LOGIN = "login"
    LOGOUT = "logout"
    USER_ADD = "user.add"
    USER_CHANGE = "user.change"
    USER_DELETE = "user.delete"
    GROUP_ADD = "group.add"
    GROUP_CHANGE = "group.change"
    GROUP_DELETE = "group.delete"
    CALL = "call"  # of the HTTP API, which a token does not allow; the subject is the call's name
    IDENTIFY = "identify"  # at the agents' or the submitters' socket, with a token of another kind


@dataclass(frozen=True, slots=True)
class Act:
    """What a command does, in the trail's words."""

    what: What
    subject: str = ""  # the id of a task, hold or agent, the name of a token or of a user
    reason: str = ""  # in the words of whoever did it
    detail: str = ""


class Auditable(Command, Protocol):
    """A command that people, operators or the command line give."""

    def act(self, result: Any = None) -> Act:
        """`result`: what `apply` gave; None if it was refused."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """All that a row says but when, and how often."""

    act: Act
    actor: str  # see `agentcom.actors`
    address: str = ""  # empty: unknown, or none, as on the command line
    outcome: Outcome = Outcome.DONE
    code: str = ""  # of the refusal

    def in_words(self) -> str:
        """For the log."""
        act = self.act
        about = f" {act.subject}" if act.subject else ""
        why = f" ({self.code})" if self.code else ""
        where = self.address or "an unknown address"
        return plain(f"{act.what}{about} {self.outcome}{why}: {self.actor} from {where}")


def new_key() -> str:
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Row:
    """An entry to be added once, however often the command that adds it is applied: a commit whose
    reply was lost may be repeated."""

    entry: Entry
    count: int = 1
    key: str = field(default_factory=new_key)

    def add(self, work: Work) -> None:
        if work.get(AuditEntry, self.key) is None:
            work.add(rows.new(AuditEntry, at=work.now, **self.columns()))

    def columns(self) -> dict[str, Any]:
        """All but the time."""
        entry, act = self.entry, self.entry.act
        return {
            "key": self.key,
            "actor": _bounded(entry.actor, actors.MAX_LENGTH),
            "address": entry.address[:MAX_ADDRESS],
            "what": str(act.what),
            "subject": _bounded(act.subject, AuditEntry.MAX_SUBJECT),
            "reason": _bounded(act.reason, AuditEntry.MAX_TEXT),
            "outcome": str(entry.outcome),
            "detail": _bounded(", ".join(filter(None, (entry.code, act.detail)))),
            "count": self.count,
        }


def _bounded(text: str, most: int = AuditEntry.MAX_TEXT) -> str:
    """What a database can store. Names of the operating system may not even be UTF-8."""
    clean = plain(text).encode("utf-8", "replace").decode()
    return clean if len(clean) <= most else clean[: most - 1] + "…"


# --- The commands


@dataclass(frozen=True, slots=True)
class Audited:
    """A command and its entry: both are committed, or neither is."""

    command: Auditable
    address: str = ""
    note: str = ""  # what else the entry's detail says
    key: str = field(default_factory=new_key)

    @property
    def actor(self) -> str:
        return self.command.actor

    def rows(self) -> Wanted:
        return [*self.command.rows(), (AuditEntry, [self.key])]

    def apply(self, work: Work) -> Any:
        result = self.command.apply(work)
        Row(self.entry(result), key=self.key).add(work)
        return result

    def entry(self, result: Any = None, outcome: Outcome = Outcome.DONE, code: str = "") -> Entry:
        act = self.command.act(result)
        detail = ", ".join(filter(None, (act.detail, self.note)))
        act = Act(act.what, act.subject, act.reason, detail)
        return Entry(act, self.actor, self.address, outcome, code)


@dataclass(frozen=True, slots=True)
class Record:
    """Adds entries of what changed nothing, or was changed elsewhere."""

    entries: tuple[Row, ...]
    actor = actors.HUB

    def rows(self) -> Wanted:
        return [(AuditEntry, [row.key for row in self.entries])]

    def apply(self, work: Work) -> None:
        for row in self.entries:
            row.add(work)
