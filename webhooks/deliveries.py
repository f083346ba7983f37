"""What becomes of a delivery: an attempt is recorded, it is sent again, it is replayed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Min

from agentcom import actors
from agentcom.audit.entries import Act, What
from agentcom.errors import Refused
from agentcom.work import Wanted, Work
from webhooks.endpoints import NOT_FOUND, switch_off
from webhooks.models import Attempt, Delivery, Endpoint, Message, State
from webhooks.post import Answer

JITTER = 0.2  # of a pause, to both sides
RETRY_AFTER_MAX_S = 3600.0  # the longest pause that a receiver can ask for
# An endpoint is not switched off before a delivery has failed so often: one failure after days in
# which nothing was sent says little.
SURE = 5
HASTENED = 200  # deliveries of a step
SOON_S = 5.0  # over so long those of a receiver that is back are spread


def pause_s(tries: int, retry_after_s: float | None) -> float | None:
    """How long to wait after so many failed attempts; None: there is none left."""
    pauses = settings.AGENTCOM_WEBHOOK_BACKOFF_S
    if tries > len(pauses):
        return None
    pause = pauses[tries - 1] * random.uniform(1 - JITTER, 1 + JITTER)
    return max(pause, min(retry_after_s or 0, RETRY_AFTER_MAX_S))


def longest_pause() -> timedelta:
    return max(_longest_backoff(), timedelta(seconds=RETRY_AFTER_MAX_S)) + timedelta(seconds=1)


def _longest_backoff() -> timedelta:
    return timedelta(seconds=max(settings.AGENTCOM_WEBHOOK_BACKOFF_S) * (1 + JITTER))


@dataclass(frozen=True, slots=True)
class RecordAttempt:
    """Gives whether it counted. It does not if the delivery has ended or been tried by another
    sender meanwhile: `attempts` is how many there were when this one began."""

    message_id: str
    endpoint_id: str
    attempts: int
    answer: Answer
    actor = actors.WORKER

    def rows(self) -> Wanted:
        return [(Delivery, [self.message_id]), (Endpoint, [self.endpoint_id])]

    def apply(self, work: Work) -> bool:
        work.flush()  # so that the query for the next of the task sees this group's commands
        delivery = work.get(Delivery, self.message_id)
        endpoint = work.get(Endpoint, self.endpoint_id)
        if delivery is None or delivery.ended_at is not None:
            return False
        if delivery.attempts != self.attempts:
            return False
        follower = self._follower(work, delivery)
        self._count(work, delivery)
        state = self._decide(delivery, work.now)
        if state is not None:
            delivery.state, delivery.ended_at, delivery.due_at = state, work.now, None
            if follower is not None and follower.due_at is None:
                follower.due_at = work.now
        if endpoint is not None:
            self._judge(work, endpoint, delivery)
        return True

    def _decide(self, delivery: Delivery, now: datetime) -> State | None:
        """How it ends; None: it does not, and the time of the next attempt is set."""
        if self.answer.is_success:
            return State.DELIVERED
        pause = pause_s(delivery.tries, self.answer.retry_after_s)
        if pause is None:
            return State.DEAD
        delivery.due_at = now + timedelta(seconds=pause)
        delivery.failed_since = delivery.failed_since or now
        return None

    def _follower(self, work: Work, delivery: Delivery) -> Delivery | None:
        if delivery.task_id is None:
            return None
        waiting = Delivery.objects.filter(
            endpoint_id=delivery.endpoint_id, task_id=delivery.task_id, ended_at=None
        )
        found = waiting.exclude(number=delivery.number).order_by("seq").first()
        return None if found is None else work.track(found)

    def _count(self, work: Work, delivery: Delivery) -> None:
        delivery.attempts += 1
        delivery.tries += 1
        delivery.status_code = self.answer.status_code
        delivery.error = self.answer.error
        work.append(
            Attempt(
                message_id=self.message_id,
                at=work.now,
                duration_ms=self.answer.duration_ms,
                status_code=self.answer.status_code,
                answer=self.answer.text,
                error=self.answer.error,
            )
        )

    def _judge(self, work: Work, endpoint: Endpoint, delivery: Delivery) -> None:
        """Switch the endpoint off if it wants no more, or has failed for too long."""
        if self.answer.is_success:
            endpoint.succeed()
            return
        _count_failure(endpoint, work.now)
        if not endpoint.enabled:
            return
        days = settings.AGENTCOM_WEBHOOK_FAILING_DAYS
        is_sure = delivery.tries >= min(SURE, len(settings.AGENTCOM_WEBHOOK_BACKOFF_S))
        if self.answer.is_gone:
            switch_off(work, endpoint, "it answered 410 Gone", by_failure=True)
        elif endpoint.failing_s >= timedelta(days=days).total_seconds() and is_sure:
            reason = f"every attempt of {days:g} days has failed, the last one with: "
            switch_off(work, endpoint, reason + self.answer.error, by_failure=True)


def _count_failure(endpoint: Endpoint, now: datetime) -> None:
    """Count the time since the last failure, but no more than a pause lasts: days in which the hub
    was down, in which nothing was to be sent, or which only the clock has jumped, prove nothing."""
    if endpoint.failing_since is None or endpoint.failed_at is None:
        endpoint.failing_since, endpoint.failing_s = now, 0.0
    else:
        passed = max(timedelta(0), now - endpoint.failed_at)
        endpoint.failing_s += min(passed, _longest_backoff()).total_seconds()
    endpoint.failed_at = now


@dataclass(frozen=True, slots=True)
class Hasten:
    """A receiver that has failed is back: send soon what has failed only since it began to fail,
    and begin its pauses anew. Gives how many deliveries are sent earlier; if `HASTENED`, there may
    be more.

    What had failed before then fails for a reason of its own, and keeps its pauses. Otherwise a
    message that a receiver never accepts would use up its attempts with each success of others.
    """

    endpoint_id: str
    actor = actors.WORKER

    def rows(self) -> Wanted:
        return [(Endpoint, [self.endpoint_id])]

    def apply(self, work: Work) -> int:
        work.flush()
        endpoint = work.get(Endpoint, self.endpoint_id)
        if endpoint is None or endpoint.recovered_from is None:
            return 0
        if endpoint.failing_since is not None:  # again; the next success goes on with it
            return 0
        found = self._found(work, endpoint.recovered_from)
        for delivery in found:
            delivery.due_at = work.now + timedelta(seconds=random.uniform(0, SOON_S))
            delivery.tries = 0  # that the receiver was down says nothing about this message
        if len(found) < HASTENED:
            endpoint.recovered_from = None
        return len(found)

    def _found(self, work: Work, since: datetime) -> list[Delivery]:
        late = Delivery.objects.filter(
            endpoint_id=self.endpoint_id,
            due_at__gt=work.now + timedelta(seconds=SOON_S),
            failed_since__gte=since,
        )
        return [work.track(delivery) for delivery in late.order_by("due_at")[:HASTENED]]


@dataclass(frozen=True, slots=True)
class Replay:
    """Send a delivery again, with the same `webhook-id` and body: one that has ended, or at once
    one that waits for its next attempt. Gives whether that changes anything.

    Raises `Refused` "delivery_not_found" or "webhook_not_found".
    """

    message_id: str
    endpoint_id: str
    actor: str

    def act(self, result: Any = None) -> Act:
        return Act(What.DELIVERY_REPLAY, self.message_id)

    def rows(self) -> Wanted:
        return [(Delivery, [self.message_id]), (Endpoint, [self.endpoint_id])]

    def apply(self, work: Work) -> bool:
        work.flush()
        delivery = work.get(Delivery, self.message_id)
        if delivery is None:
            raise Refused("delivery_not_found")
        if work.get(Endpoint, self.endpoint_id) is None:
            raise Refused(NOT_FOUND)
        if delivery.ended_at is None:
            return self._send_now(delivery, work.now)
        due_at = None if self._is_busy(delivery) else work.now
        delivery.state, delivery.ended_at, delivery.due_at = State.WAITING, None, due_at
        delivery.tries, delivery.failed_since = 0, None
        return True

    def _send_now(self, delivery: Delivery, now: datetime) -> bool:
        if delivery.due_at is None or delivery.due_at <= now:
            return False
        delivery.due_at = now
        return True

    def _is_busy(self, delivery: Delivery) -> bool:
        """Whether another event of its task waits; then this one goes when that one has ended."""
        if delivery.task_id is None:
            return False
        return Delivery.objects.filter(
            endpoint_id=delivery.endpoint_id, task_id=delivery.task_id, ended_at=None
        ).exists()


def replays(
    endpoint_id: str, since: datetime, until: datetime, actor: str, *, only_dead: bool = False
) -> Iterator[Replay]:
    """Of all deliveries of an endpoint whose events happened in this time, the oldest first."""
    ended = Delivery.objects.filter(
        endpoint_id=endpoint_id, happened_at__gte=since, happened_at__lt=until
    ).exclude(ended_at=None)
    if only_dead:
        ended = ended.filter(state=State.DEAD)
    for message_id in ended.order_by("number").values_list("message_id", flat=True):
        yield Replay(message_id, endpoint_id, actor)


@dataclass(frozen=True, slots=True)
class Discard:
    """Delete a dead delivery, with its body and its attempts. Gives whether it was dead."""

    message_id: str
    actor: str

    def act(self, result: Any = None) -> Act:
        return Act(What.DELIVERY_DISCARD, self.message_id)

    def rows(self) -> Wanted:
        return [(Delivery, [self.message_id])]

    def apply(self, work: Work) -> Any:
        delivery = work.get(Delivery, self.message_id)
        if delivery is None:
            raise Refused("delivery_not_found")
        if delivery.state != State.DEAD:
            return False
        work.remove(delivery)
        delete_with_them([self.message_id])
        return True


def due(endpoint_id: str, now: datetime, limit: int, without: set[str]) -> list[Delivery]:
    """What is to be sent to an endpoint now, the longest due first."""
    found = Delivery.objects.filter(endpoint_id=endpoint_id, due_at__lte=now)
    return list(found.exclude(message_id__in=without).order_by("due_at", "number")[:limit])


def next_due(endpoint_ids: Iterable[str], now: datetime) -> datetime | None:
    """When the next of these endpoints' deliveries is due, after now."""
    later = Delivery.objects.filter(endpoint_id__in=list(endpoint_ids), due_at__gt=now)
    found: datetime | None = later.aggregate(at=Min("due_at"))["at"]
    return found


def reset_late(work: Work) -> int:
    """Make due what is due later than any pause lasts: the clock was set back. Gives how many."""
    late = Delivery.objects.filter(due_at__gt=work.now + longest_pause())
    found = [work.track(delivery) for delivery in late]
    for delivery in found:
        delivery.due_at = work.now
    return len(found)


def delete_with_them(message_ids: list[str]) -> None:
    """The bodies and attempts of deliveries that are deleted."""
    Message.objects.filter(message_id__in=message_ids).delete()
    Attempt.objects.filter(message_id__in=message_ids).delete()
