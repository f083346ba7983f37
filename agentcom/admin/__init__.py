"""The admin: a read-only view of all rows, and the actions of operators.

`read_only.py` is the base of each room's `admin.py`, `lists.py` bounds the cost of a list, and
`shows.py` formats values, `people.py` has users and groups. This file has the site's titles, and
the admins of the spine's rows.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from agentcom.admin.lists import WINDOW
from agentcom.admin.people import Groups, Users
from agentcom.admin.read_only import ReadOnlyAdmin
from agentcom.admin.shows import (
    NOTHING,
    agent_link,
    as_json,
    as_text,
    badge,
    by,
    kind_word,
    moment,
    sentence,
    short,
    task_link,
)
from agentcom.audit.entries import What
from agentcom.kinds import kinds
from agentcom.logins import LoginForm
from agentcom.models import AuditEntry, Event, Node, Outcome

__all__ = ["Groups", "Users"]

admin.site.site_header = "AgentCom"
admin.site.site_title = "AgentCom"
admin.site.index_title = "Everything the hub knows"
admin.site.site_url = f"{settings.AGENTCOM_PATH_PREFIX}/dashboard"
admin.site.empty_value_display = "–"
admin.site.login_form = LoginForm


class KindFilter(admin.SimpleListFilter):
    title = f"kind, among the newest {WINDOW:,}"
    parameter_name = "kind"
    unindexed = True

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind, kind_word(kind)) for kind in kinds()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


WHEN = moment("at", "when")


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ["seq", WHEN, "what", "task", "agent", "by", "details"]
    list_filter = [KindFilter]
    date_hierarchy = "at"
    search_fields = ["task_id"]
    search_help_text = "The whole id of a task or of an agent"
    fieldsets = [(None, {"fields": ["seq", WHEN, "what", "task", "agent", "by", "details", "raw"]})]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if term := search_term.strip():
            column = "task_id" if term.startswith("task-") else "agent_id"
            queryset = queryset.filter(**{column: term})
        return queryset, False

    @admin.display(description="what")
    def what(self, event: Event) -> str:
        return kind_word(event.kind)

    @admin.display(description="task")
    def task(self, event: Event) -> str:
        return task_link(event.task_id)

    @admin.display(description="agent")
    def agent(self, event: Event) -> str:
        return agent_link(event.agent_id)

    @admin.display(description="by")
    def by(self, event: Event) -> str:
        return by(event.actor)

    @admin.display(description="details")
    def details(self, event: Event) -> str:
        return sentence(event)

    @admin.display(description="as stored")
    def raw(self, event: Event) -> str:
        return as_json(event.data)


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin):
    list_display = ["host", "pid", moment("started_at"), moment("heartbeat_at"), "id"]
    fieldsets = [
        (None, {"fields": ["host", "pid", moment("started_at"), moment("heartbeat_at"), "id"]})
    ]


class ColumnFilter(admin.SimpleListFilter):
    """By a column without an index."""

    unindexed = True
    choices_of: list[str] = []

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(each, each) for each in self.choices_of]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = {str(self.parameter_name): self.value()}
        return queryset.filter(**chosen) if self.value() else queryset


class WhatFilter(ColumnFilter):
    title = f"what, among the newest {WINDOW:,}"
    parameter_name = "what"
    choices_of = [what.value for what in What]


class OutcomeFilter(ColumnFilter):
    title = f"outcome, among the newest {WINDOW:,}"
    parameter_name = "outcome"
    choices_of = Outcome.values


@admin.register(AuditEntry)
class AuditAdmin(ReadOnlyAdmin):
    list_display = [WHEN, "what", "outcome_badge", "about", "by", "from_where", "why", "times"]
    list_filter = [OutcomeFilter, WhatFilter]
    date_hierarchy = "at"
    search_fields = ["subject"]
    search_help_text = (
        "The whole name of who did it, the whole id or name of what it was about, or an address"
    )
    fieldsets = [
        (
            None,
            {
                "fields": [
                    "id",
                    WHEN,
                    "what",
                    "outcome_badge",
                    "about",
                    ("by", "from_where"),
                    "whole_reason",
                    "whole_detail",
                    "times",
                ]
            },
        )
    ]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if term := search_term.strip():
            who = [term, f"user:{term}", f"token:{term}"]
            found = Q(subject=term) | Q(actor__in=who) | Q(address=term)
            queryset = queryset.filter(found)
        return queryset, False

    @admin.display(description="outcome")
    def outcome_badge(self, entry: AuditEntry) -> str:
        return badge(entry.outcome)

    @admin.display(description="about")
    def about(self, entry: AuditEntry) -> str:
        is_task = entry.subject.startswith("task-")
        return task_link(entry.subject) if is_task else short(entry.subject)

    @admin.display(description="by")
    def by(self, entry: AuditEntry) -> str:
        return by(entry.actor)

    @admin.display(description="from")
    def from_where(self, entry: AuditEntry) -> str:
        return entry.address or NOTHING

    @admin.display(description="reason and details")
    def why(self, entry: AuditEntry) -> str:
        return short(" · ".join(filter(None, (entry.reason, entry.detail))), 160)

    @admin.display(description="reason")
    def whole_reason(self, entry: AuditEntry) -> str:
        return as_text(entry.reason)

    @admin.display(description="details")
    def whole_detail(self, entry: AuditEntry) -> str:
        return as_text(entry.detail)

    @admin.display(description="times")
    def times(self, entry: AuditEntry) -> str:
        return f"{entry.count:,}"
