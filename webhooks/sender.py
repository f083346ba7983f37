"""Sends what is due, beside the worker's ticks and never in their way.

One thread reads the journal and the deliveries, commits what came of each attempt, and starts the
attempts; each attempt is a thread of its own, which touches no database. All that must not be lost
is in the database: a sender that dies at any line is followed by one that sends again whatever has
no recorded outcome, with the same `webhook-id`.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from agentcom import database
from agentcom.clock import steady
from agentcom.errors import Refused, Unavailable
from agentcom.journal import journal
from agentcom.models import Event
from agentcom.work import Command
from webhooks import signing
from webhooks.deliveries import HASTENED, Hasten, RecordAttempt, due, next_due
from webhooks.feed import BATCH, next_batches
from webhooks.kinds import KINDS, TYPES
from webhooks.models import Delivery, Endpoint, Message
from webhooks.post import Answer, post

logger = logging.getLogger(__name__)

AT_ONCE = 32  # attempts
AT_ONCE_EACH = 8  # attempts at one endpoint
# An endpoint that has failed so often in a row gets one attempt at a time, so that a few that let
# every attempt time out leave room for the others.
FAILING = 3
POLL_S = 1.0
READ_S = 0.1  # at least from one read of the journal to the next: a busy hub's are read together
STOP_S = 1.5  # for attempts that are under way when the process ends
UNRECORDABLE = Answer(0, error="what came of it cannot be recorded, see the log")
WAKING = KINDS.keys() | TYPES.keys()  # kinds of entries that there may be something to do after
DATABASE_UNAVAILABLE = (OperationalError, InterfaceError, Unavailable)

Commit = Callable[[Sequence[Command]], Sequence[Any]]
Post = Callable[..., Answer]


@dataclass(frozen=True, slots=True)
class Outcome:
    """An attempt that is over."""

    delivery: Delivery
    answer: Answer


class Sender:
    """Its thread runs while this worker acts and there are endpoints."""

    def __init__(self, commit: Commit, send: Post = post) -> None:
        self._commit = commit
        self._send = send
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._acts_until = 0.0  # `steady`, s
        self._listens = False
        self._is_woken = False
        self._is_unavailable = False
        # outcomes; None wakes the thread
        self._done: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._under_way: dict[str, str] = {}  # endpoint by message
        self._reads_at = 0.0  # the journal, next: monotonic, s
        self._failures: Counter[str] = Counter()  # in a row, by endpoint

    # --- Called by the worker

    def keep_up(self, until: float) -> None:
        """This worker acts until then at least (`steady`, s). One query if no thread runs."""
        self._acts_until = until
        if self._thread is not None and self._thread.is_alive():
            return
        if not self._stop.is_set() and Endpoint.objects.filter(enabled=True).exists():
            self._start()

    def stand_by(self) -> None:
        """Another worker acts. What is under way ends; nothing more is sent."""
        self._acts_until = 0.0

    def stop(self) -> None:
        """Record what ends within `STOP_S`; the rest is sent again by the next sender."""
        self._stop.set()
        self._wake()
        if self._thread is not None:
            self._thread.join(2 * STOP_S)

    def _start(self) -> None:
        if not self._listens:
            self._listens = True
            journal.listen(self._on_events)
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def _on_events(self, events: list[Event]) -> None:
        """On the event loop."""
        if not self._is_woken and any(event.kind in WAKING for event in events):
            self._wake()

    def _wake(self) -> None:
        self._is_woken = True
        self._done.put(None)

    # --- The thread

    def _run(self) -> None:
        logger.info("Webhooks are sent by this worker")
        try:
            while not self._stop.is_set():
                try:
                    if not self._round():
                        break
                    self._note_available()
                except DATABASE_UNAVAILABLE as error:
                    self._note_unavailable(error)
                except Exception:
                    logger.exception(
                        "A round of the webhooks failed; the next one runs all the same"
                    )
                    self._stop.wait(POLL_S)
            self._finish()
        finally:
            connection.close()

    def _round(self) -> bool:
        """Add deliveries, start attempts, wait, record outcomes. Gives whether there is a reason
        for another one."""
        if not self._acts():
            self._record(self._wait(POLL_S))
            return bool(self._under_way) or self._acts()
        now = database.now()
        endpoints = list(Endpoint.objects.filter(enabled=True))
        more = self._feed(endpoints)
        for endpoint in endpoints:
            more = self._hasten(endpoint) or more
        self._start_attempts(endpoints, now)
        timeout_s = 0.0 if more else self._pause_s(endpoints, now)
        self._record(self._wait(timeout_s))
        return bool(endpoints or self._under_way)

    def _acts(self) -> bool:
        return steady() < self._acts_until

    def _feed(self, endpoints: Sequence[Endpoint]) -> bool:
        """Gives whether much more may be in the journal, to be read at once."""
        if time.monotonic() < self._reads_at:
            return False
        self._is_woken = False  # before reading: whatever comes later wakes it again
        batches = next_batches(endpoints)
        self._reads_at = time.monotonic() + READ_S
        if not batches:
            return False
        added = self._commit(batches)
        seqs = {endpoint.endpoint_id: endpoint for endpoint in endpoints}
        for batch, was_added in zip(batches, added, strict=True):
            if was_added is True:
                seqs[batch.endpoint_id].seq = batch.until
        self._is_woken = True  # there may be more, such as what did not fit into a batch
        if all(batch.until - batch.after < BATCH for batch in batches):
            return False
        self._reads_at = 0.0
        return True

    def _hasten(self, endpoint: Endpoint) -> bool:
        """Gives whether there may be more to be hastened."""
        if endpoint.recovered_from is None or endpoint.failing_since is not None:
            return False
        [count] = self._commit([Hasten(endpoint.endpoint_id)])
        return bool(count == HASTENED)

    def _start_attempts(self, endpoints: Sequence[Endpoint], now: datetime) -> None:
        """Round the endpoints, so that none takes all places."""
        found = [(endpoint, self._due(endpoint, now)) for endpoint in endpoints]
        turns = [
            (endpoint, deliveries[place])
            for place in range(AT_ONCE_EACH)
            for endpoint, deliveries in found
            if place < len(deliveries)
        ][: AT_ONCE - len(self._under_way)]
        ids = [delivery.message_id for _, delivery in turns]
        bodies = Message.objects.in_bulk(ids) if ids else {}
        for endpoint, delivery in turns:
            message = bodies.get(delivery.message_id)  # None: just removed with its endpoint
            if message is not None and self._acts():
                self._attempt(endpoint, delivery, message.body, now)

    def _due(self, endpoint: Endpoint, now: datetime) -> list[Delivery]:
        endpoint_id = endpoint.endpoint_id
        under_way = {m for m, at in self._under_way.items() if at == endpoint_id}
        most = 1 if self._failures[endpoint_id] >= FAILING else AT_ONCE_EACH
        room = min(most - len(under_way), AT_ONCE - len(self._under_way))
        return due(endpoint_id, now, room, under_way) if room > 0 else []

    def _attempt(self, endpoint: Endpoint, delivery: Delivery, body: str, now: datetime) -> None:
        secrets = [endpoint.secret]
        if endpoint.old_secret_until is not None and endpoint.old_secret_until > now:
            secrets.append(endpoint.old_secret)
        timestamp = int(now.timestamp())
        headers = signing.headers(secrets, delivery.message_id, timestamp, body)
        attempt = threading.Thread(
            target=self._try,
            args=[endpoint.url, headers, body.encode(), delivery],
            name=f"webhook {delivery.message_id}",
            daemon=True,
        )
        self._under_way[delivery.message_id] = endpoint.endpoint_id
        try:
            attempt.start()
        except RuntimeError:  # the system gives no more threads
            del self._under_way[delivery.message_id]
            raise

    def _try(self, url: str, headers: dict[str, str], body: bytes, delivery: Delivery) -> None:
        """In a thread of its own."""
        try:
            answer = self._send(
                url,
                headers,
                body,
                timeout_s=settings.AGENTCOM_WEBHOOK_TIMEOUT_S,
                allow_private=settings.AGENTCOM_WEBHOOK_ALLOW_PRIVATE,
            )
        except Exception as error:
            logger.exception("An attempt of %s failed unexpectedly", delivery.message_id)
            answer = Answer(0, error=f"the hub failed: {type(error).__name__}")
        self._done.put(Outcome(delivery, answer))

    def _pause_s(self, endpoints: Sequence[Endpoint], now: datetime) -> float:
        """Until there is something to do without an outcome, at most `POLL_S`."""
        pause_s = POLL_S
        at = next_due((endpoint.endpoint_id for endpoint in endpoints), now)
        if at is not None:
            pause_s = min(pause_s, (at - now).total_seconds())
        if self._is_woken:
            pause_s = min(pause_s, self._reads_at - time.monotonic())
        return max(0.01, pause_s)

    def _wait(self, timeout_s: float) -> list[Outcome]:
        """The outcomes that are there by then, as soon as there is one or the thread is woken."""
        found: list[Outcome] = []
        try:
            first = self._done.get(timeout=timeout_s) if timeout_s else self._done.get_nowait()
            while True:
                if first is not None:
                    found.append(first)
                first = self._done.get_nowait()
        except queue.Empty:
            return found

    def _record(self, outcomes: Sequence[Outcome]) -> None:
        """An outcome that cannot be recorded is dropped, and its delivery is sent again."""
        if not outcomes:
            return
        try:
            recorded = self._commit_outcomes(outcomes)
        finally:
            for outcome in outcomes:
                del self._under_way[outcome.delivery.message_id]
        for outcome, counted in zip(outcomes, recorded, strict=True):
            if counted and not isinstance(counted, Refused):
                self._learn(outcome)

    def _commit_outcomes(self, outcomes: Sequence[Outcome]) -> Sequence[Any]:
        """One that makes the database fail is recorded as a failure, or it would be sent again at
        once, for ever. The others are in the database by then, and do not count twice."""
        try:
            return self._commit([_record(outcome) for outcome in outcomes])
        except DATABASE_UNAVAILABLE:
            raise
        except Exception:
            logger.exception("What came of a webhook cannot be recorded")
            failed = [replace(outcome, answer=UNRECORDABLE) for outcome in outcomes]
            return self._commit([_record(outcome) for outcome in failed])

    def _learn(self, outcome: Outcome) -> None:
        endpoint_id, answer = outcome.delivery.endpoint_id, outcome.answer
        if not answer.is_success:
            self._failures[endpoint_id] += 1
            if self._failures[endpoint_id] == FAILING:
                logger.warning("Webhook %s fails: %s", endpoint_id, answer.error)
        else:
            self._failures.pop(endpoint_id, None)

    def _finish(self) -> None:
        """Wait a moment for what is under way, and record it."""
        give_up_at = time.monotonic() + STOP_S
        while self._under_way and (left := give_up_at - time.monotonic()) > 0:
            try:
                self._record(self._wait(left))
            except DATABASE_UNAVAILABLE as error:
                logger.warning("What became of some webhooks is not recorded: %s", error)
                return
        if self._under_way:
            logger.info("Still under way, and to be sent again: %d", len(self._under_way))

    # --- An unavailable database

    def _note_unavailable(self, error: Exception) -> None:
        connection.close()  # a broken connection is not kept
        if not self._is_unavailable:
            logger.warning("The database is unavailable; webhooks wait: %s", error)
        self._is_unavailable = True
        self._stop.wait(POLL_S)

    def _note_available(self) -> None:
        if self._is_unavailable:
            logger.warning("The database is available again; webhooks are sent")
        self._is_unavailable = False


def _record(outcome: Outcome) -> RecordAttempt:
    delivery = outcome.delivery
    return RecordAttempt(
        delivery.message_id, delivery.endpoint_id, delivery.attempts, outcome.answer
    )
