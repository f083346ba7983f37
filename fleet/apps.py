from django.apps import AppConfig


class FleetConfig(AppConfig):
    name = "fleet"
    # The name that this room began with. Tables, permissions and the admin's addresses carry it, so
    # an upgrade has nothing to move.
    label = "agents"
