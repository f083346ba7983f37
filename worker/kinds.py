"""The kinds of events of the worker."""

from __future__ import annotations

from agentcom.kinds import Kind

KINDS: dict[str, Kind] = {
    "health_changed": Kind(step="Health", keeps=("status", "conditions")),
    # Rows that change without an event of their own. Whoever keeps a copy of them learns it here.
    "tasks_pruned": Kind(step="Old tasks deleted", keeps=("counts",)),
    "completions_pruned": Kind(step="Old completions deleted", keeps=("until",)),
    "times_reset": Kind(step="Times in the future reset", keeps=("rows",)),
}
