from typing import Any

from django.db import migrations

from tasks.causes import group_of

BATCH = 1_000


def fill(apps: Any, schema_editor: Any) -> None:
    """Errors that differ in the colours of a terminal alone are one cause, also those of before."""
    tasks = apps.get_model("tasks", "Task").objects
    dead = tasks.filter(died_at__isnull=False).order_by("number").only("cause", "last_error")
    last = 0
    while batch := list(dead.filter(number__gt=last)[:BATCH]):
        changed = []
        for task in batch:
            cause = group_of(task.last_error or "")
            if task.cause != cause:
                task.cause = cause
                changed.append(task)
        tasks.bulk_update(changed, ["cause"])
        last = batch[-1].number


class Migration(migrations.Migration):
    dependencies = [
        ("tasks", "0004_queue_index"),
    ]

    operations = [
        migrations.RunPython(fill, migrations.RunPython.noop, elidable=True),
    ]
