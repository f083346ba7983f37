"""What this process counts as it happens, from its start on.

Entries are counted as the journal delivers them, so every web process counts those of the whole
fleet. Groups of commands are those of this process's own Writer.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from agentcom.clock import clock, steady
from agentcom.journal import journal
from agentcom.kinds import kinds
from agentcom.models import Event
from agentcom.writer import GroupEnd
from tasks.queue import Why

# The time at which each series began would be a series more; its process has begun then.
disable_created_metrics()

counted = CollectorRegistry()

OTHER = "other"  # what this version does not know: the number of labels is fixed
EXPIRED, FAILED, REJECTED = "expired", "failed", "rejected"
CAUSES = (FAILED, REJECTED, EXPIRED, *(why.value for why in Why if why != Why.OVERDUE), OTHER)

DURATIONS_S = (
    *(0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600, 1_200),
    *(1_800, 3_600, 7_200, 14_400),
)
COMMITS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
COMMANDS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)  # in a group; see `writer.GROUP_MAX`

EVENTS = Counter(
    "agentcom_events",
    "Entries of the journal, of the whole fleet, by kind.",
    ["kind"],
    registry=counted,
)
DEAD_LETTERS = Counter(
    "agentcom_dead_letters",
    "Tasks that became dead letters, of the whole fleet, by cause.",
    ["cause"],
    registry=counted,
)
RECLAIMS = Counter(
    "agentcom_reclaims",
    "Tasks taken back from their agents, of the whole fleet, by reason.",
    ["why"],
    registry=counted,
)
TASK_DURATION = Histogram(
    "agentcom_task_duration_seconds",
    "From assignment to completion, of the whole fleet.",
    buckets=DURATIONS_S,
    registry=counted,
)
COMMIT = Histogram(
    "agentcom_commit_seconds",
    "From a group's turn to its commit, waiting for the lock and repeated attempts included.",
    buckets=COMMITS_S,
    registry=counted,
)
GROUP = Histogram(
    "agentcom_commit_commands",
    "Commands that were committed together.",
    buckets=COMMANDS,
    registry=counted,
)
OUTCOMES = Counter(
    "agentcom_commands",
    "Commands of this process that were committed, refused, or failed because of a bug.",
    ["outcome"],
    registry=counted,
)


class Followed:
    """Follows the journal, on the event loop."""

    def __init__(self) -> None:
        self._delivered_at = steady()  # or since when this process waits for the first entry
        self._before: Event | None = None
        # made now, so that a series begins with 0 and not with its first entry
        self._kinds = {kind: EVENTS.labels(kind) for kind in (*kinds(), OTHER)}
        self._causes = {cause: DEAD_LETTERS.labels(cause) for cause in CAUSES}
        self._reclaims = {why: RECLAIMS.labels(why) for why in (*map(str, Why), OTHER)}

    @property
    def silence_s(self) -> float:
        """Since the last entry was delivered."""
        return steady() - self._delivered_at

    @property
    def lag_s(self) -> float:
        """How old the last delivered entry is, while there are later ones; else 0."""
        if journal.newest <= journal.seq:
            return 0.0
        if self._before is None:  # none since this process began
            return self.silence_s
        return max(0.0, (clock.now() - self._before.at).total_seconds())

    def on_events(self, events: list[Event]) -> None:
        self._delivered_at = steady()
        for event in events:
            self._kinds.get(event.kind, self._kinds[OTHER]).inc()
            if event.kind == "task_complete":
                TASK_DURATION.observe(event.data["duration_ms"] / 1000)
            elif event.kind == "task_reclaimed":
                self._reclaims.get(event.data["why"], self._reclaims[OTHER]).inc()
            elif event.kind == "task_dead_letter":
                self._causes.get(self._cause(event), self._causes[OTHER]).inc()
            self._before = event

    def _cause(self, letter: Event) -> str:
        """What ended the last attempt is the entry before, which the same command has written;
        a task that expires while it waits has none."""
        before = self._before
        if before is None or before.seq != letter.seq - 1:
            return OTHER
        if (before.task_id, before.at) != (letter.task_id, letter.at):
            return EXPIRED
        match before.kind:
            case "task_failed":
                return FAILED
            case "task_rejected":
                return REJECTED
            case "task_reclaimed":
                why = str(before.data["why"])
                return EXPIRED if why == Why.OVERDUE else why
        return EXPIRED


class Groups:
    """What became of the Writer's groups, on its thread."""

    def __init__(self) -> None:
        self._committed, self._refused, self._failed = (
            OUTCOMES.labels(outcome) for outcome in ("committed", "refused", "failed")
        )

    def on_group(self, group: GroupEnd) -> None:
        COMMIT.observe(group.seconds)
        GROUP.observe(group.commands)
        self._committed.inc(group.commands - group.refused - group.failed)
        self._refused.inc(group.refused)
        self._failed.inc(group.failed)


followed = Followed()
groups = Groups()
