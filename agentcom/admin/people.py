"""Users and groups in the admin: the only rows that Django's admin changes by itself.

Each change and its entry in the audit trail are one transaction.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.http import HttpRequest, HttpResponse

from agentcom import actors
from agentcom.addresses import address_of
from agentcom.admin.read_only import CheckedSelection
from agentcom.audit import acting
from agentcom.audit.entries import Act, Entry, What
from agentcom.texts import listed

admin.site.unregister([User, Group])


class AuditedRows(CheckedSelection):
    """Django's admin calls `log_…` for each change, mostly in the transaction of the change."""

    added: What
    changed: What
    deleted: What

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        entry = super().log_addition(request, obj, message)
        self._write(request, self.added, obj, self.in_words(obj))
        return entry

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        entry = super().log_change(request, obj, message)
        said = f"{entry.get_change_message()} {self.in_words(obj)}"
        self._write(request, self.changed, obj, said.strip())
        return entry

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        for row in queryset:
            self._write(request, self.deleted, row, self.in_words(row))
        return super().log_deletions(request, queryset)

    def response_action(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with transaction.atomic():
            return super().response_action(request, *args, **kwargs)

    def in_words(self, row: Any) -> str:
        """What the row gives now."""
        raise NotImplementedError

    def _write(self, request: HttpRequest, what: What, row: Any, detail: str) -> None:
        actor = actors.user(request.user.get_username())
        acting.write_with(Entry(Act(what, str(row), detail=detail), actor, address_of(request)))


@admin.register(User)
class Users(AuditedRows, UserAdmin):
    added, changed, deleted = What.USER_ADD, What.USER_CHANGE, What.USER_DELETE

    def user_change_password(
        self, request: HttpRequest, id: str, form_url: str = ""
    ) -> HttpResponse:
        with transaction.atomic() if request.method == "POST" else nullcontext():
            return super().user_change_password(request, id, form_url)

    def in_words(self, row: Any) -> str:
        """The rights of the user."""
        flags = {"active": row.is_active, "staff": row.is_staff, "superuser": row.is_superuser}
        parts = [name if value else f"not {name}" for name, value in flags.items()]
        groups = list(row.groups.values_list("name", flat=True))
        parts += [f"groups {listed(groups)}"] if groups else []
        permissions = row.user_permissions.count()
        parts += [f"{permissions} permissions of their own"] if permissions else []
        return f"Now {', '.join(parts)}."


@admin.register(Group)
class Groups(AuditedRows, GroupAdmin):
    added, changed, deleted = What.GROUP_ADD, What.GROUP_CHANGE, What.GROUP_DELETE

    def in_words(self, row: Any) -> str:
        """The permissions of the group."""
        names = list(row.permissions.values_list("codename", flat=True))
        return f"Now with {listed(names)}." if names else "Now without permissions."
