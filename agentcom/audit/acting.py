"""Runs commands that people give, and leaves an entry of each in the audit trail.

What is done is committed together with its entry. A refused command leaves nothing behind, so its
entry is a commit of its own, before the caller is answered. What the trail cannot take is logged.
"""

from __future__ import annotations

import getpass
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from django.conf import settings

from agentcom import actors
from agentcom.audit.entries import Auditable, Audited, Entry, Record, Row
from agentcom.audit.gathered import gathered
from agentcom.database import now
from agentcom.errors import Refused, Unavailable
from agentcom.models import AuditEntry, Outcome
from agentcom.writer import writer

logger = logging.getLogger(__name__)


async def do(command: Auditable, address: str, counted: bool = False) -> Any:
    """The command's result. Raises as `writer.do`.

    `address`: of whoever gave it, see `agentcom.addresses`. `counted`: refusals are only counted,
    because whoever is refused needs no right to ask; as nobody does without a login.
    """
    audited = Audited(command, address)
    try:
        return await writer.do(audited, settings.AGENTCOM_COMMIT_TIMEOUT_S)
    except Unavailable as unavailable:
        _note_failure(audited, unavailable.code)
        raise
    except Refused as refused:
        entry = audited.entry(None, Outcome.REFUSED, refused.code)
        if counted or command.actor == actors.ANYONE:
            gathered.note(entry)
        else:
            await record(entry)
        raise
    except Exception:
        _note_failure(audited, "internal_error")
        raise


async def record(*entries: Entry) -> None:
    """Add entries. Never raises `Refused`."""
    try:
        await writer.do(_rows(entries), settings.AGENTCOM_COMMIT_TIMEOUT_S)
    except Unavailable as unavailable:
        _log_lost(entries, unavailable)


# --- The same on a thread without an event loop


def call(command: Auditable, timeout: float | None = None, note: str = "") -> Any:
    """On the command line: the command's result. Raises as `writer.call`."""
    [outcome] = call_all([command], timeout=timeout, note=note)
    if isinstance(outcome, Refused):
        raise outcome
    return outcome


def call_all(
    commands: Iterable[Auditable], address: str = "", timeout: float | None = None, note: str = ""
) -> list[Any]:
    """Each command's result or its `Refused`. Raises `Unavailable`."""
    audited = [Audited(command, address, note) for command in commands]
    try:
        outcomes = writer.call_all(audited, timeout)
    except Unavailable as unavailable:
        for each in audited:
            _note_failure(each, unavailable.code)
        raise
    pairs = zip(audited, outcomes, strict=True)
    record_now(
        *(
            each.entry(None, Outcome.REFUSED, outcome.code)
            for each, outcome in pairs
            if isinstance(outcome, Refused)
        )
    )
    return outcomes


def record_now(*entries: Entry) -> None:
    """`record`, on a thread."""
    if not entries:
        return
    try:
        writer.call_all([_rows(entries)], settings.AGENTCOM_COMMIT_TIMEOUT_S)
    except Unavailable as unavailable:
        _log_lost(entries, unavailable)


def write_with(entry: Entry) -> None:
    """Add an entry in the transaction that this thread has open.

    For Django's own tables (users, groups), which Django's admin writes by itself: only so are the
    change and its entry one commit.
    """
    AuditEntry.objects.create(at=now(), **Row(entry).columns())


def os_user() -> str:
    """Who runs this process: the note of what is done on the command line."""
    try:
        return f"as {getpass.getuser()}"
    except (KeyError, OSError):  # an id without a name, as in some containers
        return "as a user without a name"


def _rows(entries: Sequence[Entry]) -> Record:
    return Record(tuple(Row(entry) for entry in entries))


def _note_failure(audited: Audited, code: str) -> None:
    gathered.note(audited.entry(None, Outcome.FAILED, code))


def _log_lost(entries: Iterable[Entry], unavailable: Unavailable) -> None:
    for entry in entries:
        logger.warning("Not in the audit trail (%s): %s", unavailable.detail, entry.in_words())
