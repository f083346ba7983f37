from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html_join

from agentcom.admin.lists import starts_with
from agentcom.admin.read_only import ReadOnlyAdmin
from agentcom.admin.shows import (
    NOTHING,
    agent_link,
    as_list,
    badge,
    by,
    list_link,
    moment,
    short,
    task_link,
    timeline,
)
from agentcom.models import Event
from agentcom.rights import RIGHTS, Right
from fleet.holds import LiftHold
from fleet.models import Agent, AgentState, AgentToken, Enrolment, Hold
from fleet.presence import Forget
from fleet.tokens import RevokeToken, in_words

TIMELINE = 100  # entries
HASH = 12  # characters of a hash that tell tokens apart


@admin.register(Agent)
class AgentAdmin(ReadOnlyAdmin):
    list_display = [
        "agent_id",
        "called",
        "state",
        "task",
        "capability_list",
        "says",
        moment("connected_at", "connected"),
        moment("last_seen"),
    ]
    list_filter = ["fsm_state"]
    search_fields = ["agent_id", "name"]
    search_help_text = "A part of an agent's id or name"
    actions = ["forget"]
    irreversible = ("forget",)
    fieldsets = [
        (
            None,
            {"fields": ["agent_id", "called", "state", "says", "task", "capability_list", "more"]},
        ),
        (
            "Connection",
            {
                "fields": [
                    (moment("connected_at"), moment("disconnected_at"), "left"),
                    (moment("last_seen"), moment("last_state_change"), moment("recovering_since")),
                    ("node", "connection"),
                    "tokens",
                ]
            },
        ),
        ("What happened lately", {"fields": ["events"]}),
    ]

    def get_sortable_by(self, request: HttpRequest) -> Any:
        return self.get_list_display(request)  # there are not that many

    def operations_on(self, row: Agent) -> list[str]:
        gone = row.fsm_state == AgentState.OFFLINE and row.current_task_id is None
        return ["forget"] if gone else []

    @admin.action(permissions=["operate"], description="Forget")
    def forget(self, request: HttpRequest, agents: QuerySet[Agent]) -> HttpResponse | None:
        return self.operate(
            request,
            agents,
            lambda agent, actor: Forget(agent.agent_id, actor),
            "forgotten; their tokens stay valid until they are revoked",
            {
                "agent_not_found": "gone already",
                "agent_connected": "not forgotten, because connected",
                "agent_holds_task": "not forgotten, because a task is still to be taken back",
            },
        )

    @admin.display(description="name", ordering="name")
    def called(self, agent: Agent) -> str:
        return short(agent.name, 200)

    @admin.display(description="state", ordering="fsm_state")
    def state(self, agent: Agent) -> str:
        return badge(agent.fsm_state)

    @admin.display(description="task")
    def task(self, agent: Agent) -> str:
        return task_link(agent.current_task_id)

    @admin.display(description="capabilities")
    def capability_list(self, agent: Agent) -> str:
        return short(as_list(agent.capabilities))

    @admin.display(description="says")
    def says(self, agent: Agent) -> str:
        return short(agent.status)

    @admin.display(description="signed off")
    def left(self, agent: Agent) -> str:
        return "yes" if agent.signed_off else "no"

    @admin.display(description="see also")
    def more(self, agent: Agent) -> str:
        lists = {
            "tasks_task": "its tasks",
            "tasks_completion": "its completions",
            "agentcom_event": "its events",
            "agents_agenttoken": "its tokens",
        }
        links = ((list_link(to, agent.agent_id, text),) for to, text in lists.items())
        return format_html_join(" · ", "{}", links)

    @admin.display(description="valid tokens")
    def tokens(self, agent: Agent) -> str:
        valid = AgentToken.objects.filter(name=agent.agent_id, revoked_at=None)
        hashes = valid.values_list("token_hash", flat=True)[:TIMELINE]
        return ", ".join(token_hash[:HASH] for token_hash in hashes) or NOTHING

    @admin.display(description="journal")
    def events(self, agent: Agent) -> str:
        newest = Event.objects.filter(agent_id=agent.agent_id).order_by("-seq")[:TIMELINE]
        return timeline(reversed(list(newest)), about_agent=True)


@admin.register(Hold)
class HoldAdmin(ReadOnlyAdmin):
    list_display = ["what", "why", "by", moment("placed_at"), moment("until")]
    list_filter = ["scope"]
    search_fields = ["subject", "reason"]
    search_help_text = "A part of what is held, or of the reason"
    actions = ["lift"]
    fieldsets = [
        (
            None,
            {"fields": ["hold_id", "what", "why", "by", moment("placed_at"), moment("until")]},
        )
    ]

    def operations_on(self, row: Hold) -> list[str]:
        return ["lift"]

    @admin.action(permissions=["operate"], description="Lift")
    def lift(self, request: HttpRequest, holds: QuerySet[Hold]) -> HttpResponse | None:
        return self.operate(
            request,
            holds,
            lambda hold, actor: LiftHold(hold.hold_id, actor),
            "lifted",
            {"hold_not_found": "gone already"},
        )

    @admin.display(description="on hold", ordering="scope")
    def what(self, hold: Hold) -> str:
        return short(hold.in_words(), 200)

    @admin.display(description="reason")
    def why(self, hold: Hold) -> str:
        return short(hold.reason, 200)

    @admin.display(description="by")
    def by(self, hold: Hold) -> str:
        return by(hold.placed_by)


class ValidityFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("valid", "Valid"), ("expired", "Expired"), ("revoked", "Revoked")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[AgentToken]
    ) -> QuerySet[AgentToken]:
        is_over = Q(expires_at__lte=timezone.now())
        match self.value():
            case "valid":
                return queryset.filter(revoked_at=None).exclude(is_over)
            case "expired":
                return queryset.filter(is_over)
            case "revoked":
                return queryset.exclude(revoked_at=None)
        return queryset


class GrantedAdmin(ReadOnlyAdmin):
    """What tokens and enrolment codes have in common."""

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if term := search_term.strip():
            queryset = queryset.filter(Q(name=term) | starts_with(self.opts.pk.name, term))
        return queryset, False

    @admin.display(description="hash")
    def begins(self, row: Any) -> str:
        return f"{row.pk[:HASH]}…"

    @admin.display(description="of")
    def owner(self, row: Any) -> str:
        is_agent = Right.WORK in RIGHTS[row.grant.kind]
        return agent_link(row.name) if is_agent else short(row.name, 200)

    @admin.display(description="allows")
    def allows(self, row: Any) -> str:
        return short(in_words(row.grant), 200)


@admin.register(AgentToken)
class AgentTokenAdmin(GrantedAdmin):
    list_display = [
        "begins",
        "owner",
        "allows",
        "state",
        moment("expires_at"),
        moment("last_used_at", "last used"),
        "used_from",
    ]
    list_filter = ["kind", ValidityFilter]
    search_fields = ["name"]
    search_help_text = "The whole name of an agent or program, or the beginning of a token's hash"
    actions = ["revoke"]
    irreversible = ("revoke",)
    fieldsets = [
        (
            None,
            {
                "fields": [
                    "token_hash",
                    "owner",
                    "allows",
                    "state",
                    (moment("created_at"), moment("expires_at"), moment("revoked_at")),
                    (moment("last_used_at", "last used"), "used_from"),
                ]
            },
        )
    ]

    def operations_on(self, row: AgentToken) -> list[str]:
        return ["revoke"] if row.revoked_at is None else []

    @admin.action(permissions=["operate"], description="Revoke")
    def revoke(self, request: HttpRequest, tokens: QuerySet[AgentToken]) -> HttpResponse | None:
        return self.operate(
            request,
            tokens,
            lambda token, actor: RevokeToken(token.token_hash, actor, token.name),
            "revoked",
            {"unchanged": "revoked before", "token_not_found": "gone already"},
        )

    @admin.display(description="state")
    def state(self, token: AgentToken) -> str:
        if token.revoked_at is not None:
            return badge("revoked")
        return badge("valid" if token.is_valid(timezone.now()) else "expired")

    @admin.display(description="from")
    def used_from(self, token: AgentToken) -> str:
        return token.last_used_from or NOTHING


@admin.register(Enrolment)
class EnrolmentAdmin(GrantedAdmin):
    list_display = [
        "begins",
        "owner",
        "allows",
        "state",
        moment("created_at"),
        moment("expires_at"),
        moment("used_at", "used"),
        "by_address",
    ]
    list_filter = ["kind"]
    search_fields = ["name"]
    search_help_text = "The whole name of an agent or program, or the beginning of a code's hash"
    fieldsets = [
        (
            None,
            {
                "fields": [
                    "code_hash",
                    "owner",
                    "allows",
                    "state",
                    (moment("created_at"), moment("expires_at")),
                    (moment("used_at", "used"), "by_address"),
                    "token",
                ]
            },
        )
    ]

    @admin.display(description="state")
    def state(self, code: Enrolment) -> str:
        if code.used_at is not None:
            return badge("used")
        return badge("valid" if timezone.now() < code.expires_at else "expired")

    @admin.display(description="from")
    def by_address(self, code: Enrolment) -> str:
        return code.used_from or NOTHING

    @admin.display(description="token")
    def token(self, code: Enrolment) -> str:
        return f"{code.token_hash[:HASH]}…" if code.token_hash else NOTHING
