"""Agents and their tokens."""

from __future__ import annotations

from datetime import datetime

from django.db import models

from agentcom.rights import Grant, TokenKind


class AgentState(models.TextChoices):
    IDLE = "idle"
    ASSIGNED = "assigned"
    WORKING = "working"
    BLOCKED = "blocked"
    # its task was ended without it; it gets no other until it says that it has stopped
    STOPPING = "stopping"
    # it did not accept its last tasks; it gets no other until it says anything
    UNRESPONSIVE = "unresponsive"
    OFFLINE = "offline"


class AgentQuerySet(models.QuerySet["Agent"]):
    def connected(self) -> AgentQuerySet:
        return self.exclude(fsm_state=AgentState.OFFLINE)

    def offline(self) -> AgentQuerySet:
        return self.filter(fsm_state=AgentState.OFFLINE)

    def lost(self) -> AgentQuerySet:
        """Offline without having signed off."""
        return self.offline().filter(signed_off=False)

    def lately_lost(self, since: datetime) -> AgentQuerySet:
        """Those lost earlier count as retired."""
        return self.lost().filter(disconnected_at__gt=since)


class Agent(models.Model):
    agent_id = models.CharField(primary_key=True, max_length=128)
    name = models.CharField(max_length=200, blank=True, default="")
    status = models.CharField(max_length=500, blank=True, default="")
    capabilities = models.JSONField(default=list)
    # what the hub may send it besides tasks: "cancel"
    accepts = models.JSONField(default=list)
    fsm_state = models.CharField(
        max_length=12, choices=AgentState, default=AgentState.OFFLINE, verbose_name="state"
    )
    current_task_id = models.CharField(max_length=32, null=True, blank=True)
    # the socket that speaks for the agent, and the process that holds it; messages from an older
    # socket of the same agent are ignored
    connection = models.CharField(max_length=32, blank=True, default="")
    node = models.CharField(max_length=32, blank=True, default="")
    connected_at = models.DateTimeField(null=True, blank=True)
    disconnected_at = models.DateTimeField(null=True, blank=True)
    signed_off = models.BooleanField(default=False)
    # set while the hub waits for `task_recovering` from an agent that reconnected
    recovering_since = models.DateTimeField(null=True, blank=True)
    # how many tasks in a row it did not accept in time
    unanswered = models.IntegerField(default=0)
    # whether its last connection ended with the hub's process: it is not to blame
    dropped_by_hub = models.BooleanField(default=False)
    last_seen = models.DateTimeField(null=True, blank=True)
    last_state_change = models.DateTimeField(null=True, blank=True)

    key_field = "agent_id"

    objects = AgentQuerySet.as_manager()

    class Meta:
        ordering = ["agent_id"]
        indexes = [
            # used by the snapshot (connected and offline agents) and by the worker
            models.Index(fields=["fsm_state", "disconnected_at"], name="agent_state"),
        ]

    def __str__(self) -> str:
        return self.agent_id

    @property
    def in_use(self) -> bool:
        """Whether its next change will come soon: the Writer keeps it in memory."""
        return self.fsm_state != AgentState.OFFLINE

    @property
    def flags(self) -> list[str]:
        return ["awaiting_recovery"] if self.recovering_since else []


class Scope(models.TextChoices):
    """What a hold is on."""

    HUB = "hub", "The hub"
    LANE = "lane"
    CAPABILITY = "capability"
    AGENT = "agent"


class Hold(models.Model):
    """While it exists, nothing is handed out that it is on, see `fleet.holds`."""

    hold_id = models.CharField(primary_key=True, max_length=32)
    scope = models.CharField(max_length=12, choices=Scope)
    # a lane's name, a capability, an agent's id; empty for the hub
    subject = models.CharField(max_length=128, blank=True, default="")
    reason = models.CharField(max_length=500)
    placed_by = models.CharField(max_length=160)  # an actor, see `agentcom.actors`
    placed_at = models.DateTimeField()
    until = models.DateTimeField(null=True, blank=True)

    key_field = "hold_id"

    class Meta:
        ordering = ["-placed_at"]

    def __str__(self) -> str:
        return self.in_words()

    def in_words(self) -> str:
        """What it is on."""
        return "the hub" if self.scope == Scope.HUB else f"{self.scope} {self.subject}"


class Granted(models.Model):
    """What is for a name, and for what; see `agentcom.rights`."""

    # of the agent, or of the program; tokens of the same name own the same tasks
    name = models.CharField(max_length=128, db_index=True)  # read by `token list`
    kind = models.CharField(max_length=12, choices=TokenKind, default=TokenKind.AGENT)
    capabilities = models.JSONField(default=list, blank=True)
    lanes = models.JSONField(default=list, blank=True)
    all_tasks = models.BooleanField(default=False)

    class Meta:
        abstract = True

    @property
    def grant(self) -> Grant:
        kind, capabilities = TokenKind(self.kind), tuple(self.capabilities)
        return Grant(kind, capabilities, tuple(self.lanes), self.all_tasks)

    def set_grant(self, grant: Grant) -> None:
        self.kind, self.all_tasks = grant.kind, grant.all_tasks
        self.capabilities, self.lanes = list(grant.capabilities), list(grant.lanes)


class AgentToken(Granted):
    """Lets its bearer act as one agent or program. Only the SHA-256 of the token is stored."""

    token_hash = models.CharField(primary_key=True, max_length=64)
    # of a token that replaced another: the hash of the first one of them
    origin = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    # to the minute, see `fleet.token_uses`
    last_used_at = models.DateTimeField(null=True, blank=True)
    last_used_from = models.CharField(max_length=64, blank=True, default="")

    key_field = "token_hash"

    class Meta:
        ordering = ["name", "created_at"]
        verbose_name = "token"
        indexes = [
            # read by the worker: which have expired and are not revoked yet
            models.Index(
                fields=["expires_at"],
                name="token_expires",
                condition=models.Q(expires_at__isnull=False, revoked_at=None),
            ),
        ]

    def __str__(self) -> str:
        return f"token of {self.name}"

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Enrolment(Granted):
    """A code that is worth one token. Only the SHA-256 of the code is stored."""

    code_hash = models.CharField(primary_key=True, max_length=64)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    token_expires_at = models.DateTimeField(null=True, blank=True)
    # of the token that was made of it; empty while it is unused
    token_hash = models.CharField(max_length=64, blank=True, default="")
    used_at = models.DateTimeField(null=True, blank=True)
    used_from = models.CharField(max_length=64, blank=True, default="")

    key_field = "code_hash"

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["expires_at"], name="enrolment_expires")]

    def __str__(self) -> str:
        return f"enrolment of {self.name}"
