"""Django's command, in the audit trail."""

from typing import Any

from django.contrib.auth.management.commands import changepassword

from agentcom.audit.typed import saved_users_noted


class Command(changepassword.Command):
    def handle(self, *args: Any, **options: Any) -> Any:
        with saved_users_noted("new password"):
            return super().handle(*args, **options)
