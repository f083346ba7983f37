"""`agentcom worker`: another name for `runworker`."""

from worker.management.commands.runworker import Command

__all__ = ["Command"]
