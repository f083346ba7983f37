"""What is done to the hub and when. Pure: the same seed and options give the same plan."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SKILLS = ("read", "write", "review")
CLIENTS_GAP_S = 0.35  # between two acts on the clients, on average
PARTS_GAP_S = 4.0  # likewise, on processes, database and Redis
QUIET_S = 3.0  # a part is left alone for that long after what was done to it
BEGIN_S = 3.0  # work first
DEADLINE_S = 4.0


@dataclass(frozen=True)
class Act:
    at_s: float
    kind: str
    subject: str
    lasts_s: float = 0.0

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        return f"{self.at_s:6.1f} s  {self.subject}: {self.kind}{lasts}"


@dataclass(frozen=True)
class Parts:
    """What there is to be hurt."""

    webs: Sequence[str]
    workers: Sequence[str]
    stores: Sequence[str]  # "postgresql" and "redis", or "sqlite"
    agents: Sequence[str]
    viewers: Sequence[str]


# how often, against each other, and how long it lasts (s)
Weighted = dict[str, tuple[float, float, float]]

# frozen up to longer than every limit of the hub under torture
PROCESS: Weighted = {"kill": (3, 0.1, 3), "restart": (3, 0.1, 3), "freeze": (3, 2, 12)}
# Of the host that the processes run on; then it is set right again.
CLOCK = "clock"
JUMPS_S = {"jump forward": 10 * 86_400.0, "jump back": -7_200.0}  # beyond what is kept; and some
JUMPS: Weighted = {"jump forward": (1, 2, 10), "jump back": (1, 2, 10)}
STORES: dict[str, Weighted] = {
    "postgresql": {"cut": (3, 0, 0), "refuse": (2, 1, 6), "stall": (2, 1, 8)},
    "redis": {"cut": (2, 0, 0), "refuse": (1, 1, 8), "stall": (1, 1, 8)},
    "sqlite": {"lock": (4, 1, 8)},
}
ALL_WORKERS = "all workers"
AGENT: Weighted = {
    "cut": (8, 0, 0),
    "stop reading": (3, 1, 9),
    "half a frame, then cut": (3, 0, 0),
    "malformed frames": (4, 0, 0),
    "oversized frame": (1, 0, 0),
    "identify again": (2, 0, 0),
    "identify on a second socket": (4, 0, 0),
    "sign off": (2, 0, 0),
    "complete another's task": (5, 0, 0),
    "complete an old generation": (4, 0, 0),
    "complete again": (4, 0, 0),
}
VIEWER: Weighted = {"cut": (2, 0, 0), "stop reading": (1, 1, 6), "ask in a loop": (2, 0, 0)}
# Several, or each would have to be left alone in between.
OPERATORS = ("operator-0", "operator-1", "operator-2", "operator-3")
OPERATOR: Weighted = {
    "retry dead letters": (2, 0, 0),
    "retry what was cancelled": (1, 0, 0),
    "cancel tasks": (14, 0, 0),
    "change priorities": (3, 0, 0),
    "place a hold": (3, 0, 0),
    "lift a hold": (3, 0, 0),
}


def plan(seed: int, duration_s: float, parts: Parts) -> list[Act]:
    """In order of time; what is done to one part does not overlap."""
    chance = random.Random(f"plan {seed}")
    acts = [
        *_acts(chance, duration_s, CLIENTS_GAP_S, _client_choices(parts)),
        *_acts(chance, duration_s, PARTS_GAP_S, _part_choices(parts)),
    ]
    return sorted(acts, key=lambda act: (act.at_s, act.subject))


Choice = tuple[str, str, tuple[float, float, float]]  # subject, kind, weight and duration


def _client_choices(parts: Parts) -> list[Choice]:
    return [
        *_choices(parts.agents, AGENT, share=10),
        *_choices(parts.viewers, VIEWER, share=1),
        *_choices(OPERATORS, OPERATOR, share=5),
    ]


def _part_choices(parts: Parts) -> list[Choice]:
    choices = [*_choices(parts.webs, PROCESS, share=3), *_choices(parts.workers, PROCESS, share=2)]
    for store in parts.stores:
        choices += _choices([store], STORES[store], share=2)
    choices += _choices([CLOCK], JUMPS, share=1.5)
    if parts.workers:
        choices += _choices([ALL_WORKERS], {"freeze": (1, 5, 9)}, share=1)
    return choices


def _choices(subjects: Sequence[str], kinds: Weighted, share: float) -> list[Choice]:
    whole = sum(weight for weight, _, _ in kinds.values()) * len(subjects)
    return [
        (subject, kind, (share * weight / whole, least, most))
        for subject in subjects
        for kind, (weight, least, most) in kinds.items()
    ]


def _acts(chance: random.Random, until_s: float, gap_s: float, choices: list[Choice]) -> list[Act]:
    weights = [weight for _, _, (weight, _, _) in choices]
    free_at: dict[str, float] = defaultdict(float)
    acts = []
    at_s = BEGIN_S
    while (at_s := at_s + chance.expovariate(1 / gap_s)) < until_s:
        [(subject, kind, (_, least, most))] = chance.choices(choices, weights)
        lasts_s = round(chance.uniform(least, most), 1)
        if free_at[subject] > at_s or at_s + lasts_s > until_s:
            continue
        free_at[subject] = at_s + lasts_s + QUIET_S
        acts.append(Act(round(at_s, 2), kind, subject, lasts_s))
    return acts


# --- The tasks, and what becomes of them

# What the first agent that gets the task does with it; later ones complete it, but for `FOR_EVER`.
FATES = {
    "plain": 30,
    "report progress": 4,
    "complete twice": 6,
    "complete before accepting": 4,
    "accept twice": 4,
    "block and unblock": 4,
    "reject": 5,
    "unwanted": 2,
    "fail": 6,
    "fail for good": 2,
    "fail, and say when again": 3,
    "work long": 8,
    "fail twice with one generation": 3,
    "end other generations": 4,
    "hopeless": 2,
    "never accept, complete late": 3,
    "accept and fall silent": 1,
    "miss the deadline": 1,
    "leave and complete late": 3,
}
FOR_EVER = ("hopeless", "unwanted")


@dataclass(frozen=True)
class Order:
    """One submission, and what a submitter does about it."""

    tasks: list[dict[str, Any]] = field(default_factory=list)
    is_array: bool = False
    hang_up_s: float | None = None  # break the connection that soon after asking
    ask_again: bool = False  # with the same key, though there was an answer


def order(seed: int, key: str) -> Order:
    chance = random.Random(f"{seed} {key}")
    is_array = chance.random() < 0.3
    tasks = [_task(chance, f"{key}/{n}") for n in range(chance.randint(1, 8) if is_array else 1)]
    hang_up_s = chance.uniform(0, 0.1) if chance.random() < 0.15 else None
    return Order(tasks, is_array, hang_up_s, ask_again=chance.random() < 0.15)


def _task(chance: random.Random, name: str) -> dict[str, Any]:
    [fate] = chance.choices(list(FATES), list(FATES.values()))
    task: dict[str, Any] = {
        "description": name,
        "priority": chance.randrange(4),
        "max_retries": chance.randint(2, 4),
        "needed_capabilities": chance.sample(SKILLS, chance.randint(0, 2)),
        "metadata": {"fate": fate, "work_s": round(chance.uniform(0, 0.6), 2)},
    }
    for field_name, (share, values) in LIMITS.items():
        if chance.random() < share:
            task[field_name] = chance.choice(values)
    if fate == "unwanted":
        task["max_rejections"] = 3
    if fate == "miss the deadline":
        task["on_overdue"] = chance.choice(["run", "expire"])
    elif chance.random() < 0.1:
        task["metadata"]["starts_in_s"] = round(chance.uniform(-1, 8), 1)
    if chance.random() < 0.1:
        task["metadata"]["only"] = chance.randrange(1_000)
    return task


# How often a task has them, and which. The timeouts are longer than a prompt agent needs.
LIMITS: dict[str, tuple[float, tuple[float, ...]]] = {
    "max_reclaims": (0.2, (0, 1, 2)),
    "max_rejections": (0.2, (0, 1, 2)),
    "run_timeout_s": (0.15, (4, 5)),
    "idle_timeout_s": (0.15, (3, 4)),
    "retry_backoff_s": (0.3, (0, 0.5, 1)),
}
