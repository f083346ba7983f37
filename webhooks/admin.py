from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_permission_codename
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.html import format_html, format_html_join

from agentcom import actors
from agentcom.addresses import address_of
from agentcom.admin.read_only import ReadOnlyAdmin
from agentcom.admin.shows import (
    NOTHING,
    as_json,
    as_list,
    at,
    badge,
    by,
    link,
    list_link,
    moment,
    short,
    span,
    task_link,
)
from agentcom.audit import acting
from agentcom.audit.entries import Auditable
from agentcom.errors import Refused
from webhooks.deliveries import Discard, Replay
from webhooks.endpoints import (
    LANES,
    AddEndpoint,
    ChangeEndpoint,
    RemoveEndpoint,
    RotateSecret,
    SendTest,
    SwitchOff,
    SwitchOn,
    Target,
)
from webhooks.kinds import DEFAULT_TYPES, TYPES
from webhooks.models import Attempt, Delivery, Endpoint, Message, State
from webhooks.signing import PREFIX

TIMEOUT_S = 10.0
SECRET_SHOWN = len(PREFIX) + 4  # characters that tell secrets apart
ANSWER_SHOWN = 200  # characters in the table of attempts
ATTEMPT_ROW = "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>"
EDITED = ("url", "description", "types", "lanes", "capabilities")
GONE = {"webhook_not_found": "gone already"}


class EndpointForm(forms.ModelForm):
    """What an operator says of an endpoint; `target` is the same, checked."""

    url = forms.CharField(label="URL", widget=forms.URLInput(attrs={"class": "vLargeTextField"}))
    description = forms.CharField(
        required=False, max_length=500, widget=forms.TextInput(attrs={"class": "vLargeTextField"})
    )
    types = forms.MultipleChoiceField(
        choices=[(name, name) for name in TYPES.values()],
        widget=forms.CheckboxSelectMultiple,
        initial=DEFAULT_TYPES,
        help_text="What it hears of.",
    )
    lanes = forms.MultipleChoiceField(
        choices=[(name, name) for name in LANES],
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text="Only tasks of these lanes. None: all.",
    )
    capabilities = forms.CharField(
        required=False,
        widget=forms.TextInput(attrs={"class": "vLargeTextField"}),
        help_text="Only tasks that need at least one of these, separated by commas. None: all.",
    )

    class Meta:
        model = Endpoint
        fields = EDITED

    target: Target

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["capabilities"] = ", ".join(self.instance.capabilities)

    def clean_capabilities(self) -> list[str]:
        given = self.cleaned_data["capabilities"].split(",")
        return [name for part in given if (name := part.strip())]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if not self.errors:
            try:
                self.target = Target(**{name: cleaned[name] for name in EDITED})
            except ValueError as error:
                field, _, sentence = str(error).partition(": ")
                self.add_error(field, f"It {sentence}." if field == "url" else sentence)
        return cleaned


@admin.register(Endpoint)
class EndpointAdmin(ReadOnlyAdmin):
    form = EndpointForm
    list_display = ["called", "target", "state", "hears", "waits", "gave_up", moment("created_at")]
    list_filter = ["enabled"]
    search_fields = ["url", "description", "endpoint_id"]
    search_help_text = "A part of a URL or a description"
    actions = ["test", "switch_on", "switch_off", "replay_dead", "rotate", "remove"]
    irreversible = ("rotate", "remove")
    shown = [
        (
            "How it stands",
            {
                "fields": [
                    ("state", moment("off_at", "off since"), moment("failing_since")),
                    "why_off",
                    ("waits", "gave_up", "more"),
                ]
            },
        ),
        (
            "About it",
            {
                "fields": [
                    "endpoint_id",
                    "secret_begins",
                    moment("old_secret_until", "the secret before signs until"),
                    (moment("created_at"), "by"),
                    "seq",
                ]
            },
        ),
    ]

    # --- The form. Its changes are commands, like those of every action.

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        said = (None, {"fields": list(EDITED)})
        return [said] if obj is None else [said, *self.shown]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        may = self.has_change_permission(request) if obj else self.has_add_permission(request)
        shown = [
            part
            for _, options in self.shown
            for field in options["fields"]
            for part in (field if isinstance(field, tuple) else (field,))
        ]
        return shown if may else [*EDITED, *shown]

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "add")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "change")

    def has_remove_permission(self, request: HttpRequest) -> bool:
        return self._may(request, "delete")

    def _may(self, request: HttpRequest, what: str) -> bool:
        codename = get_permission_codename(what, self.opts)
        return bool(request.user.has_perm(f"{self.opts.app_label}.{codename}"))

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Without the transaction that Django puts around it: on SQLite that would keep the Writer
        from writing, for which this request waits."""
        try:
            answer: HttpResponse = self._changeform_view(  # type: ignore[attr-defined]
                request, object_id, form_url, extra_context
            )
        except Refused as refused:
            self.message_user(request, f"Nothing was changed: {refused}.", messages.ERROR)
            return redirect(request.get_full_path())
        return answer

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        actor = actors.user(request.user.get_username())
        if change:
            _do(request, ChangeEndpoint(obj.pk, actor, form.target))
            return
        adding = AddEndpoint(actor, form.target)
        _do(request, adding)
        obj.pk = adding.endpoint_id
        self._show_secret(request, str(obj), adding.secret)

    def _show_secret(self, request: HttpRequest, name: str, secret: str) -> None:
        said = "The secret of {}, which is shown this once: {}"
        shown = format_html(f"{said[:-2]}<code>{{}}</code>", name, secret)
        self.message_user(request, shown, messages.WARNING)

    # --- Actions

    def operations_on(self, row: Endpoint) -> list[str]:
        dead = ["replay_dead"] if _count(row, state=State.DEAD) else []
        if row.enabled:
            return ["test", "switch_off", *dead, "rotate", "remove"]
        return ["switch_on", *dead, "rotate", "remove"]

    @admin.action(permissions=["operate"], description="Send a test")
    def test(self, request: HttpRequest, rows: QuerySet[Endpoint]) -> HttpResponse | None:
        return self.operate(
            request,
            rows,
            lambda endpoint, actor: SendTest(endpoint.endpoint_id, actor),
            "sent a test; the deliveries say what came of it",
            {**GONE, "webhook_is_off": "not sent a test, because switched off"},
        )

    @admin.action(permissions=["operate"], description="Switch on")
    def switch_on(self, request: HttpRequest, rows: QuerySet[Endpoint]) -> HttpResponse | None:
        return self.operate(
            request,
            rows,
            lambda endpoint, actor: SwitchOn(endpoint.endpoint_id, actor),
            "switched on",
            {**GONE, "unchanged": "switched on before"},
        )

    @admin.action(permissions=["operate"], description="Switch off")
    def switch_off(self, request: HttpRequest, rows: QuerySet[Endpoint]) -> HttpResponse | None:
        return self.operate(
            request,
            rows,
            lambda endpoint, actor: SwitchOff(endpoint.endpoint_id, actor),
            "switched off",
            {**GONE, "unchanged": "switched off before"},
        )

    @admin.action(permissions=["operate"], description="Replay dead deliveries")
    def replay_dead(self, request: HttpRequest, rows: QuerySet[Endpoint]) -> HttpResponse | None:
        ids = list(rows.values_list("endpoint_id", flat=True))
        dead = Delivery.objects.filter(endpoint_id__in=ids, state=State.DEAD).order_by("number")
        return replay(self, request, dead)

    @admin.action(permissions=["operate"], description="New secret")
    def rotate(self, request: HttpRequest, rows: QuerySet[Endpoint]) -> HttpResponse | None:
        rotations: list[RotateSecret] = []

        def rotation(endpoint: Endpoint, actor: str) -> RotateSecret:
            rotations.append(RotateSecret(endpoint.endpoint_id, actor))
            return rotations[-1]

        answer = self.operate(
            request, rows, rotation, "given a new secret; the old one signs too for 24 hours", GONE
        )
        for done in rotations:
            named = Endpoint.objects.filter(endpoint_id=done.endpoint_id, secret=done.secret)
            for endpoint in named:
                self._show_secret(request, str(endpoint), done.secret)
        return answer

    @admin.action(permissions=["remove"], description="Remove")
    def remove(self, request: HttpRequest, rows: QuerySet[Endpoint]) -> HttpResponse | None:
        return self.operate(
            request,
            rows,
            lambda endpoint, actor: RemoveEndpoint(endpoint.endpoint_id, actor),
            "removed, with all that waited for it",
            GONE,
        )

    # --- Columns

    @admin.display(description="webhook")
    def called(self, endpoint: Endpoint) -> str:
        return short(str(endpoint))

    @admin.display(description="URL")
    def target(self, endpoint: Endpoint) -> str:
        return short(endpoint.url)

    @admin.display(description="state")
    def state(self, endpoint: Endpoint) -> str:
        if endpoint.enabled:
            return badge("failing" if endpoint.failing_since else "on")
        return badge("switched off because of failures" if endpoint.off_by_failure else "off")

    @admin.display(description="why it is off")
    def why_off(self, endpoint: Endpoint) -> str:
        return endpoint.off_reason or NOTHING

    @admin.display(description="hears of")
    def hears(self, endpoint: Endpoint) -> str:
        parts = [as_list(endpoint.types)]
        parts += [f"lanes {as_list(endpoint.lanes)}"] if endpoint.lanes else []
        parts += [f"capabilities {as_list(endpoint.capabilities)}"] if endpoint.capabilities else []
        return short("; ".join(parts), 200)

    @admin.display(description="waiting")
    def waits(self, endpoint: Endpoint) -> str:
        return f"{_count(endpoint, ended_at=None):,}"

    @admin.display(description="dead")
    def gave_up(self, endpoint: Endpoint) -> str:
        return f"{_count(endpoint, state=State.DEAD):,}"

    @admin.display(description="see also")
    def more(self, endpoint: Endpoint) -> str:
        return list_link("webhooks_delivery", endpoint.endpoint_id, "its deliveries")

    @admin.display(description="secret")
    def secret_begins(self, endpoint: Endpoint) -> str:
        return f"{endpoint.secret[:SECRET_SHOWN]}…"

    @admin.display(description="by")
    def by(self, endpoint: Endpoint) -> str:
        return by(endpoint.created_by)


def _do(request: HttpRequest, command: Auditable) -> None:
    """Raises `Refused`."""
    [outcome] = acting.call_all([command], address_of(request), TIMEOUT_S)
    if isinstance(outcome, Refused):
        raise outcome


def _count(endpoint: Endpoint, **which: Any) -> int:
    return Delivery.objects.filter(endpoint_id=endpoint.endpoint_id, **which).count()


def replay(
    model_admin: ReadOnlyAdmin, request: HttpRequest, deliveries: QuerySet[Delivery]
) -> HttpResponse | None:
    return model_admin.operate(
        request,
        deliveries,
        lambda delivery, actor: Replay(delivery.message_id, delivery.endpoint_id, actor),
        "to be sent again",
        {
            "unchanged": "about to be sent anyway",
            "delivery_not_found": "gone already",
            "webhook_not_found": "not sent again: the webhook was removed",
        },
    )


class WebhookFilter(admin.SimpleListFilter):
    title = "webhook"
    parameter_name = "webhook"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(e.endpoint_id, short(e.in_words, 40)) for e in Endpoint.objects.all()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(endpoint_id=self.value()) if self.value() else queryset


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"
    unindexed = True

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, str]]:
        return list(State.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state=self.value()) if self.value() else queryset


HAPPENED = moment("happened_at", "happened")


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    list_display = [
        *("number", "webhook", "type", "state_badge", "attempts", "outcome", HAPPENED, "task"),
        moment("due_at", "next attempt"),
    ]
    list_filter = [WebhookFilter, StateFilter]
    date_hierarchy = "created_at"
    search_fields = ["message_id"]
    search_help_text = "The whole id of a message, a task or a webhook"
    actions = ["replay", "discard"]
    irreversible = ("discard",)
    fieldsets = [
        (
            None,
            {
                "fields": [
                    "message_id",
                    "webhook",
                    ("type", "seq"),
                    "task",
                    (HAPPENED, moment("created_at", "read from the journal")),
                    "state_badge",
                    ("attempts", moment("due_at", "next attempt"), moment("ended_at", "ended")),
                ]
            },
        ),
        ("Attempts", {"fields": ["tried"]}),
        ("What is sent", {"fields": ["body"]}),
    ]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if term := search_term.strip():
            columns = {"task-": "task_id", "hook-": "endpoint_id"}
            queryset = queryset.filter(**{columns.get(term[:5], "message_id"): term})
        return queryset, False

    def operations_on(self, row: Delivery) -> list[str]:
        return ["replay", "discard"] if row.state == State.DEAD else ["replay"]

    @admin.action(permissions=["operate"], description="Send again")
    def replay(self, request: HttpRequest, rows: QuerySet[Delivery]) -> HttpResponse | None:
        return replay(self, request, rows.order_by("number"))

    @admin.action(permissions=["operate"], description="Discard")
    def discard(self, request: HttpRequest, rows: QuerySet[Delivery]) -> HttpResponse | None:
        return self.operate(
            request,
            rows,
            lambda delivery, actor: Discard(delivery.message_id, actor),
            "discarded",
            {"unchanged": "kept, because not dead", "delivery_not_found": "gone already"},
        )

    @admin.display(description="webhook")
    def webhook(self, delivery: Delivery) -> str:
        endpoint = Endpoint.objects.filter(endpoint_id=delivery.endpoint_id).first()
        if endpoint is None:
            return f"{delivery.endpoint_id}, removed"
        return link("webhooks_endpoint", endpoint.endpoint_id, short(str(endpoint), 60))

    @admin.display(description="task")
    def task(self, delivery: Delivery) -> str:
        return task_link(delivery.task_id)

    @admin.display(description="state")
    def state_badge(self, delivery: Delivery) -> str:
        return badge(delivery.state)

    @admin.display(description="last answer")
    def outcome(self, delivery: Delivery) -> str:
        return short(delivery.error or str(delivery.status_code or ""))

    @admin.display(description="log")
    def tried(self, delivery: Delivery) -> str:
        found = Attempt.objects.filter(message_id=delivery.message_id).order_by("id")
        rows = [
            (
                at(attempt.at),
                attempt.status_code or NOTHING,
                span(attempt.duration_ms),
                short(attempt.error, ANSWER_SHOWN),
                short(attempt.answer, ANSWER_SHOWN),
            )
            for attempt in found
        ]
        if not rows:
            return "None yet"
        return format_html(
            '<table class="timeline"><thead><tr><th>when</th><th>status</th><th>took</th>'
            "<th>what went wrong</th><th>the answer begins with</th></tr></thead>"
            "<tbody>{}</tbody></table>",
            format_html_join("", ATTEMPT_ROW, rows),
        )

    @admin.display(description="body")
    def body(self, delivery: Delivery) -> str:
        message = Message.objects.filter(message_id=delivery.message_id).first()
        return as_json(json.loads(message.body)) if message is not None else NOTHING
