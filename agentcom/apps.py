from django.apps import AppConfig


class AgentComConfig(AppConfig):
    name = "agentcom"
    verbose_name = "AgentCom"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from agentcom import checks  # noqa: F401  registers them
