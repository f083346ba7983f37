"""The audit trail in the admin: to look at, and nothing else."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from agentcom import actors
from agentcom.admin.lists import WINDOW
from agentcom.admin.read_only import ReadOnlyAdmin
from agentcom.admin.shows import NOTHING, as_text, badge, by, clamped, moment, short, task_link
from agentcom.audit.entries import What
from agentcom.models import AuditEntry, Outcome

WHEN = moment("at", "when")


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
    list_display = [WHEN, "what_and_about", "outcome_badge", "by_and_from", "why"]
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
        return "the command line" if entry.actor == actors.HUB else by(entry.actor)

    @admin.display(description="from")
    def from_where(self, entry: AuditEntry) -> str:
        return entry.address or NOTHING

    @admin.display(description="what, about")
    def what_and_about(self, entry: AuditEntry) -> str:
        return _above(entry.what, self.about(entry) if entry.subject else "")

    @admin.display(description="by, from")
    def by_and_from(self, entry: AuditEntry) -> str:
        return _above(self.by(entry), entry.address)

    @admin.display(description="reason and details")
    def why(self, entry: AuditEntry) -> str:
        times = f"{entry.count:,} times" if entry.count > 1 else ""
        return clamped(" · ".join(filter(None, (times, entry.reason, entry.detail))))

    @admin.display(description="reason")
    def whole_reason(self, entry: AuditEntry) -> str:
        return as_text(entry.reason)

    @admin.display(description="details")
    def whole_detail(self, entry: AuditEntry) -> str:
        return as_text(entry.detail)

    @admin.display(description="times")
    def times(self, entry: AuditEntry) -> str:
        return f"{entry.count:,}"


def _above(first: str, second: str) -> str:
    """Two lines, so that the list needs fewer columns."""
    return format_html('{}<br><span class="under">{}</span>', first, second) if second else first
