"""The roles of people: groups whose permissions are kept as `AGENTCOM_ROLES` has them.

A person who should have other rights gets a group of another name. Nobody is put into a group by
the hub.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps as all_apps
from django.conf import settings


def keep_roles(sender: Any, using: str, apps: Any = all_apps, **kwargs: Any) -> None:
    """After a migration: make the groups, and set their permissions.

    Django calls it for each app. It acts once, for the last one, when all permissions are there.
    """
    if sender is not [each for each in all_apps.get_app_configs() if each.models_module][-1]:
        return
    try:
        groups = apps.get_model("auth", "Group").objects.using(using)
        permissions = apps.get_model("auth", "Permission").objects.using(using)
    except LookupError:  # migrated to a state before them
        return
    known = {
        (label, codename): key
        for key, label, codename in permissions.values_list(
            "pk", "content_type__app_label", "codename"
        )
    }
    for name, wanted in settings.AGENTCOM_ROLES.items():
        group, _ = groups.get_or_create(name=name)
        names = (tuple(permission.split(".", 1)) for permission in wanted)
        group.permissions.set(known[each] for each in names if each in known)
