"""What processes tell each other about the journal, over the channel layer.

A hint says that entries exist and, if they are few enough, what they are; then nobody has to read
them back. It may be lost, doubled or late: the journal's tail reads from the database what is
missing.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
from django.conf import settings

from agentcom.database import execute_all
from agentcom.models import Event

Message = dict[str, Any]

SENDER = secrets.token_hex(8)  # this process
FORM = 1  # of the entries; those of another version are read from the database
MAX_BYTES = 256 * 1024  # of entries in one hint
COLUMNS = ("seq", "kind", "task_id", "agent_id", "at", "data", "actor")


def journal_id() -> str:
    """Tells this hub's journal from that of another hub that uses the same Redis by mistake: when
    its database was first migrated, to the microsecond."""
    [[(first,)]] = execute_all([("SELECT MIN(applied) FROM django_migrations", ())])
    return f"{FORM} {settings.DATABASES['default']['NAME']} {first}"


def pack(journal: str, seq: int, events: Sequence[Event]) -> Message:
    """`seq`: of the newest entry that is known. The entries are encoded once for all processes."""
    hint: Message = {"type": "journal.hint", "seq": seq, "sender": SENDER}
    if events:
        entries = orjson.dumps([_values(event) for event in events])
        if len(entries) <= MAX_BYTES:
            hint |= {"journal": journal, "entries": entries.decode()}
    return hint


def unpack(journal: str, hint: Message) -> list[list[Event]]:
    """The entries in a hint, in batches without gaps: between two commits that are told together,
    another process may have committed. None if it has none, is of another journal, or is our own.
    """
    if hint.get("journal") != journal or hint["sender"] == SENDER:
        return []
    batches: list[list[Event]] = []
    for event in map(_event, orjson.loads(hint["entries"])):
        if not batches or event.seq != batches[-1][-1].seq + 1:
            batches.append([])
        batches[-1].append(event)
    return batches


def _values(event: Event) -> list[Any]:
    facts = None if event.facts is None else list(event.facts)
    return [*(getattr(event, name) for name in COLUMNS), facts]


def _event(values: list[Any]) -> Event:
    *columns, facts = values
    event = Event(**dict(zip(COLUMNS, columns, strict=True)))
    event.at = datetime.fromisoformat(columns[COLUMNS.index("at")])
    event.facts = facts
    return event
