"""How the endpoints stand: for the health light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from agentcom.models import Event
from webhooks.models import Delivery, Endpoint


@dataclass(frozen=True, slots=True)
class Standing:
    """Endpoints in words, by their ids."""

    failed: Mapping[str, str] = field(default_factory=dict)  # switched off by the hub
    late: Mapping[str, str] = field(default_factory=dict)


def read_standing(late_before: datetime) -> Standing:
    """`late`: something that happened before then is not delivered. One query if there is no
    endpoint."""
    endpoints = list(Endpoint.objects.all())
    return Standing(
        failed={e.endpoint_id: e.in_words for e in endpoints if e.off_by_failure},
        late={e.endpoint_id: e.in_words for e in endpoints if _is_late(e, late_before)},
    )


def _is_late(endpoint: Endpoint, before: datetime) -> bool:
    if not endpoint.enabled:
        return False
    waiting = Delivery.objects.filter(endpoint_id=endpoint.endpoint_id, ended_at=None)
    oldest = waiting.order_by("happened_at").values_list("happened_at", flat=True).first()
    return (oldest is not None and oldest < before) or _is_unread(endpoint.seq, before)


def _is_unread(seq: int, before: datetime) -> bool:
    """Whether the journal has an old entry that no delivery was made of yet."""
    unread = Event.objects.filter(seq__gt=seq).order_by("seq").values_list("at", flat=True).first()
    return unread is not None and unread < before
