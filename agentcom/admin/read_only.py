"""The base of all model admins: read-only rows, and the actions of operators.

Actions run the same commands as everywhere else, so dashboards, the journal and the audit trail
show them. The admin's own history records who did it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import flatten_fieldsets, model_ngettext, quote
from django.contrib.auth import get_permission_codename
from django.core.exceptions import BadRequest, ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from agentcom import actors
from agentcom.access import may_view
from agentcom.addresses import address_of
from agentcom.admin.lists import BoundedChangeList, BoundedPaginator
from agentcom.audit import acting
from agentcom.audit.entries import Auditable
from agentcom.errors import Refused, Unavailable

AT_ONCE = 2_000  # rows that one action changes at most
GROUP = 200  # commands that may share a commit; the fleet's commands can go in between


class CheckedSelection(admin.ModelAdmin):
    """Refuses an action on what cannot be the key of a row; Django alone would answer 500."""

    def response_action(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        for key in request.POST.getlist(ACTION_CHECKBOX_NAME):
            try:
                self.opts.pk.clean(key, None)
            except ValidationError:
                raise BadRequest(f"No key of {self.opts.verbose_name_plural}: {key!r}") from None
        return super().response_action(request, *args, **kwargs)


class ReadOnlyAdmin(CheckedSelection):
    """Rows can be viewed, not edited. Actions still require the permission to change them."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    list_max_show_all = 0
    sortable_by = ()
    actions_selection_counter = True
    change_list_template = "admin/agentcom/change_list.html"
    change_form_template = "admin/agentcom/change_form.html"
    list_defer: tuple[str, ...] = ()  # columns too large for a list
    list_annotations: Mapping[str, Any] = {}
    irreversible: Collection[str] = ()  # actions whose button asks for confirmation

    class Media:
        css = {"all": ["agentcom/admin.css"]}
        js = ["agentcom/confirm.js"]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedChangeList]:
        return BoundedChangeList

    def for_list(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        shown: QuerySet[Any] = rows.annotate(**self.list_annotations).defer(*self.list_defer)
        return shown

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        codename = get_permission_codename("view", self.opts)
        return may_view(request.user, f"{self.opts.app_label}.{codename}")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        codename = get_permission_codename("change", self.opts)
        return bool(request.user.has_perm(f"{self.opts.app_label}.{codename}"))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return flatten_fieldsets(self.get_fieldsets(request, obj)) if self.fieldsets else []

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        row = self.get_object(request, object_id) if request.method == "GET" else None
        possible = self.operations_on(row) if row is not None else []
        allowed: dict[str, Any] = self.get_actions(request)
        operations = [
            {"name": name, "label": _label(allowed[name]), "confirm": name in self.irreversible}
            for name in possible
            if name in allowed
        ]
        context = {"operations": operations, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    def operations_on(self, row: Any) -> list[str]:
        """The names of the actions that make sense for this row as it is now."""
        return []

    def operate(
        self,
        request: HttpRequest,
        rows: QuerySet[Any],
        command: Callable[[Any, str], Auditable],
        done: str,
        refusals: Mapping[str, str],
    ) -> HttpResponse | None:
        """Run a command for each row, and report how many were done and why others were not.

        `command` takes a row and the actor. `done` and the values of `refusals` (by error code) end
        a sentence that begins with, for example, "3 tasks".
        """
        chosen = list(rows[: AT_ONCE + 1])
        actor, address = actors.user(request.user.get_username()), address_of(request)
        asked = (command(row, actor) for row in chosen[:AT_ONCE])
        try:
            outcomes = list(_commit(asked, address))
        except Unavailable as unavailable:
            self.message_user(request, f"Not all was done: {unavailable.detail}.", messages.ERROR)
            return None
        good = [row for row, code in zip(chosen, outcomes, strict=False) if code is None]
        if good:
            self._say(request, messages.SUCCESS, len(good), done)
            LogEntry.objects.log_actions(str(request.user.pk), good, CHANGE, done)
        for code, count in Counter(code for code in outcomes if code is not None).items():
            self._say(request, messages.WARNING, count, refusals.get(code, code))
        if len(chosen) > AT_ONCE:
            left = f"There are more: only {AT_ONCE:,} are done at once. Do it again for the others."
            self.message_user(request, left, messages.WARNING)
        return self._back(request, chosen)

    def _say(self, request: HttpRequest, level: int, count: int, what: str) -> None:
        self.message_user(request, f"{count:,} {model_ngettext(self.opts, count)} {what}.", level)

    def _back(self, request: HttpRequest, rows: list[Model]) -> HttpResponse | None:
        """Redirect to the page of the row whose button was pressed, if the row still exists."""
        if "from_its_page" not in request.POST or len(rows) != 1:
            return None
        page = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"
        there = self.model._default_manager.filter(pk=rows[0].pk).exists()
        return redirect(page, quote(rows[0].pk)) if there else None


def _label(action: Any) -> str:
    """What the button of an action says. Before Django 6.1 an action is a tuple."""
    label: str = action[2] if isinstance(action, tuple) else action.description
    return label


def _commit(commands: Iterable[Auditable], address: str) -> Iterator[str | None]:
    """For each command the code of its refusal, or None if it was done. Raises `Unavailable`."""
    waiting = list(commands)
    for start in range(0, len(waiting), GROUP):
        group = waiting[start : start + GROUP]
        for outcome in acting.call_all(group, address, settings.AGENTCOM_COMMIT_TIMEOUT_S):
            if isinstance(outcome, Refused):
                yield outcome.code
            else:
                yield "unchanged" if outcome is False else None
