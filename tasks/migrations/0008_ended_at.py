from typing import Any

from django.db import migrations, models


def fill(apps: Any, schema_editor: Any) -> None:
    """A completed task was changed for the last time when it was completed."""
    tasks = apps.get_model("tasks", "Task").objects
    tasks.filter(status="completed").update(ended_at=models.F("updated_at"))


class Migration(migrations.Migration):
    dependencies = [
        ("tasks", "0007_needs_filed"),
    ]

    operations = [
        migrations.AddField(
            model_name="task",
            name="ended_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.RunPython(fill, migrations.RunPython.noop, elidable=True),
        migrations.AddIndex(
            model_name="task",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)),
                fields=["ended_at"],
                name="task_ended",
            ),
        ),
    ]
