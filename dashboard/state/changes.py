"""Which agents have changed since viewers were last told, and how they are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from orjson import Fragment

# More than these are not sent to who has not asked for a window of them.
AGENTS_MAX = 5_000

Changes = dict[str, dict[str, list[Any]]]
Before = tuple[str | None, bytes | None]  # the list that an agent was in, and its row there


class Listed(Protocol):
    """An agent in one of the lists."""

    encoded: bytes | None

    @property
    def list_name(self) -> str: ...

    def row(self) -> bytes: ...


class AgentChanges:
    """Costs what has changed, as long as all agents fit into their lists."""

    def __init__(self) -> None:
        self._before: dict[str, Before] = {}
        # the ids in each list as last told, if they were not all there are
        self._told: dict[str, set[str]] | None = None

    def note(self, agent_id: str, agent: Listed | None) -> None:
        """To be called before an agent changes; None: there is none yet."""
        if agent_id not in self._before:
            self._before[agent_id] = _place_of(agent)

    def note_all(self, older: AgentChanges, old: Mapping[str, Listed], new: Iterable[str]) -> None:
        """The agents were read again: whatever differs from the `old` ones has changed."""
        self._told, self._before = older._told, dict(older._before)
        for agent_id, agent in old.items():
            self._before.setdefault(agent_id, _place_of(agent))
        for agent_id in new:
            self._before.setdefault(agent_id, (None, None))

    def take(self, agents: Mapping[str, Listed], lists: Mapping[str, list[str]] | None) -> Changes:
        """For each list ``{"upsert": [rows], "remove": [ids]}`` since the last call.

        `lists` has the ids that are in each list, if these are not all there are.
        """
        now = None if lists is None else {name: set(ids) for name, ids in lists.items()}
        if now is None and self._told is None:
            changes = self._of_all(agents)
        else:
            changes = self._of_some(
                agents, self._told or self._all_told(agents), now or _all(agents)
            )
        self._told = now
        self._before.clear()
        return changes

    def _of_all(self, agents: Mapping[str, Listed]) -> Changes:
        changes: Changes = {}
        for agent_id, (old_list, old_row) in sorted(self._before.items()):
            agent = agents.get(agent_id)
            new_list = agent.list_name if agent else None
            if old_list not in (None, new_list):
                _in(changes, old_list)["remove"].append(agent_id)
            if agent and (new_list != old_list or agent.row() != old_row):
                _in(changes, new_list)["upsert"].append(Fragment(agent.row()))
        return changes

    def _of_some(
        self,
        agents: Mapping[str, Listed],
        old: Mapping[str, set[str]],
        new: Mapping[str, set[str]],
    ) -> Changes:
        """An agent that joins may push another one out of its list."""
        changes: Changes = {}
        for name in old.keys() | new.keys():
            before, after = old.get(name, set()), new.get(name, set())
            changed = {id for id in self._before.keys() & after if self._differs(id, agents[id])}
            upsert, remove = sorted((after - before) | changed), sorted(before - after)
            if upsert or remove:
                rows = [Fragment(agents[agent_id].row()) for agent_id in upsert]
                changes[name] = {"upsert": rows, "remove": remove}
        return changes

    def _differs(self, agent_id: str, agent: Listed) -> bool:
        return agent.row() != self._before[agent_id][1]

    def _all_told(self, agents: Mapping[str, Listed]) -> dict[str, set[str]]:
        """All that were there at the last call."""
        told = _all({id: agent for id, agent in agents.items() if id not in self._before})
        for agent_id, (name, _) in self._before.items():
            if name is not None:
                told.setdefault(name, set()).add(agent_id)
        return told


def _place_of(agent: Listed | None) -> Before:
    return (agent.list_name, agent.encoded) if agent else (None, None)


def _all(agents: Mapping[str, Listed]) -> dict[str, set[str]]:
    ids: dict[str, set[str]] = {}
    for agent_id, agent in agents.items():
        ids.setdefault(agent.list_name, set()).add(agent_id)
    return ids


def _in(changes: Changes, name: str | None) -> dict[str, list[Any]]:
    return changes.setdefault(name or "", {"upsert": [], "remove": []})
