"""The health light: a pure function from facts to a report, without database access.

A message contains no age and no running counter: each new message is a new report, and so an event
for every dashboard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from django.conf import settings
from django.utils import timezone

from agentcom import layout
from agentcom.database import millis
from agentcom.texts import listed
from tasks.models import Priority
from worker.watch import Jump

STARTED = timezone.now()

MANY = 1000  # at most so many faults of a kind are read; more are "over 1,000"
SUBJECTS = 50  # at most in a condition's list
NAMED = 5  # at most in its sentence
LACKS, LACK_LENGTH = 3, 80  # unmet needs in a sentence, and characters of each
SAMPLES = 3  # consecutive queue depths that must rise
FEW = 20  # below so many attempts, figures are given; else a share in steps of ten per cent
SILENT_TICKS = 3


@dataclass(frozen=True, slots=True)
class Facts:
    """What the worker found out."""

    offline_agents: Sequence[str] = ()
    queue_depths: Sequence[int] = ()  # one per sample, oldest first
    completed: int = 0  # attempts in the last hour
    failed: int = 0  # attempts in the last hour
    stuck_tasks: Mapping[str, str] = field(default_factory=dict)  # agent id by task id
    flapping_agents: Sequence[str] = ()
    contested_agents: Sequence[str] = ()
    late_lanes: Mapping[int, str] = field(default_factory=dict)  # why each lane's oldest task waits
    nobody_connected: bool = False  # while tasks wait
    # by task id: the needs that no connected agent meets
    unmet: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unresponsive_agents: Sequence[str] = ()
    old_holds: Mapping[str, str] = field(default_factory=dict)  # what each is on, by its id
    clock_jump: Jump | None = None  # None once the clock has been steady for a while
    scarce_files: Mapping[str, int] = field(default_factory=dict)  # limit of open files by process
    # each in words, by its id: those that the hub has switched off, and those that are behind
    failed_webhooks: Mapping[str, str] = field(default_factory=dict)
    late_webhooks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Condition:
    code: str
    severity: str
    message: str
    since: int  # ms
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    details: tuple[Condition, ...] = ()

    @property
    def status(self) -> str:
        severities = {condition.severity for condition in self.details}
        return next((s for s in ("critical", "warning") if s in severities), "ok")

    @property
    def conditions(self) -> list[str]:
        return [condition.message for condition in self.details]


Finding = tuple[str, Sequence[str]]  # sentence and subjects


def judge(facts: Facts, previous: Report | None, now: datetime) -> Report:
    """The report on these facts; a condition that persists keeps its `since`."""
    began = {condition.code: condition.since for condition in previous.details} if previous else {}
    found = [(code, severity, check(facts)) for code, severity, check in CHECKS]
    return Report(
        tuple(
            Condition(
                code=code,
                severity=severity,
                message=finding[0],
                since=min(began.get(code, millis(now)), millis(now)),  # the clock may go back
                subjects=tuple(finding[1][:SUBJECTS]),
            )
            for code, severity, finding in found
            if finding is not None
        )
    )


def agent_offline(facts: Facts) -> Finding | None:
    agents = sorted(facts.offline_agents)
    if not agents:
        return None
    count = _count(len(agents), "agent is", "agents are")
    return f"{count} offline: {_names(agents)}", agents


def queue_growing(facts: Facts) -> Finding | None:
    depths = facts.queue_depths[-SAMPLES:]
    if len(depths) < SAMPLES or not all(a < b for a, b in pairwise(depths)):
        return None
    course = ", then ".join(f"{depth:,}" for depth in depths)
    return f"The queue is growing: {course} tasks", ()


def high_failure_rate(facts: Facts) -> Finding | None:
    attempts = facts.completed + facts.failed
    if attempts < max(1, settings.AGENTCOM_FAILURE_MIN_TOTAL):
        return None
    if facts.failed / attempts <= settings.AGENTCOM_FAILURE_RATE:
        return None
    if attempts < FEW:
        number = _count(attempts, "attempt", "attempts")
        return f"{facts.failed} of {number} of the last hour failed", ()
    tenths = facts.failed * 10 // attempts
    share = "Every attempt" if tenths == 10 else f"At least {tenths * 10} % of the attempts"
    return f"{share} of the last hour failed", ()


def stuck_tasks(facts: Facts) -> Finding | None:
    tasks = sorted(facts.stuck_tasks)
    if not tasks:
        return None
    count = _count(len(tasks), "task is", "tasks are")
    silence = _span(settings.AGENTCOM_STUCK_AFTER_S)
    named = _names([f"{task} ({facts.stuck_tasks[task]})" for task in tasks])
    return f"{count} stuck, without a sign of life or progress for over {silence}: {named}", tasks


def agent_contested(facts: Facts) -> Finding | None:
    agents = sorted(facts.contested_agents)
    if not agents:
        return None
    count = _count(len(agents), "agent name is", "agent names are")
    return f"{count} used by several processes, which cut each other off: {_names(agents)}", agents


def agent_flapping(facts: Facts) -> Finding | None:
    agents = sorted(facts.flapping_agents)
    if not agents:
        return None
    count = _count(len(agents), "agent keeps losing its", "agents keep losing their")
    return f"{count} connection: {_names(agents)}", agents


def tasks_waiting(facts: Facts) -> Finding | None:
    """Names no task: in a lane that moves, it would be a different one at each tick."""
    if not facts.late_lanes:
        return None
    late = [
        f"{Priority(lane).label.lower()} tasks wait for over {_span(limit_of(lane))} ({reason})"
        for lane, reason in sorted(facts.late_lanes.items())
    ]
    sentence = "; ".join(late)
    return sentence[0].upper() + sentence[1:], ()


def limit_of(lane: int) -> float:
    """How long a task of the lane may wait, in s."""
    limits: dict[int, float] = {
        Priority.URGENT: settings.AGENTCOM_WAIT_URGENT_S,
        Priority.HIGH: settings.AGENTCOM_WAIT_HIGH_S,
        Priority.NORMAL: settings.AGENTCOM_WAIT_NORMAL_S,
        Priority.LOW: settings.AGENTCOM_WAIT_LOW_S,
    }
    return limits[lane]


def nobody_connected(facts: Facts) -> Finding | None:
    return ("Tasks wait, and no agent is connected", ()) if facts.nobody_connected else None


def nobody_capable(facts: Facts) -> Finding | None:
    if not facts.unmet:
        return None
    lacks = sorted({_cut(lack) for lacking in facts.unmet.values() for lack in lacking})
    named = [*lacks[:LACKS], "more"] if len(lacks) > LACKS else lacks
    what = listed(named, "or")
    return f"Tasks wait that no connected agent can do: nobody has {what}", sorted(facts.unmet)


def agent_unresponsive(facts: Facts) -> Finding | None:
    """They are connected, but get no task: they did not accept the last ones, or did not stop."""
    agents = sorted(facts.unresponsive_agents)
    if not agents:
        return None
    count = _count(len(agents), "agent does not respond and gets", "agents do not respond and get")
    return f"{count} no tasks: {_names(agents)}", agents


def hold_old(facts: Facts) -> Finding | None:
    holds = sorted(facts.old_holds)
    if not holds:
        return None
    count = _count(len(holds), "hold is", "holds are")
    named = _names([facts.old_holds[hold_id] for hold_id in holds])
    return f"{count} in force for over {_span(settings.AGENTCOM_HOLD_WARN_S)}: {named}", holds


def clock_jumped(facts: Facts) -> Finding | None:
    jump = facts.clock_jump
    if jump is None:
        return None
    way = "back" if jump.by < timedelta(0) else "forward"
    return f"The clock jumped {way} by {_length(abs(jump.by))} at {moment(jump.at)}", ()


def files_scarce(facts: Facts) -> Finding | None:
    processes = sorted(facts.scarce_files)
    if not processes:
        return None
    count = _count(len(processes), "process is", "processes are")
    named = _names([f"{name} (limit {facts.scarce_files[name]:,})" for name in processes])
    return f"{count} nearly out of files to open, a socket each: {named}", processes


def webhook_failing(facts: Facts) -> Finding | None:
    off, late = facts.failed_webhooks, facts.late_webhooks
    parts = []
    if off:
        count = _count(len(off), "webhook was", "webhooks were")
        parts.append(f"{count} switched off because of failures: {_names([*off.values()])}")
    if late:
        count = _count(len(late), "webhook has", "webhooks have")
        limit = _span(settings.AGENTCOM_WEBHOOK_LATE_S)
        parts.append(f"{count} events undelivered for over {limit}: {_names([*late.values()])}")
    return ("; ".join(parts), [*off, *late]) if parts else None


CHECKS: tuple[tuple[str, str, Callable[[Facts], Finding | None]], ...] = (
    ("high_failure_rate", "critical", high_failure_rate),
    ("agent_offline", "warning", agent_offline),
    ("queue_growing", "warning", queue_growing),
    ("stuck_tasks", "warning", stuck_tasks),
    ("agent_contested", "warning", agent_contested),
    ("agent_flapping", "warning", agent_flapping),
    ("nobody_connected", "warning", nobody_connected),
    ("nobody_capable", "warning", nobody_capable),
    ("tasks_waiting", "warning", tasks_waiting),
    ("agent_unresponsive", "warning", agent_unresponsive),
    ("hold_old", "warning", hold_old),
    ("clock_jumped", "warning", clock_jumped),
    ("files_scarce", "warning", files_scarce),
    ("webhook_failing", "warning", webhook_failing),
)


def with_worker_silence(report: Report, reported_at: datetime | None, now: datetime) -> Report:
    """The report, with a warning if it is old: an old report must never look like a green one."""
    if reported_at is None:
        message = f"No worker has reported yet: `{layout.COMMAND} runworker` starts one"
        silent_since = STARTED
    elif abs(now - reported_at) <= timedelta(
        seconds=SILENT_TICKS * settings.AGENTCOM_WORKER_TICK_S
    ):
        return report
    elif reported_at > now:
        message = "The worker has not reported since the clock was set back: the rest may be old"
        silent_since = min(STARTED, now)
    else:
        silent_since = reported_at
        since = moment(reported_at)
        message = f"The worker has not reported since {since}: the rest may be out of date"
    silence = Condition("worker_silent", "warning", message, since=millis(silent_since))
    return replace(report, details=(*report.details, silence))


# --- Sentences


def _count(number: int, one: str, more: str) -> str:
    if number == 1:
        return f"1 {one}"
    return f"Over {MANY:,} {more}" if number > MANY else f"{number:,} {more}"


def _names(names: Sequence[str]) -> str:
    """All names, or the first ones and the number of others."""
    named = [*names]
    if len(names) > NAMED:
        others = len(names) - NAMED + 1
        named[NAMED - 1 :] = ["many others" if len(names) > MANY else f"{others} others"]
    return listed(named)


def _cut(text: str) -> str:
    return text if len(text) <= LACK_LENGTH else f"{text[: LACK_LENGTH - 1]}…"


def moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _length(time: timedelta) -> str:
    """In its two largest units, at most days: "1 d 2 h", "3 min 5 s"."""
    seconds = round(time.total_seconds())
    units = [("d", seconds // 86_400), ("h", seconds // 3600 % 24)]
    units += [("min", seconds // 60 % 60), ("s", seconds % 60)]
    first = next((n for n, (_, count) in enumerate(units) if count), len(units) - 1)
    return " ".join(f"{count} {unit}" for unit, count in units[first : first + 2] if count)


def _span(seconds: float) -> str:
    if seconds >= 7200 and seconds % 3600 == 0:
        return f"{seconds / 3600:g} hours"
    if seconds >= 120 and seconds % 60 == 0:
        return f"{seconds / 60:g} minutes"
    return f"{seconds:g} s"
