from __future__ import annotations

import re
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet, Sum
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse

from agentcom.admin.lists import starts_with
from agentcom.admin.read_only import ReadOnlyAdmin
from agentcom.admin.shows import (
    NOTHING,
    READ,
    agent_link,
    as_json,
    as_list,
    as_text,
    badge,
    clamped,
    moment,
    span,
    task_link,
    timeline,
)
from agentcom.models import Event
from tasks.listing import newest_numbers
from tasks.models import Completion, Status, Tally, Task
from tasks.steering import Cancel, Retry

TIMELINE = 200  # entries
OF_AN_AGENT = 1_000  # newest tasks of an agent that a search finds
HEX = re.compile(r"[0-9a-f]{4,16}")


@admin.register(Task)
class TaskAdmin(ReadOnlyAdmin):
    list_display = [
        "task_id",
        "state",
        "priority",
        "beginning",
        "holder",
        "attempts",
        moment("created_at"),
    ]
    list_filter = ["status", "priority"]
    list_defer = ("description", "metadata", "result", "last_error", "needed_capabilities")
    list_annotations = {"_beginning": Left("description", READ)}
    date_hierarchy = "created_at"
    search_fields = ["task_id"]
    search_help_text = "A task's id or the beginning of it, or the whole id of an agent"
    actions = ["retry", "cancel"]
    irreversible = ("cancel",)
    fieldsets = [
        (None, {"fields": ["task_id", "state", "text", "error"]}),
        (
            "Current state",
            {
                "fields": [
                    ("priority", "needs_list"),
                    ("holder", "generation", "attempts"),
                    (moment("created_at"), moment("updated_at")),
                    (moment("not_before"), moment("complete_by"), "on_overdue"),
                    (moment("assigned_at"), moment("accepted_at"), moment("blocked_at")),
                    moment("last_alive_at", "last sign of life"),
                    (moment("cancel_deadline"), "why_cancelled"),
                    ("lost", "rejections", "assign_to"),
                    ("retry_backoff_s", "idle_timeout_s", "run_timeout_s"),
                ]
            },
        ),
        ("Submitted with it", {"fields": ["extra", "submitted_by"]}),
        ("Outcome", {"fields": ["answer", "tokens_used"]}),
        ("History", {"fields": ["events"]}),
    ]

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        """By its number or its task id."""
        if object_id.startswith("task-"):
            return self.get_queryset(request).filter(task_id=object_id).first()
        return super().get_object(request, object_id, from_field)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Task], search_term: str
    ) -> tuple[QuerySet[Task], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if term.startswith("task-"):
            return queryset.filter(starts_with("task_id", term)), False
        found = Q(number__in=newest_numbers({"assigned_to": term}, OF_AN_AGENT))
        if HEX.fullmatch(term):
            found |= starts_with("task_id", f"task-{term}")
        return queryset.filter(found), False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return super().changelist_view(request, {"total": _total(request), **(extra_context or {})})

    def operations_on(self, row: Task) -> list[str]:
        retry = ["retry"] if row.status in (Status.DEAD_LETTER, Status.CANCELLED) else []
        cancel = ["cancel"] if row.status not in (Status.COMPLETED, Status.CANCELLED) else []
        return [*retry, *cancel]

    @admin.action(permissions=["operate"], description="Cancel")
    def cancel(self, request: HttpRequest, tasks: QuerySet[Task]) -> HttpResponse | None:
        return self.operate(
            request,
            tasks,
            lambda task, actor: Cancel(task.task_id, actor, "cancelled in the admin"),
            "cancelled, or its agent asked to stop",
            {"not_found": "gone already", "too_late": "not cancelled, because completed"},
        )

    @admin.action(permissions=["operate"], description="Put back into the queue")
    def retry(self, request: HttpRequest, tasks: QuerySet[Task]) -> HttpResponse | None:
        return self.operate(
            request,
            tasks,
            lambda task, actor: Retry(task.task_id, actor),
            "put back into the queue",
            {"not_found": "not put back, because neither a dead letter nor cancelled"},
        )

    @admin.display(description="lost agents")
    def lost(self, task: Task) -> str:
        names = as_list(task.lost_agents or [])
        return f"{task.reclaim_count} of {task.max_reclaims} {names}".strip()

    @admin.display(description="rejections")
    def rejections(self, task: Task) -> str:
        return f"{task.rejection_count} of {task.max_rejections}"

    @admin.display(description="status", ordering="status")
    def state(self, task: Task) -> str:
        return badge(task.status)

    @admin.display(description="description")
    def beginning(self, task: Any) -> str:
        return clamped(task._beginning)

    @admin.display(description="agent")
    def holder(self, task: Task) -> str:
        return agent_link(task.assigned_to)

    @admin.display(description="failed")
    def attempts(self, task: Task) -> str:
        return f"{task.retry_count} of {max(task.max_retries, 1)}"

    @admin.display(description="description")
    def text(self, task: Task) -> str:
        return as_text(task.description)

    @admin.display(description="cancel reason")
    def why_cancelled(self, task: Task) -> str:
        return as_text(task.cancel_reason)

    @admin.display(description="last error")
    def error(self, task: Task) -> str:
        return as_text(task.last_error)

    @admin.display(description="needs")
    def needs_list(self, task: Task) -> str:
        return as_list(task.needed_capabilities) or NOTHING

    @admin.display(description="result")
    def answer(self, task: Task) -> str:
        return as_json(task.result)

    @admin.display(description="metadata")
    def extra(self, task: Task) -> str:
        return as_json(task.metadata)

    @admin.display(description="journal")
    def events(self, task: Task) -> str:
        newest = list(Event.objects.filter(task_id=task.task_id).order_by("-seq")[:TIMELINE])
        return timeline(reversed(newest))


COMPLETED = moment("completed_at")


@admin.register(Completion)
class CompletionAdmin(ReadOnlyAdmin):
    list_display = [
        "task",
        "agent",
        "duration",
        "tokens_used",
        "beginning",
        COMPLETED,
    ]
    list_defer = ("description",)
    list_annotations = {"_beginning": Left("description", READ)}
    date_hierarchy = "completed_at"
    search_fields = ["task_id"]
    search_help_text = "A task's id or the beginning of it, or the whole id of an agent"
    fieldsets = [
        (None, {"fields": ["task", "agent", "duration", "tokens_used", "text", COMPLETED]})
    ]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Completion], search_term: str
    ) -> tuple[QuerySet[Completion], bool]:
        term = search_term.strip()
        if term.startswith("task-"):
            queryset = queryset.filter(starts_with("task_id", term))
        elif term:
            queryset = queryset.filter(agent_id=term)
        return queryset, False

    @admin.display(description="task")
    def task(self, completion: Completion) -> str:
        return task_link(completion.task_id)

    @admin.display(description="agent")
    def agent(self, completion: Completion) -> str:
        return agent_link(completion.agent_id)

    @admin.display(description="took")
    def duration(self, completion: Completion) -> str:
        return span(completion.duration_ms)

    @admin.display(description="description")
    def beginning(self, completion: Any) -> str:
        return clamped(completion._beginning)

    @admin.display(description="description")
    def text(self, completion: Completion) -> str:
        return as_text(completion.description)


def _total(request: HttpRequest) -> int | None:
    """How many tasks these filters find, from the tally; None if the tally cannot say."""
    filters = {name: value for name, value in request.GET.items() if name != "p" and value}
    known = {"status__exact": "status", "priority__exact": "priority"}
    if not filters.keys() <= known.keys():
        return None
    places = {known[name]: value for name, value in filters.items()}
    try:
        return int(Tally.objects.filter(**places).aggregate(n=Sum("count", default=0))["n"])
    except ValueError:
        return None
