from django.apps import AppConfig
from django.core.management import CommandError
from django.db.models.signals import pre_migrate


class AgentComConfig(AppConfig):
    name = "agentcom"
    verbose_name = "AgentCom"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from agentcom import checks  # noqa: F401  registers them

        pre_migrate.connect(refuse_foreign_schema, sender=self)


def refuse_foreign_schema(**kwargs: object) -> None:
    from agentcom.faults import foreign_schema

    if fault := foreign_schema():
        raise CommandError(fault)
