"""The worker: reclaims overdue tasks, judges the fleet's health, and deletes old rows.

One tick, in order:

1. take or renew the lease; without it another worker acts, and this one stands by. With it,
   webhooks are sent by threads beside the ticks (`webhooks.sender`). After a start or a jump of the
   clock, reset times that are in the future;
2. mark the agents of dead processes offline;
3. reclaim tasks from agents that are disconnected or silent, give up those whose deadline passed
   while they waited, end holds whose time is over, and revoke tokens that have expired;
4. sample the queue's depth;
5. report on health;
6. delete old rows.

Every change is a command. If a task has changed meanwhile, its generation makes the reclaim fail.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from agentcom import database
from agentcom.clock import steady
from agentcom.errors import Refused, Unavailable
from agentcom.work import Command
from agentcom.writer import writer
from fleet import holds
from fleet.tokens import ExpireToken
from fleet.tokens import expired as expired_tokens
from tasks.steering import DUE_MAX, CatchUp
from webhooks.sender import Sender
from worker import pruning, reclaims
from worker.facts import TakeSample, sample_is_due
from worker.lease import HoldLease
from worker.light import Light
from worker.orphans import ForgetNode, MarkOffline, dead_nodes, orphans
from worker.reports import FileReport, last_times, newest_report
from worker.set_back import ResetFutureTimes
from worker.wal import WalWatch
from worker.watch import LONG_AGO, ClockReading, Watch

logger = logging.getLogger(__name__)

LEASE = "worker"
LEASE_TICKS = 2  # a standby sees that it expired at its next tick: it takes over within three
LOST_AT_ONCE = 1000  # agents per tick
TOKENS_AT_ONCE = 100  # per tick
PRUNE_EVERY = timedelta(minutes=1)
PRUNE_S = 0.2  # of a tick's time

DATABASE_UNAVAILABLE = (OperationalError, InterfaceError, Unavailable)
Commit = Callable[[Sequence[Command]], Sequence[Any]]


def commit_together(commands: Sequence[Command]) -> Sequence[Any]:
    return writer.call_all(commands, timeout=settings.AGENTCOM_COMMIT_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class Tick:
    """What a tick did."""

    acted: bool
    lost: int = 0  # agents
    reclaimed: int = 0  # tasks
    expired: int = 0  # tasks
    sampled: bool = False
    news: bool = False  # whether readers see a change of health
    pruned: int = 0  # rows


class Worker:
    """`commit` gives each command's result, or its `Refused`."""

    def __init__(self, commit: Commit = commit_together) -> None:
        self.id = secrets.token_hex(8)
        self.watch = Watch()
        self._commit = commit
        self._acting: bool | None = None
        self._is_unavailable = False  # the database, at the last tick
        self._has_read_clock = False
        self._was_interrupted = False
        self._may_be_ahead = False  # times in the database, if the clock was set back
        self._pruned_at = LONG_AGO
        self._light = Light()
        self._wal = WalWatch()
        self._webhooks = Sender(commit)

    def run(self, stop: threading.Event) -> None:
        """Tick until stopped; a tick in progress is finished first."""
        logger.info("The worker ticks every %g s", settings.AGENTCOM_WORKER_TICK_S)
        while not stop.is_set():
            began = time.monotonic()
            self.next_tick()
            stop.wait(max(0, settings.AGENTCOM_WORKER_TICK_S - (time.monotonic() - began)))
        self._webhooks.stop()
        self._give_up_lease()
        connection.close()
        logger.info("The worker has finished its last tick and stopped")

    def tick(self, now: datetime | None = None) -> Tick:
        """Raises whatever the database raises; the steps before that stay done."""
        now = now or database.now()
        began = steady()
        if not self._hold_lease(now):
            self._webhooks.stand_by()
            return Tick(acted=False)
        self._webhooks.keep_up(until=began + LEASE_TICKS * settings.AGENTCOM_WORKER_TICK_S)
        self._reset_future_times()
        return Tick(
            acted=True,
            lost=self._mark_offline(now),
            reclaimed=self._reclaim(now),
            expired=self._expire(now),
            sampled=self._sample_queue(now),
            news=self._report(now),
            pruned=self._prune(now),
        )

    def next_tick(self) -> None:
        """One tick of the loop. Takes pauses into account; an error is only logged."""
        try:
            self.tick(self._read_clock())
            self._wal.check()
        except DATABASE_UNAVAILABLE as error:
            self._note_unavailable(error)
        except Exception:
            logger.exception("A tick of the worker failed; the next one runs all the same")
        else:
            self._note_available()

    # --- Pauses, jumps of the clock, and an unavailable database

    def _read_clock(self) -> datetime:
        """Give the time. After a start, any pause or a jump of the clock, the watch begins anew.

        Whatever stopped this worker may also have kept the agents from showing signs of life.
        """
        before = steady()
        reading = ClockReading(database.now(), before, steady())
        if not self._has_read_clock:
            self.watch.begin(reading, *last_times())
            self._has_read_clock = self._may_be_ahead = True
        else:
            tick_s = settings.AGENTCOM_WORKER_TICK_S
            patience_s = max(settings.AGENTCOM_NODE_TIMEOUT_S, LEASE_TICKS * tick_s)
            if self.watch.follow(reading, patience_s, self._was_interrupted):
                self._may_be_ahead = True
        self._was_interrupted = False
        if (jump := self.watch.jump) and jump.at == reading.now:
            logger.warning("The clock jumped by %.0f s", jump.by.total_seconds())
        return reading.now

    def _note_unavailable(self, error: Exception) -> None:
        connection.close()  # a broken connection is not kept
        self._was_interrupted = True
        if not self._is_unavailable:
            logger.warning("The database is unavailable; the worker waits: %s", error)
        self._is_unavailable = True

    def _note_available(self) -> None:
        if self._is_unavailable:
            logger.warning("The database is available again; the worker resumes")
        self._is_unavailable = False

    def _give_up_lease(self) -> None:
        """So that another worker acts at once."""
        if self._is_unavailable or not self._acting:
            return
        try:
            now = database.now()
            self._commit([HoldLease(LEASE, self.id, now, until=now)])
        except DATABASE_UNAVAILABLE as error:
            logger.warning("The worker's lease is left to expire: %s", error)

    # --- The steps of a tick

    def _hold_lease(self, now: datetime) -> bool:
        until = now + _seconds(LEASE_TICKS * settings.AGENTCOM_WORKER_TICK_S)
        [acting] = self._commit([HoldLease(LEASE, self.id, now, until)])
        if acting != self._acting:
            logger.info("This worker acts" if acting else "Another worker acts; this one stands by")
        self._acting = acting
        return bool(acting)

    def _reset_future_times(self) -> None:
        if not self._may_be_ahead:
            return
        [ahead] = self._commit([ResetFutureTimes()])
        if ahead:
            logger.warning("%d rows had times in the future, now set to the present", ahead)
        while self._commit([CatchUp()])[0] == DUE_MAX:
            pass
        self._may_be_ahead = False

    def _mark_offline(self, now: datetime) -> int:
        silent_since = now - _seconds(settings.AGENTCOM_NODE_TIMEOUT_S)
        if self.watch.since > silent_since:
            return 0
        began = time.monotonic()
        found = orphans(silent_since, LOST_AT_ONCE)
        lost = sum(self._commit([MarkOffline(*orphan, silent_since) for orphan in found]))
        self._commit([ForgetNode(node, silent_since) for node in dead_nodes(silent_since)])
        if lost:
            logger.info("Marked %d agents of dead processes offline%s", lost, _cost(began))
        return lost

    def _reclaim(self, now: datetime) -> int:
        began = time.monotonic()
        due = reclaims.due(now, self.watch)
        outcomes = self._commit(due)
        done = [r for r, o in zip(due, outcomes, strict=True) if not isinstance(o, Refused)]
        if done:
            reasons = Counter(reclaim.reason for reclaim in done)
            why = "; ".join(f"{count}: {reason}" for reason, count in reasons.items())
            logger.info("Took %d tasks back%s – %s", len(done), _cost(began), why)
        return len(done)

    def _expire(self, now: datetime) -> int:
        self._commit(holds.ended(now))
        if self.watch.is_steady(now):  # a token that was taken for expired stays revoked
            self._commit([ExpireToken(token) for token in expired_tokens(now, TOKENS_AT_ONCE)])
        expired = reclaims.expired(now, self.watch)
        outcomes = self._commit(expired)
        done = sum(not isinstance(outcome, Refused) for outcome in outcomes)
        if done:
            logger.info("%d tasks became dead letters: their deadlines had passed", done)
        return done

    def _sample_queue(self, now: datetime) -> bool:
        due = sample_is_due(now)
        if due:
            self._commit([TakeSample(now)])
        return due

    def _report(self, now: datetime) -> bool:
        report = self._light.report(newest_report(), now, self.watch)
        [news] = self._commit([FileReport(report, now)])
        if news:
            logger.info(
                "Health is %s: %s", report.status, "; ".join(report.conditions) or "all clear"
            )
        return bool(news)

    def _prune(self, now: datetime) -> int:
        """Once a minute, until nothing old is left; this may take several ticks.

        Never by a clock that has jumped recently or that was not watched for a while.
        """
        is_early = timedelta(0) <= now - self._pruned_at < PRUNE_EVERY
        if is_early or not self.watch.is_steady(now):
            return 0
        began = time.monotonic()
        total = 0
        while True:
            dropped = self._commit(pruning.steps(now))
            total += sum(dropped)
            if not any(dropped):
                self._pruned_at = now
                break
            if time.monotonic() - began > PRUNE_S:
                break
        if total:
            logger.info("Dropped %d old rows%s", total, _cost(began))
        return total


def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def _cost(began: float) -> str:
    return f" in {(time.monotonic() - began) * 1000:.0f} ms"
