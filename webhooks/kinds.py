"""The journal's kinds about webhooks, and the types of events that webhooks can have."""

from __future__ import annotations

from agentcom.kinds import Kind

KINDS: dict[str, Kind] = {
    "webhook_created": Kind(step="Webhook added", keeps=("webhook",)),
    "webhook_changed": Kind(step="Webhook changed", keeps=("webhook", "changed")),
    "webhook_enabled": Kind(step="Webhook switched on", keeps=("webhook", "missed")),
    "webhook_disabled": Kind(step="Webhook switched off", keeps=("webhook", "reason")),
    "webhook_removed": Kind(step="Webhook removed", keeps=("webhook",)),
}

# What a webhook calls the kinds of entries about tasks. Without those that come many times for one
# attempt (task_progress) and those about the hub's own bookkeeping (task_reoffered, task_late).
TYPES: dict[str, str] = {
    "task_submitted": "task.submitted",
    "task_due": "task.due",
    "task_assigned": "task.assigned",
    "task_accepted": "task.accepted",
    "task_blocked": "task.blocked",
    "task_unblocked": "task.unblocked",
    "task_complete": "task.completed",
    "task_failed": "task.failed",
    "task_retried": "task.retried",
    "task_rejected": "task.rejected",
    "task_reclaimed": "task.reclaimed",
    "task_dead_letter": "task.dead_letter",
    "task_reprioritized": "task.reprioritized",
    "task_cancel_requested": "task.cancel_requested",
    "task_cancelled": "task.cancelled",
}
# the ends of tasks
DEFAULT_TYPES = ("task.completed", "task.dead_letter", "task.cancelled")
TEST = "webhook.test"
