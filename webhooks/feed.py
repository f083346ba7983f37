"""From the journal to deliveries: each endpoint remembers up to which entry it has been given them.

What is read outside of the Writer is added by a command that compares: if the endpoint has moved on
meanwhile, or its filter has changed, nothing is added, and it is read again. The journal has no
gaps and does not change, so nothing is lost and nothing doubled, wherever a process dies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from agentcom import actors
from agentcom.models import Event
from agentcom.work import Wanted, Work
from webhooks.bodies import READ_AT_ONCE, TaskFacts, body_of, read_facts, read_results
from webhooks.endpoints import LANES
from webhooks.kinds import TYPES
from webhooks.models import Delivery, Endpoint, Message
from webhooks.signing import new_message_id

BATCH = 500  # entries read at once
BATCH_BYTES = 4 * 1024 * 1024  # of bodies, in one batch
# So many of an endpoint may wait. When there are more, the rest stays in the journal: a receiver
# that is down for days does not fill the database.
WAITING_MAX = 5_000


@dataclass(frozen=True, slots=True)
class Item:
    """An event that some endpoint may want."""

    event: Event
    facts: TaskFacts | None
    body: str


@dataclass(frozen=True, slots=True)
class NewDelivery:
    message_id: str
    seq: int
    task_id: str | None
    type: str
    happened_at: datetime
    body: str


@dataclass(frozen=True, slots=True)
class AddDeliveries:
    """Add an endpoint's deliveries for the entries after `after` up to `until`. Gives whether it
    did; not if the endpoint is elsewhere by now, switched off or gone."""

    endpoint_id: str
    revision: int
    after: int
    until: int
    deliveries: Sequence[NewDelivery]
    actor = actors.WORKER

    def rows(self) -> Wanted:
        return [(Endpoint, [self.endpoint_id])]

    def apply(self, work: Work) -> bool:
        endpoint = work.get(Endpoint, self.endpoint_id)
        if endpoint is None or not endpoint.enabled:
            return False
        if (endpoint.revision, endpoint.seq) != (self.revision, self.after):
            return False
        busy = self._busy_tasks(work) if self.deliveries else set()
        endpoint.seq = self.until
        for new in self.deliveries:
            work.add(self._delivery(new, None if new.task_id in busy else work.now, work.now))
            work.add(Message(message_id=new.message_id, body=new.body))
            busy.add(new.task_id)
        return True

    def _busy_tasks(self, work: Work) -> set[str | None]:
        """Those of which an earlier event waits: theirs go when that one has ended."""
        work.flush()  # so that the query sees the earlier commands of this group
        waiting = Delivery.objects.filter(
            endpoint_id=self.endpoint_id,
            task_id__in={new.task_id for new in self.deliveries},
            ended_at=None,
        )
        return set(waiting.values_list("task_id", flat=True))

    def _delivery(self, new: NewDelivery, due_at: datetime | None, now: datetime) -> Delivery:
        return Delivery(
            message_id=new.message_id,
            endpoint_id=self.endpoint_id,
            seq=new.seq,
            task_id=new.task_id,
            type=new.type,
            happened_at=new.happened_at,
            due_at=due_at,
            created_at=now,
        )


def next_batches(endpoints: Iterable[Endpoint]) -> list[AddDeliveries]:
    """What the journal has for these endpoints by now; nothing if they are up to date.

    Mostly they are all at the same entry, and one read serves all.
    """
    by_seq = groupby(sorted(endpoints, key=_position), key=_position)
    return [command for seq, group in by_seq for command in _batches(seq, list(group))]


def _position(endpoint: Endpoint) -> int:
    return endpoint.seq


def _batches(after: int, endpoints: Sequence[Endpoint]) -> list[AddDeliveries]:
    events = list(Event.objects.filter(seq__gt=after).order_by("seq")[:BATCH])
    if not events:
        return []
    ready = [endpoint for endpoint in endpoints if _has_room(endpoint)]
    until, items = _items(events, ready)
    return [
        AddDeliveries(
            endpoint.endpoint_id,
            endpoint.revision,
            after,
            until,
            [_new_delivery(item) for item in items if wants(endpoint, item.event, item.facts)],
        )
        for endpoint in ready
    ]


def _has_room(endpoint: Endpoint) -> bool:
    waiting = Delivery.objects.filter(endpoint_id=endpoint.endpoint_id, ended_at=None)
    return waiting.values("pk")[:WAITING_MAX].count() < WAITING_MAX


def _items(events: Sequence[Event], endpoints: Sequence[Endpoint]) -> tuple[int, list[Item]]:
    """The items of the first events, as many as fit into `BATCH_BYTES`, and the last of them."""
    known = [event for event in events if event.kind in TYPES]
    facts = read_facts(event.task_id for event in known if event.task_id)
    wanted = [
        event
        for event in known
        if any(wants(endpoint, event, facts.get(event.task_id or "")) for endpoint in endpoints)
    ]
    items: list[Item] = []
    room = BATCH_BYTES
    for start in range(0, len(wanted), READ_AT_ONCE):
        step = wanted[start : start + READ_AT_ONCE]
        results = read_results(e.task_id for e in step if e.kind == "task_complete" and e.task_id)
        for event in step:
            task_id = event.task_id or ""
            result = results.get(task_id) if event.kind == "task_complete" else None
            body = body_of(event, facts.get(task_id), result)
            items.append(Item(event, facts.get(task_id), body))
            room -= len(body)
        if room < 0 and start + READ_AT_ONCE < len(wanted):
            return items[-1].event.seq, items
    return events[-1].seq, items


def wants(endpoint: Endpoint, event: Event, facts: TaskFacts | None) -> bool:
    """Whether an event passes the endpoint's filter. What a filter needs and nobody knows any more,
    because the task was deleted, does not keep it back."""
    if TYPES.get(event.kind) not in endpoint.types:
        return False
    lane = event.data.get("priority")
    if lane is None and facts is not None:
        lane = facts.priority
    if endpoint.lanes and lane is not None and LANES[lane] not in endpoint.lanes:
        return False
    if endpoint.capabilities and facts is not None:
        return not set(endpoint.capabilities).isdisjoint(facts.capabilities)
    return True


def _new_delivery(item: Item) -> NewDelivery:
    return NewDelivery(
        message_id=new_message_id(),
        seq=item.event.seq,
        task_id=item.event.task_id,
        type=TYPES[item.event.kind],
        happened_at=item.event.at,
        body=item.body,
    )


# --- What must not be deleted before


def first_needed() -> int | None:
    """The first entry of the journal, there already or not, that has not been turned into
    deliveries for some endpoint that is on; None if no endpoint is on."""
    given = Endpoint.objects.filter(enabled=True).order_by("seq").values_list("seq", flat=True)
    seq = given.first()
    return None if seq is None else seq + 1
