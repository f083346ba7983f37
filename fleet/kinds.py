"""The kinds of events of agents and their tokens."""

from __future__ import annotations

from agentcom.kinds import Kind

KINDS: dict[str, Kind] = {
    "agent_joined": Kind(
        step="Agent connected",
        did="connected",
        keeps=("agent", "connection", "accepts", "held"),
    ),
    "agent_left": Kind(step="Agent gone", did="is gone", keeps=("signed_off", "connection")),
    "agent_forgotten": Kind(step="Agent forgotten", did="was forgotten"),
    "agent_responded": Kind(step="Agent answers again", did="answers again"),
    "hold_placed": Kind(
        step="Hold placed", did="was put on hold", was="was put on hold", keeps=("hold",)
    ),
    "hold_lifted": Kind(
        step="Hold lifted", did="is no longer held", was="is no longer held", keeps=("hold",)
    ),
    "status_changed": Kind(step="Status", did="says", keeps=("agent",)),
    "enrolment_created": Kind(step="Enrolment code created"),
    "token_created": Kind(step="Token created"),
    "token_revoked": Kind(step="Token revoked", keeps=("token_hash",)),
}
