"""The audit trail as JSON lines, oldest first.

Read in steps, so that a long trail takes no more memory than a short one. The caller reads within
`consistent_read`, else entries may be dropped between two steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from agentcom.models import AuditEntry
from agentcom.wire import encode

STEP = 1_000  # entries read at once


def matching(since: datetime | None = None, until: datetime | None = None) -> Iterator[AuditEntry]:
    """The entries that were written from `since` on and before `until`."""
    entries = AuditEntry.objects.order_by("id")
    if since is not None:
        entries = entries.filter(at__gte=since)
    if until is not None:
        entries = entries.filter(at__lt=until)
    last = 0
    while step := list(entries.filter(id__gt=last)[:STEP]):
        yield from step
        last = step[-1].id


def json_lines(entries: Iterator[AuditEntry]) -> Iterator[bytes]:
    for entry in entries:
        yield encode(entry_json(entry)) + b"\n"


def entry_json(entry: AuditEntry) -> dict[str, Any]:
    """All columns but the key; the time in ISO 8601, UTC."""
    return {
        "id": entry.id,
        "at": entry.at.astimezone(UTC).isoformat(),
        "actor": entry.actor,
        "address": entry.address,
        "what": entry.what,
        "subject": entry.subject,
        "reason": entry.reason,
        "outcome": entry.outcome,
        "detail": entry.detail,
        "count": entry.count,
    }
