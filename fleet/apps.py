from django.apps import AppConfig


class FleetConfig(AppConfig):
    name = "fleet"
    # The original name of this app. Tables, permissions and admin URLs contain it; keeping it
    # means that an upgrade has nothing to rename.
    label = "agents"
