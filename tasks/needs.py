"""Which agents may have a task, as one key: all queued tasks with equal keys can go to the same
agents, so a claim decides once for all of them.

The key is a JSON array of the needed capabilities ("" if there are none). If it also depends on who
the agent is, the key is an object ``{"needs", "only", "not"}``: the mark of the one agent that may
have the task, and the marks of those that rejected it a moment ago.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

KNOWN = 50_000  # keys and agents that are remembered


@dataclass(frozen=True, slots=True)
class Needs:
    """A key in parts."""

    capabilities: frozenset[str] = frozenset()
    only: str = ""  # the mark of an agent
    refusers: frozenset[str] = frozenset()  # marks of agents

    @property
    def is_plain(self) -> bool:
        """Whether the capabilities alone decide."""
        return not (self.only or self.refusers)

    def allow(self, agent_id: str, capabilities: frozenset[str]) -> bool:
        """Whether this agent may have the tasks."""
        if not self.capabilities <= capabilities:
            return False
        if self.is_plain:
            return True
        mark = mark_of(agent_id)
        return self.only in ("", mark) and mark not in self.refusers


@lru_cache(KNOWN)
def mark_of(agent_id: str) -> str:
    """Short, so that a key with many agents fits into an index. Two agents may have the same mark:
    `Claim` compares `assign_to` itself."""
    return hashlib.blake2b(agent_id.encode(), digest_size=4).hexdigest()


def needs_key(
    capabilities: Iterable[str], only: str | None = None, refusers: Iterable[str] = ()
) -> str:
    """`only` and `refusers` are ids of agents."""
    wanted = sorted(set(capabilities))
    if only is None and not refusers:
        return orjson.dumps(wanted).decode() if wanted else ""
    key: dict[str, Any] = {"needs": wanted}
    if only is not None:
        key["only"] = mark_of(only)
    if refusers:
        key["not"] = sorted({mark_of(agent_id) for agent_id in refusers})
    return orjson.dumps(key).decode()


@lru_cache(KNOWN)
def needs_of(key: str) -> Needs:
    if not key:
        return Needs()
    parts = orjson.loads(key)
    if isinstance(parts, list):
        return Needs(frozenset(parts))
    return Needs(frozenset(parts["needs"]), parts.get("only", ""), frozenset(parts.get("not", ())))


def filed_under(needs: Needs) -> str:
    """By what waiting needs are found: a needed capability, "" if there are none, or the one agent
    that may have the task."""
    return filed_for(needs.only) if needs.only else rarest(needs.capabilities)


def rarest(capabilities: Iterable[str]) -> str:
    """The longest capability: a name that few tasks share (a customer, a machine, a file) is
    usually longer than one that many share, and claims for agents without it never read these
    needs. "" if there are none."""
    return max(capabilities, key=lambda name: (len(name), name), default="")


def filed_for(mark: str) -> str:
    return f"@{mark}"
