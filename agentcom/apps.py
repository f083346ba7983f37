from typing import Any

from django.apps import AppConfig
from django.core.management import CommandError
from django.db.models.signals import post_migrate, pre_migrate

from agentcom.optional import load_rest_framework
from agentcom.roles import keep_roles


class AgentComConfig(AppConfig):
    name = "agentcom"
    verbose_name = "AgentCom"
    default_auto_field = "django.db.models.BigAutoField"

    def __init__(self, app_name: str, app_module: Any) -> None:
        super().__init__(app_name, app_module)
        load_rest_framework()  # the models come after this, and load all of it

    def ready(self) -> None:
        from agentcom import checks  # noqa: F401  registers them

        pre_migrate.connect(refuse_foreign_schema, sender=self)
        post_migrate.connect(keep_roles, dispatch_uid="agentcom.roles")


def refuse_foreign_schema(**kwargs: object) -> None:
    from agentcom.faults import foreign_schema

    if fault := foreign_schema():
        raise CommandError(fault)
