"""The admin: a read-only view of all rows, and the actions of operators.

`read_only.py` is the base of each room's `admin.py`, `lists.py` bounds the cost of a list, and
`shows.py` formats values; `people.py` has users and groups, `trail.py` the audit trail. This file
has the site's titles, and the admins of the spine's other rows.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from agentcom.admin import people, trail  # noqa: F401  they register their admins
from agentcom.admin.lists import WINDOW
from agentcom.admin.read_only import ReadOnlyAdmin
from agentcom.admin.shows import agent_link, as_json, by, kind_word, moment, sentence, task_link
from agentcom.kinds import kinds
from agentcom.logins import LoginForm
from agentcom.models import Event, Node

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
